//! `rangedb range START END`: prints rows as they arrive, with at most two pages in memory.

use std::io::{self, Write};
use std::num::NonZeroU64;

use bytes::Bytes;
use clap::Args;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use rangedb_client::{KeyValue, RangeOptions, Result};

use crate::args::{self, Output};
use crate::escape::escape;
use crate::failure::Failure;
use crate::json::{self, Row};
use crate::session::Session;

/// Print keys and values in byte order
///
/// One row a line: the key, a tab, the value. Control characters, backslashes and bytes that are no
/// UTF-8 are shown as \n, \t, \r, \\ or \xNN; `--output json` is exact and has each key's version
/// and timestamps too. Every page shows the newest values at the time it is read.
#[derive(Debug, Args)]
pub struct Range {
    /// The first key; '' is before every key
    #[arg(value_parser = args::bytes())]
    start: Bytes,
    /// End of the range, itself not printed; '' is behind every key
    #[arg(value_parser = args::bytes())]
    end: Bytes,
    /// Rows at most; a note on standard error says when there were more
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroU64>,
    /// From the last key to the first
    #[arg(long)]
    reverse: bool,
    /// Without the values
    #[arg(long)]
    keys_only: bool,
}

impl Range {
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        let mut rows = match &session.transaction {
            None => session.client.range(self.options()).boxed(),
            Some(transaction) => transaction.range(self.options()).boxed(),
        };
        let mut left = self.limit.map_or(u64::MAX, NonZeroU64::get);
        let mut last_key = Bytes::new();
        while let Some(row) = next(&mut rows, session.streams.out).await? {
            let row = row?;
            if left == 0 {
                let key = escape(&last_key);
                let note = format!("(limit reached, more rows may follow after {key})");
                return Ok(session.streams.note(note)?);
            }
            self.print(session.streams.out, session.output, &row)?;
            left -= 1;
            last_key = row.key;
        }
        Ok(())
    }

    /// Options of the scan. The scan asks for one row more than `--limit`, to find out whether more
    /// rows exist.
    pub(super) fn options(&self) -> RangeOptions {
        let mut options = RangeOptions::new(self.start.clone(), self.end.clone());
        if let Some(limit) = self.limit {
            options = options.limit(limit.get().saturating_add(1));
        }
        if self.reverse {
            options = options.reverse();
        }
        if self.keys_only {
            options = options.keys_only();
        }
        options
    }

    fn print(&self, out: &mut dyn Write, output: Output, row: &KeyValue) -> io::Result<()> {
        match output {
            Output::Table if self.keys_only => writeln!(out, "{}", escape(&row.key)),
            Output::Table => writeln!(out, "{}\t{}", escape(&row.key), escape(&row.value)),
            Output::Json => json::print(out, &Row { kv: row, with_value: !self.keys_only }),
        }
    }
}

type Rows = BoxStream<'static, Result<KeyValue>>;

/// Returns the next row. If the row is not there yet, flushes the output before it waits.
async fn next(rows: &mut Rows, out: &mut dyn Write) -> io::Result<Option<Result<KeyValue>>> {
    if let Some(row) = rows.next().now_or_never() {
        return Ok(row);
    }
    out.flush()?;
    Ok(rows.next().await)
}

#[cfg(test)]
mod tests {
    use crate::testing::Cluster;

    fn abc() -> Cluster {
        let cluster = Cluster::new();
        for key in ["/a", "/b", "/c"] {
            cluster.set(key, b"v");
        }
        cluster
    }

    #[test]
    fn rows_are_in_byte_order_and_the_end_is_left_out() {
        let cluster = abc();
        cluster.run(["range", "/a", "/c"]).prints("/a\tv\n/b\tv\n");
        cluster.run(["range", "/b", ""]).prints("/b\tv\n/c\tv\n");
        cluster.run(["range", "", "", "--reverse", "--keys-only"]).prints("/c\n/b\n/a\n");
        cluster.run(["range", "/x", "/z"]).prints("");
    }

    #[test]
    fn a_limit_that_cuts_says_so_and_one_that_does_not_is_silent() {
        let cluster = abc();
        let cut = cluster.run(["range", "/a", "", "--limit", "2"]);
        assert_eq!(cut.out, b"/a\tv\n/b\tv\n");
        assert_eq!(cut.notes, "(limit reached, more rows may follow after /b)\n");
        assert_eq!(cut.code, 0);
        let whole = cluster.run(["range", "/a", "", "--limit", "3", "--keys-only"]);
        whole.prints("/a\n/b\n/c\n");
    }

    #[test]
    fn a_row_is_one_line_whatever_it_holds() {
        let cluster = Cluster::new();
        cluster.set("/a\nb\tc", b"1\n2\xff\\");
        cluster.run(["range", "", ""]).prints("/a\\nb\\tc\t1\\n2\\xff\\\\\n");
    }

    #[test]
    fn json_is_one_object_a_line_and_exact() {
        let cluster = Cluster::new();
        cluster.set("/a", b"\xff");
        cluster.set("/b", b"x\ny");
        let ran = cluster.run(["range", "", "", "--output", "json"]);
        let lines: Vec<serde_json::Value> = ran
            .out
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["value_base64"], "/w==");
        assert_eq!(lines[1]["value"], "x\ny");
    }

    #[test]
    fn every_row_of_many_pages_is_printed_once() {
        let cluster = Cluster::new();
        let keys: Vec<String> = (0..1000).map(|i| format!("/k/{i:04}")).collect();
        for key in &keys {
            cluster.set(key.clone(), b"v");
        }
        cluster.run(["range", "", "", "--keys-only"]).prints(&(keys.join("\n") + "\n"));
    }

    #[test]
    fn system_keys_are_refused() {
        Cluster::new().run(["range", "_/a", "_/b"]).fails(1, "error: PERMISSION_DENIED: ");
    }
}
