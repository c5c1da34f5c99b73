//! `rangedb put K V`.

use std::io::{self, BufRead, Read, Write};

use bytes::Bytes;
use clap::Args;
use rangedb_client::Timestamp;
use rangedb_proto::VALUE_BYTES_MAX;
use serde_json::json;

use crate::args::{self, Output};
use crate::failure::Failure;
use crate::json;
use crate::session::Session;

/// Set a key to a value
///
/// Prints OK once the write is committed: durable on a quorum and visible to every read.
#[derive(Debug, Args)]
pub struct Put {
    /// The key: any bytes, 8 KiB at most, not beginning with _/
    #[arg(value_parser = args::bytes())]
    key: Bytes,
    /// The value; `-` reads it from standard input, with every byte that is there
    #[arg(value_parser = args::bytes(), allow_negative_numbers = true)]
    value: Bytes,
}

impl Put {
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        let value = if &self.value[..] == b"-" {
            read_value(&mut *session.streams.input)?
        } else {
            self.value
        };
        let commit_ts = match &session.transaction {
            None => Some(session.client.put(self.key, value).await?.commit_ts),
            Some(transaction) => {
                transaction.put(self.key, value).await?;
                None
            }
        };
        Ok(print(session.streams.out, session.output, commit_ts)?)
    }
}

/// Prints the answer of this command and of `batch put`. Without a commit timestamp, the write
/// waits for the commit of its transaction.
pub fn print(out: &mut dyn Write, output: Output, commit_ts: Option<Timestamp>) -> io::Result<()> {
    match (output, commit_ts) {
        (Output::Table, Some(_)) => writeln!(out, "OK"),
        (Output::Table, None) => writeln!(out, "OK (not committed yet)"),
        (Output::Json, commit_ts) => {
            json::print(out, &json!({ "commit_ts": commit_ts.map(|ts| ts.0) }))
        }
    }
}

/// Reads a value up to the end of the input. Stops one byte above the limit of a value, which is an
/// error.
fn read_value(input: &mut dyn BufRead) -> Result<Bytes, Failure> {
    let mut value = Vec::new();
    input.take(VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut value).map_err(Failure::Input)?;
    if value.len() > VALUE_BYTES_MAX {
        let message = format!("value: standard input has more than {VALUE_BYTES_MAX} bytes");
        return Err(Failure::Usage(message));
    }
    Ok(value.into())
}

#[cfg(test)]
mod tests {
    use crate::testing::Cluster;
    use rangedb_proto::{VALUE_BYTES_MAX, v1};

    #[test]
    fn a_value_is_there_when_ok_is_printed() {
        let cluster = Cluster::new();
        cluster.run(["put", "/a", "x y"]).prints("OK\n");
        assert_eq!(cluster.value("/a").unwrap(), "x y");
        cluster.run(["put", "/a", "-5"]).prints("OK\n");
        assert_eq!(cluster.value("/a").unwrap(), "-5");
        cluster.run(["put", "/a", "--", "--flag"]).prints("OK\n");
        assert_eq!(cluster.value("/a").unwrap(), "--flag");
    }

    #[test]
    fn json_says_when_it_was_committed() {
        let cluster = Cluster::new();
        let ran = cluster.run(["put", "/a", "b", "--output", "json"]);
        let commit_ts = cluster.rows()["/a".as_bytes()].mod_ts;
        ran.prints(&format!("{{\"commit_ts\":{commit_ts}}}\n"));
    }

    #[test]
    fn a_dash_takes_every_byte_of_the_input() {
        let cluster = Cluster::new();
        cluster.run_with_input(["put", "/a", "-"], b"\0\xff\n").prints("OK\n");
        assert_eq!(&cluster.value("/a").unwrap()[..], b"\0\xff\n");
    }

    #[test]
    fn an_input_over_the_limit_is_refused_and_the_limit_named() {
        let cluster = Cluster::new();
        cluster
            .run_with_input(["put", "/a", "-"], &vec![b'x'; VALUE_BYTES_MAX + 1])
            .fails(2, "error: INVALID_ARGUMENT: value: standard input has more than 4194304 bytes");
        assert!(cluster.rows().is_empty());
        cluster.run_with_input(["put", "/a", "-"], &vec![b'x'; VALUE_BYTES_MAX]).prints("OK\n");
    }

    #[test]
    fn keys_that_break_the_rules_are_refused() {
        let cluster = Cluster::new();
        cluster.run(["put", "", "v"]).fails(2, "error: INVALID_ARGUMENT: key: ");
        cluster.run(["put", "_/a", "v"]).fails(1, "error: PERMISSION_DENIED: ");
        cluster.run(["put", &"k".repeat(8193), "v"]).fails(2, "error: INVALID_ARGUMENT: key: ");
        assert!(cluster.rows().is_empty());
    }

    #[test]
    fn a_lost_answer_is_not_reported_as_success_or_failure() {
        let cluster = Cluster::failing(v1::Error::undetermined("gone"));
        cluster.run(["put", "/a", "b", "--timeout", "50ms"]).fails(1, "error: UNDETERMINED: ");
    }

    #[test]
    fn a_cluster_without_a_quorum_is_unavailable() {
        let cluster = Cluster::failing(v1::Error::unavailable("no quorum"));
        cluster
            .run(["put", "/a", "b", "--timeout", "50ms"])
            .fails(1, "error: UNAVAILABLE: no quorum");
    }
}
