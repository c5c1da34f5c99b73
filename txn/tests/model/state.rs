//! The model: every version of every key in a list, and the reply to every command in a map.

use std::collections::BTreeMap;

use bytes::Bytes;
use rangedb_proto::v1::command_reply::Body;
use rangedb_proto::v1::condition::Test;
use rangedb_proto::v1::{
    CollectGarbage, CommandReply, CommitOneRange, Committed, ConditionFailed, KeyValue, Operation,
    OperationResult, TooOld, operation,
};
use rangedb_txn::ReadAt;

pub struct Model {
    start_key: Bytes,
    end_key: Bytes,
    /// From the oldest version to the newest: when it was committed, and what it put, if anything.
    versions: BTreeMap<Bytes, Vec<(u64, Option<KeyValue>)>>,
    last_commit_ts: u64,
    /// Below, reads and new commands are too old.
    pub floor_ts: u64,
    /// Commands that committed below are forgotten.
    collect_below_ts: u64,
    /// What the commands with operations were answered.
    applied: BTreeMap<u64, Committed>,
}

/// What the keys hold while a command runs.
type Values = BTreeMap<Bytes, KeyValue>;

impl Model {
    pub fn new(start_key: &'static [u8], end_key: &'static [u8]) -> Self {
        Model {
            start_key: start_key.into(),
            end_key: end_key.into(),
            versions: BTreeMap::new(),
            last_commit_ts: 0,
            floor_ts: 0,
            collect_below_ts: 0,
            applied: BTreeMap::new(),
        }
    }

    pub fn raise_floor(&mut self, collect: &CollectGarbage) {
        self.floor_ts = self.floor_ts.max(collect.floor_ts);
        self.collect_below_ts = self.collect_below_ts.max(collect.collect_below_ts);
    }

    pub fn check_floor(&self, at: ReadAt) -> Result<(), TooOld> {
        match at {
            ReadAt::Timestamp(ts) if ts.0 < self.floor_ts => {
                Err(TooOld { floor_ts: self.floor_ts })
            }
            _ => Ok(()),
        }
    }

    pub fn get(&self, key: &[u8], at: ReadAt) -> Option<KeyValue> {
        let versions = self.versions.get(key)?;
        let visible = |mod_ts: u64| match at {
            ReadAt::Latest => true,
            ReadAt::Timestamp(ts) => mod_ts <= ts.0,
        };
        versions.iter().rev().find(|(mod_ts, _)| visible(*mod_ts))?.1.clone()
    }

    pub fn scan(&self, start: &[u8], end: &[u8], at: ReadAt) -> Vec<KeyValue> {
        let inside = |key: &[u8]| start <= key && (end.is_empty() || key < end);
        self.versions.keys().filter(|key| inside(key)).filter_map(|key| self.get(key, at)).collect()
    }

    pub fn commit(&mut self, commit: &CommitOneRange, fence: u64) -> CommandReply {
        CommandReply { body: Some(self.evaluate(commit, fence)) }
    }

    fn evaluate(&mut self, commit: &CommitOneRange, fence: u64) -> Body {
        if let Some(reason) = self.refusal(commit) {
            return Body::Invalid(reason);
        }
        let too_old = Body::TooOld(TooOld { floor_ts: self.floor_ts });
        if let Some(committed) = self.applied.get(&commit.start_ts) {
            if committed.commit_ts < self.collect_below_ts {
                return too_old;
            }
            return Body::Committed(Committed { repeated_command: true, ..committed.clone() });
        }
        if commit.start_ts < self.floor_ts {
            return too_old;
        }
        for (index, condition) in (0..).zip(&commit.conditions) {
            let actual = self.get(&condition.key, ReadAt::Latest);
            let (version, mod_ts) =
                actual.as_ref().map_or((0, 0), |actual| (actual.version, actual.mod_ts));
            let holds = match condition.test.as_ref().unwrap() {
                Test::Exists(exists) => actual.is_some() == *exists,
                Test::Version(expected) => version == *expected,
                Test::ModTs(expected) => mod_ts == *expected,
                Test::Value(value) => actual.as_ref().map(|actual| &actual.value) == Some(value),
            };
            if !holds {
                return Body::ConditionFailed(ConditionFailed { index, actual, newest_ts: 0 });
            }
        }
        let commit_ts = commit.start_ts.max(fence + 1).max(self.last_commit_ts + 1);
        self.last_commit_ts = commit_ts;
        let all = self.scan(b"", b"", ReadAt::Latest);
        let mut values: Values = all.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
        let before = values.clone();
        let mut results = Vec::new();
        for operation in &commit.operations {
            let mut result = self.run(operation, &mut values, commit_ts);
            result.previous = result.previous.filter(|_| commit.return_previous);
            results.push(result);
        }
        for key in before.keys().chain(values.keys()) {
            if before.get(key) != values.get(key) {
                let versions = self.versions.entry(key.clone()).or_default();
                if versions.last().is_none_or(|(mod_ts, _)| *mod_ts < commit_ts) {
                    versions.push((commit_ts, values.get(key).cloned()));
                }
            }
        }
        let committed = Committed { commit_ts, results, repeated_command: false };
        if !commit.operations.is_empty() {
            self.applied.insert(commit.start_ts, committed.clone());
        }
        Body::Committed(committed)
    }

    fn run(&self, operation: &Operation, values: &mut Values, commit_ts: u64) -> OperationResult {
        match operation.body.as_ref().unwrap() {
            operation::Body::Put(put) => {
                let previous = values.get(&put.key).cloned();
                let (version, create_ts) = match &previous {
                    None => (1, commit_ts),
                    Some(own) if own.mod_ts == commit_ts => (own.version, own.create_ts),
                    Some(older) => (older.version + 1, older.create_ts),
                };
                let (key, value, lease_id) = (put.key.clone(), put.value.clone(), put.lease_id);
                let kv = KeyValue { key, value, version, create_ts, mod_ts: commit_ts, lease_id };
                values.insert(put.key.clone(), kv);
                OperationResult { deleted: 0, previous }
            }
            operation::Body::Delete(delete) => {
                let previous = values.remove(&delete.key);
                OperationResult { deleted: previous.is_some().into(), previous }
            }
            operation::Body::DeleteRange(span) => {
                let end = if span.end_key.is_empty() { &self.end_key } else { &span.end_key };
                let doomed: Vec<_> = values
                    .keys()
                    .filter(|key| span.start_key <= *key && *key < end)
                    .cloned()
                    .collect();
                doomed.iter().for_each(|key| _ = values.remove(key));
                OperationResult { deleted: doomed.len() as u64, previous: None }
            }
        }
    }

    /// In the order that the machine looks: spans that are none, then keys outside the range.
    fn refusal(&self, commit: &CommitOneRange) -> Option<String> {
        let outside = |key: &Bytes| {
            let inside = self.start_key <= *key && *key < self.end_key;
            (!inside).then(|| format!("key \"{}\" is outside the range", key.escape_ascii()))
        };
        let bodies = || commit.operations.iter().map(|operation| operation.body.as_ref().unwrap());
        let no_span = bodies().any(|body| match body {
            operation::Body::DeleteRange(span) => {
                !span.end_key.is_empty() && span.start_key >= span.end_key
            }
            _ => false,
        });
        if no_span {
            return Some("the start of a delete-range is not below its end".into());
        }
        let condition = commit.conditions.iter().find_map(|condition| outside(&condition.key));
        condition.or_else(|| {
            bodies().find_map(|body| match body {
                operation::Body::Put(put) => outside(&put.key),
                operation::Body::Delete(delete) => outside(&delete.key),
                operation::Body::DeleteRange(span) => outside(&span.start_key).or_else(|| {
                    let leaves = span.end_key > self.end_key;
                    let end = span.end_key.escape_ascii();
                    leaves.then(|| format!("a delete-range to \"{end}\" leaves the range"))
                }),
            })
        })
    }
}
