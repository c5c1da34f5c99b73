//! Model: every version of every key in a list, and the reply to every command in a map.

use std::collections::BTreeMap;

use bytes::Bytes;
use rangedb_proto::Timestamp;
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
    /// Versions of each key, oldest first: the commit timestamp, and the value unless it is a
    /// deletion.
    versions: BTreeMap<Bytes, Vec<(u64, Option<KeyValue>)>>,
    last_commit_ts: u64,
    /// Reads and new commands below this timestamp are too old.
    pub floor_ts: u64,
    /// Commands that committed below this timestamp are forgotten.
    collect_below_ts: u64,
    /// Commands with operations, by start_ts. Several have the same one only if they share no key.
    applied: BTreeMap<u64, Vec<Applied>>,
}

struct Applied {
    committed: Committed,
    /// For each written key, the value left there and the timestamp at which it was superseded.
    writes: BTreeMap<Bytes, (Option<Bytes>, u64)>,
}

/// Stands in place of the machine's message about a start_ts that is used twice.
pub const REUSED: &str = "is that of another command";

/// Values of the keys while a command runs.
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
        let reused = || Body::Invalid(REUSED.into());
        let known = |key: &Bytes| self.written_at(key, commit.start_ts);
        let found: Vec<Option<u64>> =
            commit.operations.iter().map(|op| known(key_of(op))).collect();
        if let Some(commit_ts) = found.iter().flatten().next().copied() {
            if found.iter().any(|found| *found != Some(commit_ts)) {
                return reused();
            }
            if commit_ts < self.collect_below_ts {
                return too_old;
            }
            let at = ReadAt::Timestamp(Timestamp(commit_ts - 1));
            let mut values = self.values(at);
            let (results, writes) = self.run_all(commit, &mut values, commit_ts);
            let all = &self.applied[&commit.start_ts];
            let first =
                all.iter().find(|applied| applied.committed.commit_ts == commit_ts).unwrap();
            let is_copy = writes.iter().all(|(key, value)| {
                first.writes.get(key).is_some_and(|(written, _)| written == value)
            });
            if !is_copy {
                return reused();
            }
            return Body::Committed(Committed { commit_ts, results, repeated_command: true });
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
        let mut values = self.values(ReadAt::Latest);
        let before = values.clone();
        let (results, writes) = self.run_all(commit, &mut values, commit_ts);
        if writes.keys().any(|key| self.written_at(key, commit.start_ts).is_some()) {
            return reused();
        }
        self.last_commit_ts = commit_ts;
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
            for applied in self.applied.values_mut().flatten() {
                let was_committed_at = applied.committed.commit_ts;
                for (key, (value, end_ts)) in &mut applied.writes {
                    if *end_ts == u64::MAX && writes.contains_key(key) {
                        // A spent deletion leaves no trace in the history.
                        let is_spent = value.is_none() && was_committed_at < self.collect_below_ts;
                        *end_ts = if is_spent { 0 } else { commit_ts };
                    }
                }
            }
            let writes = writes.into_iter().map(|(key, value)| (key, (value, u64::MAX))).collect();
            let applied = Applied { committed: committed.clone(), writes };
            self.applied.entry(commit.start_ts).or_default().push(applied);
        }
        Body::Committed(committed)
    }

    /// Returns the commit timestamp of the command of the start_ts at the key, if it is remembered.
    /// It is forgotten once no read from collect_below on sees the value or the deletion that it
    /// wrote.
    fn written_at(&self, key: &Bytes, start_ts: u64) -> Option<u64> {
        self.applied.get(&start_ts)?.iter().find_map(|applied| {
            let (value, end_ts) = applied.writes.get(key)?;
            let commit_ts = applied.committed.commit_ts;
            let is_newest = *end_ts == u64::MAX;
            let is_kept = match value {
                None if is_newest => commit_ts >= self.collect_below_ts,
                _ => *end_ts >= self.collect_below_ts,
            };
            is_kept.then_some(commit_ts)
        })
    }

    fn values(&self, at: ReadAt) -> Values {
        self.scan(b"", b"", at).into_iter().map(|kv| (kv.key.clone(), kv)).collect()
    }

    /// Runs all operations. Returns the results, and the value left at each key that got a version.
    fn run_all(
        &self,
        commit: &CommitOneRange,
        values: &mut Values,
        commit_ts: u64,
    ) -> (Vec<OperationResult>, BTreeMap<Bytes, Option<Bytes>>) {
        let before = values.clone();
        let mut results = Vec::new();
        for operation in &commit.operations {
            let mut result = self.run(operation, values, commit_ts);
            result.previous = result.previous.filter(|_| commit.return_previous);
            results.push(result);
        }
        let changed = before.keys().chain(values.keys());
        let changed = changed.filter(|key| before.get(*key) != values.get(*key));
        // Also keys without anything to delete, and keys that were put and deleted again.
        let named = commit.operations.iter().map(key_of);
        let written = changed.chain(named);
        let value = |key: &Bytes| values.get(key).map(|kv| kv.value.clone());
        (results, written.map(|key| (key.clone(), value(key))).collect())
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

    /// Returns the reason to refuse the command. As in the machine, invalid spans come before keys
    /// outside the range.
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

/// Returns the key at which an operation always leaves a version.
fn key_of(operation: &Operation) -> &Bytes {
    match operation.body.as_ref().unwrap() {
        operation::Body::Put(put) => &put.key,
        operation::Body::Delete(delete) => &delete.key,
        operation::Body::DeleteRange(span) => &span.start_key,
    }
}
