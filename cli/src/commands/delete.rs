//! `rangedb delete K`.

use std::io::{self, Write};

use bytes::Bytes;
use clap::Args;
use rangedb_client::Timestamp;
use serde_json::json;

use crate::args::{self, Output};
use crate::commands::put;
use crate::failure::Failure;
use crate::json;
use crate::session::Session;

/// Delete a key
///
/// Prints how many keys it deleted: 0 if there was none, which is no error.
#[derive(Debug, Args)]
pub struct Delete {
    /// The key: any bytes, 8 KiB at most, not beginning with _/
    #[arg(value_parser = args::bytes())]
    key: Bytes,
}

impl Delete {
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        if let Some(transaction) = &session.transaction {
            transaction.delete(self.key).await?;
            return Ok(put::print(session.streams.out, session.output, None)?);
        }
        let deleted = session.client.delete(self.key).await?;
        let count = u64::from(deleted.existed);
        Ok(print(session.streams.out, session.output, count, deleted.commit_ts)?)
    }
}

/// Prints the answer of this command and of `batch delete`.
pub fn print(
    out: &mut dyn Write,
    output: Output,
    deleted: u64,
    commit_ts: Timestamp,
) -> io::Result<()> {
    match output {
        Output::Table => writeln!(out, "OK (deleted {deleted})"),
        Output::Json => json::print(out, &json!({ "deleted": deleted, "commit_ts": commit_ts.0 })),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Cluster;

    #[test]
    fn deleting_says_whether_the_key_was_there() {
        let cluster = Cluster::new();
        cluster.set("/a", b"v");
        cluster.run(["delete", "/a"]).prints("OK (deleted 1)\n");
        assert!(cluster.rows().is_empty());
        cluster.run(["delete", "/a"]).prints("OK (deleted 0)\n");
    }

    #[test]
    fn json_has_the_count_and_the_commit() {
        let ran = Cluster::new().run(["delete", "/a", "--output", "json"]);
        let answer: serde_json::Value = serde_json::from_slice(&ran.out).unwrap();
        assert_eq!(answer["deleted"], 0);
        assert!(answer["commit_ts"].as_u64().unwrap() > 0);
    }
}
