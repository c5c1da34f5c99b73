//! The rows of the cluster in memory, with all of their versions.

use std::collections::BTreeMap;

use bytes::Bytes;
use rangedb_proto::Timestamp;
use rangedb_proto::v1::{self, error::Kind, operation};

use super::Refusal;

/// Rows in a page of a scan, few enough that small tests have many pages.
const PAGE_ROWS: usize = 100;

/// Initial time of the oracle.
pub const START_MS: u64 = 60_000;

pub struct Rows {
    /// Versions by timestamp, the oldest first. A version without a row is a delete.
    versions: BTreeMap<Bytes, Vec<(u64, Option<v1::KeyValue>)>>,
    last_ts: u64,
}

impl Default for Rows {
    fn default() -> Self {
        Rows { versions: BTreeMap::new(), last_ts: Timestamp::from_millis(START_MS).0 }
    }
}

impl Rows {
    /// Hands out `count` timestamps and returns the last of them.
    pub fn hand_out(&mut self, count: u32) -> u64 {
        self.last_ts += u64::from(count);
        self.last_ts
    }

    pub fn set(&mut self, key: Bytes, value: Bytes) {
        self.last_ts += 1;
        self.put(key, value);
    }

    fn put(&mut self, key: Bytes, value: Bytes) {
        let mod_ts = self.last_ts;
        let before = self.at(&key, 0);
        let row = v1::KeyValue {
            key: key.clone(),
            value,
            version: before.as_ref().map_or(0, |row| row.version) + 1,
            create_ts: before.map_or(mod_ts, |row| row.create_ts),
            mod_ts,
            lease_id: 0,
        };
        self.versions.entry(key).or_default().push((mod_ts, Some(row)));
    }

    /// Returns the row as of a timestamp; 0 means now.
    pub fn at(&self, key: &Bytes, read_ts: u64) -> Option<v1::KeyValue> {
        let seen = |ts: u64| read_ts == 0 || ts <= read_ts;
        let versions = self.versions.get(key)?;
        versions.iter().rfind(|(ts, _)| seen(*ts)).and_then(|(_, row)| row.clone())
    }

    pub fn newest(&self) -> BTreeMap<Bytes, v1::KeyValue> {
        let row = |key: &Bytes| self.at(key, 0).map(|row| (key.clone(), row));
        self.versions.keys().filter_map(row).collect()
    }

    pub fn commit(&mut self, commit: v1::CommitOneRange) -> Result<v1::Committed, Refusal> {
        assert!(commit.conditions.is_empty(), "no command sets conditions");
        if let Some(conflict) = commit.reads.iter().find_map(|read| self.conflict(read)) {
            return Err(v1::Error::new(Kind::WriteConflict(conflict), "conflict".to_owned()).into());
        }
        self.last_ts += 1;
        let commit_ts = self.last_ts;
        let mut results = Vec::new();
        for operation in commit.operations {
            let mut deleted = 0;
            match operation.body.unwrap() {
                operation::Body::Put(put) => self.put(put.key, put.value),
                operation::Body::Delete(delete) => {
                    deleted = u64::from(self.at(&delete.key, 0).is_some());
                    self.versions.entry(delete.key).or_default().push((commit_ts, None));
                }
                operation::Body::DeleteRange(_) => panic!("no command deletes ranges"),
            }
            results.push(v1::OperationResult { deleted, previous: None });
        }
        Ok(v1::Committed { commit_ts, results, repeated_command: false })
    }

    /// Returns a write after the read's timestamp, if there is one.
    fn conflict(&self, read: &v1::ReadCheck) -> Option<v1::WriteConflict> {
        let inside = |key: &Bytes| match read.end_key.is_empty() {
            true => *key == read.start_key,
            false => *key >= read.start_key && *key < read.end_key,
        };
        let mut written = self.versions.iter().filter(|(key, _)| inside(key));
        written.find_map(|(key, versions)| {
            let (ts, _) = versions.iter().find(|(ts, _)| *ts > read.read_ts)?;
            let (winner_start_ts, winner_commit_ts) = (*ts, *ts);
            Some(v1::WriteConflict { key: key.clone(), winner_start_ts, winner_commit_ts })
        })
    }

    pub fn scan(&self, scan: &v1::Scan) -> v1::ScanReply {
        let inside = |key: &&Bytes| {
            **key >= scan.start_key && (scan.end_key.is_empty() || **key < scan.end_key)
        };
        let keys = self.versions.keys().filter(inside);
        let mut rows: Vec<_> = keys.filter_map(|key| self.at(key, scan.read_ts)).collect();
        if scan.reverse {
            rows.reverse();
        }
        let asked = if scan.limit == 0 { usize::MAX } else { scan.limit as usize };
        let more = rows.len() > PAGE_ROWS.min(asked);
        rows.truncate(PAGE_ROWS.min(asked));
        if scan.keys_only {
            rows.iter_mut().for_each(|row| row.value = Bytes::new());
        }
        let last = rows.last().map(|row| row.key.to_vec()).unwrap_or_default();
        let resume_key = match (more, scan.reverse) {
            (false, _) => Bytes::new(),
            (true, true) => last.into(),
            (true, false) => rangedb_proto::successor(&last).into(),
        };
        v1::ScanReply { kvs: rows, more, resume_key }
    }
}
