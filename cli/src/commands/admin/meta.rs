//! `rangedb admin meta list` and `rangedb admin meta get`: the system's own keys, as stored.

use std::io;

use bytes::Bytes;
use clap::{Args, Subcommand};
use futures::{StreamExt, pin_mut};
use rangedb_proto::v1::MetaEntry;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use crate::args::{self, Output};
use crate::escape::escape;
use crate::failure::Failure;
use crate::json;
use crate::session::Session;

/// Look at the system's own keys
#[derive(Debug, Subcommand)]
pub enum Meta {
    List(List),
    Get(Get),
}

/// List keys that start with a prefix, each with its value as JSON
#[derive(Debug, Args)]
pub struct List {
    /// Such as _/partitions/ or _/cluster/nodes/
    #[arg(value_parser = args::bytes(), default_value = "_/")]
    prefix: Bytes,
}

/// Print the value of one key as JSON
#[derive(Debug, Args)]
pub struct Get {
    /// Such as _/cluster/nodes/1
    #[arg(value_parser = args::bytes())]
    key: Bytes,
}

impl Meta {
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        match self {
            Meta::List(list) => list.run(session).await,
            Meta::Get(get) => get.run(session).await,
        }
    }
}

impl List {
    async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        let entries = session.client.admin().meta(&self.prefix);
        pin_mut!(entries);
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            let key = escape(&entry.key);
            print(session, &entry, |entry| format!("{key}\t{}", entry.json))?;
        }
        Ok(())
    }
}

impl Get {
    async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        let Some(entry) = session.client.admin().meta_get(&self.key).await? else {
            return Err(Failure::KeyNotFound(self.key));
        };
        Ok(print(session, &entry, |entry| entry.json.clone())?)
    }
}

fn print(
    session: &mut Session<'_>,
    entry: &MetaEntry,
    line: impl FnOnce(&MetaEntry) -> String,
) -> io::Result<()> {
    let out = &mut session.streams.out;
    match session.output {
        Output::Table => writeln!(out, "{}", line(entry)),
        Output::Json => json::print(out, &MetaRow(entry)),
    }
}

/// A system key as JSON. Its value is embedded as JSON, not as a string.
struct MetaRow<'a>(&'a MetaEntry);

impl Serialize for MetaRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: Value = serde_json::from_str(&self.0.json).map_err(serde::ser::Error::custom)?;
        let mut map = serializer.serialize_map(None)?;
        json::bytes_entry(&mut map, "key", &self.0.key)?;
        map.serialize_entry("value", &value)?;
        map.serialize_entry("version", &self.0.version)?;
        map.serialize_entry("mod_ts", &self.0.mod_ts)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Cluster;

    #[test]
    fn keys_under_a_prefix_are_listed_over_all_pages() {
        let cluster = Cluster::new();
        let text = "_/cluster/nodes/1\t{\"node_id\":1}\n_/cluster/nodes/2\t{\"node_id\":2}\n";
        cluster.run(["admin", "meta", "list", "_/cluster/nodes/"]).prints(text);
        cluster.run(["admin", "metadata", "list"]).prints(&format!("_/cluster/id\t\"ab\"\n{text}"));
        cluster.run(["admin", "meta", "list", "_/nothing/"]).prints("");
    }

    #[test]
    fn one_key_is_printed_as_the_json_it_is() {
        let cluster = Cluster::new();
        cluster.run(["admin", "meta", "get", "_/cluster/nodes/1"]).prints("{\"node_id\":1}\n");
        cluster
            .run(["admin", "metadata", "get", "_/cluster/id", "--output", "json"])
            .prints("{\"key\":\"_/cluster/id\",\"value\":\"ab\",\"version\":1,\"mod_ts\":9}\n");
    }

    #[test]
    fn an_absent_key_exits_with_3() {
        Cluster::new()
            .run(["admin", "meta", "get", "_/cluster/nodes/7"])
            .fails(3, "key not found: _/cluster/nodes/7");
    }
}
