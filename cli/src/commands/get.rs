//! `rangedb get K`.

use bytes::Bytes;
use clap::Args;
use rangedb_client::KeyValue;

use crate::args::{self, Output};
use crate::failure::Failure;
use crate::json::{self, Row};
use crate::session::Session;

/// Print the value of a key
///
/// Prints the newest committed value, its bytes as they are, and a line break. Exits with 3 if the
/// key does not exist.
#[derive(Debug, Args)]
pub struct Get {
    /// The key: any bytes, 8 KiB at most, not beginning with _/
    #[arg(value_parser = args::bytes())]
    key: Bytes,
}

impl Get {
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        let kv = match &session.transaction {
            None => session.client.get(self.key.clone()).await?,
            Some(transaction) => transaction.get(self.key.clone()).await?,
        };
        self.print(session, kv)
    }

    fn print(self, session: &mut Session<'_>, kv: Option<KeyValue>) -> Result<(), Failure> {
        let Some(kv) = kv else { return Err(Failure::KeyNotFound(self.key)) };
        let out = &mut session.streams.out;
        match session.output {
            Output::Table => {
                out.write_all(&kv.value)?;
                out.write_all(b"\n")?;
            }
            Output::Json => json::print(out, &Row { kv: &kv, with_value: true })?,
        }
        Ok(())
    }
}

/// Print the value of a key, as of the transaction's start and with its own writes
///
/// Exits with 3 if the key does not exist.
#[derive(Debug, Args)]
pub struct TransactionGet {
    #[command(flatten)]
    get: Get,
    /// Lock the key until the transaction ends, and print its newest value
    #[arg(long)]
    for_update: bool,
}

impl TransactionGet {
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        if !self.for_update {
            return self.get.run(session).await;
        }
        let kv = session.open_transaction()?.get_for_update(self.get.key.clone()).await?;
        self.get.print(session, kv)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Cluster;

    #[test]
    fn a_value_is_printed_byte_for_byte() {
        let cluster = Cluster::new();
        cluster.set("/a", b"\0\xff\t\\");
        assert_eq!(cluster.run(["get", "/a"]).out, b"\0\xff\t\\\n");
    }

    #[test]
    fn json_has_the_figures_of_the_key() {
        let cluster = Cluster::new();
        cluster.set("/a", b"{\"b\": 1}");
        let row = &cluster.rows()["/a".as_bytes()];
        let (create_ts, mod_ts) = (row.create_ts, row.mod_ts);
        cluster.run(["get", "/a", "--output", "json"]).prints(&format!(
            r#"{{"key":"/a","value":"{{\"b\": 1}}","version":1,"create_ts":{create_ts},"mod_ts":{mod_ts}}}{}"#,
            "\n"
        ));
    }

    #[test]
    fn a_missing_key_prints_nothing_and_exits_with_3() {
        let ran = Cluster::new().run(["get", "/nobody"]);
        assert_eq!(
            (ran.code, &ran.out[..], &ran.notes[..]),
            (3, &b""[..], "key not found: /nobody\n")
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_key_may_be_bytes_that_are_no_text() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let cluster = Cluster::new();
        cluster.set(&b"/\xff"[..], b"v");
        cluster.run([OsStr::new("get"), OsStr::from_bytes(b"/\xff")]).prints("v\n");
        cluster
            .run([OsStr::new("get"), OsStr::from_bytes(b"/\xfe")])
            .fails(3, r"key not found: /\xfe");
    }
}
