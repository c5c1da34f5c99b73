//! Check that the transactions explain what is stored in the end.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use bytes::Bytes;
use rangedb_storage::{ColumnFamily, HistoryRecord, Reader, Record as Stored, RecordValue, keys};

use rangedb_txn::locks;

use super::cluster::Cluster;
use super::coordinator::{Read, Record, ReportedOutcome};
use super::plan::Kind;
use crate::support::logged::Logged;

/// Cases that must occur, or the runs prove nothing.
const MET: [&str; 9] = [
    "asynchronous",
    "asynchronous, by others",
    "asynchronous, rolled back by others",
    "one range",
    "two phases",
    "pessimistic",
    "aborted",
    "undetermined, done",
    "versions collected",
];

/// Cases that occurred in a run.
#[derive(Default)]
pub struct Counts(BTreeMap<&'static str, usize>);

impl Counts {
    fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub fn assert_each_at_least(&self, least: usize) {
        for what in MET {
            let times = self.0.get(what).copied().unwrap_or_default();
            assert!(times >= least, "{what}: {times} of {:?}", self.0);
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        for (what, times) in other.0 {
            *self.0.entry(what).or_default() += times;
        }
    }
}

pub struct Version {
    mod_ts: u64,
    start_ts: u64,
    /// The key's version number; 0 for a deletion.
    number: u64,
    value: Option<Bytes>,
}

pub struct History {
    seed: u64,
    /// Versions of each key, oldest first.
    versions: BTreeMap<Bytes, Vec<Version>>,
    records: Vec<Record>,
    /// Number of versions that are not stored any more.
    collected: usize,
}

/// Returns every version that the ranges hold, by key and commit timestamp.
pub fn stored_versions(ranges: &[Logged]) -> BTreeMap<(Bytes, u64), Version> {
    let mut versions = BTreeMap::new();
    for range in ranges {
        for (cf, key, stored) in range.replica.records() {
            let (key, record) = match cf {
                ColumnFamily::Current => {
                    (keys::parse_user_key(&key).unwrap(), Stored::decode(&stored).unwrap())
                }
                ColumnFamily::History => {
                    // Beside a version stands the record that finds it by its start_ts.
                    let Ok((key, _)) = keys::parse_history(&key) else { continue };
                    (key, HistoryRecord::decode(&stored).unwrap().record)
                }
                _ => continue,
            };
            let value = match &record.value {
                RecordValue::Deleted => None,
                RecordValue::Inline(value) => Some(value.clone()),
                RecordValue::Reference { .. } => {
                    let position = keys::value(&key, record.start_ts);
                    range.replica.state.get(ColumnFamily::Value, &position).unwrap()
                }
            };
            let Stored { mod_ts, start_ts, version: number, .. } = record;
            versions.insert((key, mod_ts), Version { mod_ts, start_ts, number, value });
        }
    }
    versions
}

impl History {
    /// Gathers the versions that are stored now, and those from before they were collected.
    pub fn new(seed: u64, mut cluster: Cluster, records: Vec<Record>) -> Self {
        for range in &cluster.ranges {
            let (locks, _) = locks(&range.replica.state, (b"", b""), 0, 0).unwrap();
            assert!(locks.is_empty(), "seed {seed}: {locks:?} were not resolved");
        }
        let mut all = std::mem::take(&mut cluster.archive);
        let archived = all.len();
        let stored = stored_versions(&cluster.ranges);
        let kept = stored.keys().filter(|key| all.contains_key(*key)).count();
        all.extend(stored);
        let mut versions: BTreeMap<Bytes, Vec<Version>> = BTreeMap::new();
        for ((key, _), version) in all {
            versions.entry(key).or_default().push(version);
        }
        History { seed, versions, records, collected: archived - kept }
    }

    pub fn check(&self) -> Counts {
        let mut counts = Counts::default();
        for record in &self.records {
            let commit_ts = self.check_whole(record);
            self.check_reads(record, commit_ts);
            if let Some(commit_ts) = commit_ts {
                self.check_no_lost_update(record, commit_ts);
            }
            match (commit_ts, record.plan.kind, record.told) {
                (Some(_), _, ReportedOutcome::Undetermined) if record.plan.asynchronous => {
                    counts.count("asynchronous, by others");
                }
                (Some(_), ..) if record.plan.asynchronous => counts.count("asynchronous"),
                (None, _, ReportedOutcome::Undetermined) if record.plan.asynchronous => {
                    counts.count("asynchronous, rolled back by others");
                }
                (Some(_), _, ReportedOutcome::Undetermined) => counts.count("undetermined, done"),
                (Some(_), Kind::OneRange, _) => counts.count("one range"),
                (Some(_), Kind::TwoPhase, _) => counts.count("two phases"),
                (Some(_), Kind::Pessimistic, _) => counts.count("pessimistic"),
                (None, ..) => counts.count("aborted"),
            }
        }
        counts.0.insert("versions collected", self.collected);
        self.check_version_numbers();
        counts
    }

    /// Checks that all of a transaction's writes are there, at one timestamp, or none. Returns the
    /// timestamp.
    fn check_whole(&self, record: &Record) -> Option<u64> {
        let Record { start_ts, plan, told, .. } = record;
        let mut committed = Vec::new();
        for (key, list) in &self.versions {
            for version in list.iter().filter(|version| version.start_ts == *start_ts) {
                let written = plan.writes.get(key);
                assert_eq!(written, Some(&version.value), "seed {}: {record:?}", self.seed);
                committed.push(version.mod_ts);
            }
        }
        let commit_ts = committed.first().copied();
        let whole = committed.is_empty() || committed.len() == plan.writes.len();
        let at_once = committed.iter().all(|ts| Some(*ts) == commit_ts);
        assert!(whole && at_once, "seed {}: {committed:?} of {record:?}", self.seed);
        match told {
            ReportedOutcome::Committed(told) => {
                assert_eq!(commit_ts, Some(*told), "seed {}", self.seed)
            }
            ReportedOutcome::Aborted => {
                assert_eq!(commit_ts, None, "seed {}: {record:?}", self.seed)
            }
            ReportedOutcome::Undetermined => {}
        }
        commit_ts
    }

    /// Checks that a read at a timestamp saw what was committed up to it. A serializable
    /// transaction would have read the same just below its commit timestamp. This equals replaying
    /// all of them in that order.
    fn check_reads(&self, record: &Record, commit_ts: Option<u64>) {
        for read in &record.reads {
            let at = |ts: u64| self.rows(read, ts);
            if !read.locked || commit_ts.is_some() {
                assert_eq!(read.rows, at(read.read_ts), "seed {}: {read:?} {record:?}", self.seed);
            }
            if let (Some(commit_ts), true) = (commit_ts, record.plan.serializable) {
                let rows = at(commit_ts - 1);
                assert_eq!(read.rows, rows, "seed {}: {commit_ts} {record:?}", self.seed);
                // No other transaction wrote at the very same timestamp either.
                let alike = self.written_at(read, commit_ts).all(|by| by == record.start_ts);
                assert!(alike, "seed {}: {commit_ts} {record:?}", self.seed);
            }
        }
    }

    /// Checks that the first committer wins. Serializable one-range commits are exempt: they may
    /// write keys that they did not read.
    fn check_no_lost_update(&self, record: &Record, commit_ts: u64) {
        if record.plan.kind == Kind::OneRange && record.plan.serializable {
            return;
        }
        for key in record.plan.writes.keys() {
            for version in &self.versions[key] {
                let between = record.conflicts_from < version.mod_ts && version.mod_ts < commit_ts;
                assert!(!between, "seed {}: {key:?} {commit_ts} {record:?}", self.seed);
            }
        }
    }

    fn check_version_numbers(&self) {
        for (key, list) in &self.versions {
            let mut last = 0;
            for version in list {
                let expected = if version.value.is_some() { last + 1 } else { 0 };
                assert_eq!(version.number, expected, "seed {}: {key:?}", self.seed);
                last = version.number;
            }
            let rising = list.windows(2).all(|pair| pair[0].mod_ts < pair[1].mod_ts);
            assert!(rising, "seed {}: {key:?}", self.seed);
        }
    }

    fn inside<'a>(&'a self, read: &'a Read) -> impl Iterator<Item = (&'a Bytes, &'a Vec<Version>)> {
        self.versions.iter().filter(|(key, _)| match read.end.is_empty() {
            true => read.start == **key,
            false => read.start <= **key && **key < read.end,
        })
    }

    fn rows(&self, read: &Read, ts: u64) -> Vec<(Bytes, Bytes)> {
        let visible = |list: &Vec<Version>| {
            let newest = list.iter().rev().find(|version| version.mod_ts <= ts)?;
            newest.value.clone()
        };
        self.inside(read).filter_map(|(key, list)| Some((key.clone(), visible(list)?))).collect()
    }

    fn written_at<'a>(&'a self, read: &'a Read, ts: u64) -> impl Iterator<Item = u64> + 'a {
        let versions = self.inside(read).flat_map(|(_, list)| list);
        versions.filter(move |version| version.mod_ts == ts).map(|version| version.start_ts)
    }
}
