//! `rangedb admin debug locks PREFIX`: the locks of transactions that are running or abandoned.

use bytes::Bytes;
use clap::{Args, Subcommand};
use futures::{StreamExt, TryStreamExt, pin_mut};
use rangedb_client::Timestamp;
use rangedb_proto::v1::{LockInfo, lock_info::Kind};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::args::{self, Output};
use crate::duration;
use crate::escape::escape;
use crate::failure::Failure;
use crate::json;
use crate::session::Session;
use crate::table;

/// Look at what is usually nobody's business
#[derive(Debug, Subcommand)]
pub enum Debug {
    Locks(LocksCommand),
}

/// List the locks on keys that start with a prefix
///
/// A lock that has expired belongs to a client that is gone; whoever meets it clears it. The
/// primary is the key whose lock decides what becomes of the transaction.
#[derive(Debug, Args)]
pub struct LocksCommand {
    /// Such as /user/; without one, every key
    #[arg(value_parser = args::bytes(), default_value = "")]
    prefix: Bytes,
}

impl Debug {
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        match self {
            Debug::Locks(locks) => locks.run(session).await,
        }
    }
}

const HEAD: [&str; 7] = ["KEY", "KIND", "TRANSACTION", "AGE", "ALIVE", "PRIMARY", "COMMIT"];

impl LocksCommand {
    async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        let now = session.client.timestamp().await?;
        let locks = session.client.admin().locks(&self.prefix);
        pin_mut!(locks);
        match session.output {
            Output::Json => {
                while let Some(lock) = locks.next().await {
                    json::print(session.streams.out, &Row { lock: &lock?, now })?;
                }
                Ok(())
            }
            // Collects all rows first: the widths of the columns depend on every row.
            Output::Table => {
                let cells = |lock: LockInfo| Row { lock: &lock, now }.cells();
                let rows: Vec<_> = locks.map_ok(cells).try_collect().await?;
                Ok(table::print(session.streams.out, HEAD, rows)?)
            }
        }
    }
}

/// A lock, and the oracle's time to compute its age from.
struct Row<'a> {
    lock: &'a LockInfo,
    now: Timestamp,
}

impl Row<'_> {
    fn cells(&self) -> [String; HEAD.len()] {
        let lock = self.lock;
        let alive = match self.alive_ms() {
            left @ 1.. => format!("for {}", duration::rounded(left.unsigned_abs())),
            over => format!("expired {} ago", duration::rounded(over.unsigned_abs())),
        };
        [
            escape(&lock.key),
            self.kind(),
            lock.start_ts.to_string(),
            duration::rounded(self.age_ms()),
            alive,
            escape(&lock.primary),
            self.protocol().to_owned(),
        ]
    }

    fn kind(&self) -> String {
        match Kind::try_from(self.lock.kind) {
            Ok(Kind::Put) => "put".to_owned(),
            Ok(Kind::Delete) => "delete".to_owned(),
            Ok(Kind::Pessimistic) => "for update".to_owned(),
            // A kind that only newer servers know.
            Err(_) => format!("kind {}", self.lock.kind),
        }
    }

    /// Names the commit protocol of the lock's transaction.
    fn protocol(&self) -> &'static str {
        if self.lock.async_commit { "async" } else { "two-phase" }
    }

    /// Returns the age of the lock's transaction.
    fn age_ms(&self) -> u64 {
        self.now.millis().saturating_sub(Timestamp(self.lock.start_ts).millis())
    }

    /// Returns the remaining lifetime of the lock. A negative value is the time since the lock
    /// expired.
    fn alive_ms(&self) -> i64 {
        self.lock.alive_until_ms.cast_signed().saturating_sub(self.now.millis().cast_signed())
    }
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let lock = self.lock;
        let mut map = serializer.serialize_map(None)?;
        json::bytes_entry(&mut map, "key", &lock.key)?;
        map.serialize_entry("kind", &self.kind())?;
        map.serialize_entry("start_ts", &lock.start_ts)?;
        map.serialize_entry("age_ms", &self.age_ms())?;
        map.serialize_entry("alive_ms", &self.alive_ms())?;
        json::bytes_entry(&mut map, "primary", &lock.primary)?;
        map.serialize_entry("async_commit", &lock.async_commit)?;
        map.serialize_entry("for_update_ts", &lock.for_update_ts)?;
        map.serialize_entry("min_commit_ts", &lock.min_commit_ts)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    #[test]
    fn locks_are_listed_with_who_holds_them_and_for_how_long() {
        let cluster = Cluster::new();
        cluster
            .run(["admin", "debug", "locks", "/nothing"])
            .prints("KEY  KIND  TRANSACTION  AGE  ALIVE  PRIMARY  COMMIT\n");
        let ran = cluster.run(["admin", "debug", "locks"]);
        let text = String::from_utf8(ran.out).unwrap();
        let rows: Vec<Vec<&str>> = text
            .lines()
            .skip(1)
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        assert_eq!(rows[0][..2], [r"/held\n", "for update"], "{text}");
        assert!(rows[0][4].starts_with("for "), "{text}");
        assert_eq!(rows[1][..2], ["/left", "put"], "{text}");
        assert!(rows[1][4].starts_with("expired "), "{text}");
        assert_eq!(rows[1][5..], [r"/held\n", "async"], "{text}");
    }

    #[test]
    fn json_has_a_lock_on_each_line() {
        let ran = Cluster::new().run(["admin", "debug", "locks", "/left", "--output", "json"]);
        let text = String::from_utf8(ran.out).unwrap();
        let lock: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&lock["key"], &lock["kind"]), (&"/left".into(), &"put".into()));
        assert_eq!(lock["async_commit"], true);
        assert!(lock["alive_ms"].as_i64().unwrap() < 0, "{text}");
    }

    #[test]
    fn a_lock_is_alive_up_to_its_time() {
        let now = Timestamp::from_millis(1_000);
        let alive = |alive_until_ms| {
            let lock = LockInfo { alive_until_ms, ..LockInfo::default() };
            Row { lock: &lock, now }.cells()[4].clone()
        };
        assert_eq!(alive(1_500), "for 500ms");
        assert_eq!(alive(1_000), "expired 0ms ago");
        assert_eq!(alive(0), "expired 1s ago");
    }
}
