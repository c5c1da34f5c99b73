//! Versions and locks of the fake cluster: the rules of transactions over ranges and nothing else.
//! There are no ranges and no log, only one map for all.

#![allow(clippy::result_large_err, reason = "errors of the wire are passed around as they are")]

use std::collections::BTreeMap;

use bytes::Bytes;
use rangedb_client::v1::{
    self, KeyLocked, ReadCheck, TransactionStatus, WriteConflict, command, command_reply::Body,
    error::Kind, operation, transaction_status,
};
use rangedb_client::{Error, Timestamp};

use super::ranges::holds;

/// Locks of a span that one command finishes at most.
const RESOLVED_MAX: usize = 400;

#[derive(Default)]
pub struct Store {
    /// Newest committed rows.
    pub rows: BTreeMap<Bytes, v1::KeyValue>,
    versions: BTreeMap<Bytes, Vec<Version>>,
    pub locks: BTreeMap<Bytes, Lock>,
    /// Outcomes at keys where a transaction ended without a version: its commit timestamp; 0:
    /// rolled back.
    outcomes: BTreeMap<(Bytes, u64), u64>,
    /// The highest timestamp of a read.
    pub fence: u64,
    pub last_commit: u64,
}

struct Version {
    commit_ts: u64,
    start_ts: u64,
    row: Option<v1::KeyValue>,
}

#[derive(Clone)]
pub struct Lock {
    pub start_ts: u64,
    pub primary: Bytes,
    pub alive_until_ms: u64,
    min_commit_ts: u64,
    /// None: a pessimistic lock. Otherwise the write: a value, or (inner none) a delete.
    write: Option<Option<Bytes>>,
    /// True for a lock of an asynchronous commit, which cannot be pushed.
    pub is_async: bool,
    secondaries: Vec<Bytes>,
}

impl Lock {
    fn at(&self, key: &Bytes) -> KeyLocked {
        KeyLocked {
            key: key.clone(),
            primary: self.primary.clone(),
            start_ts: self.start_ts,
            alive_until_ms: self.alive_until_ms,
        }
    }

    fn hides(&self, read_ts: u64) -> bool {
        let is_below = self.start_ts <= read_ts && self.min_commit_ts <= read_ts;
        self.write.is_some() && (read_ts == 0 || is_below)
    }
}

impl Store {
    /// Fails with the lock in the way of a read of the key, if there is one.
    pub fn check_read(&self, key: &Bytes, read_ts: u64, passed: &[u64]) -> Result<(), v1::Error> {
        match self.locks.get(key) {
            Some(lock) if lock.hides(read_ts) && !passed.contains(&lock.start_ts) => {
                Err(v1::Error::new(Kind::KeyLocked(lock.at(key)), "locked"))
            }
            _ => Ok(()),
        }
    }

    /// Reads the row at a timestamp; 0: the newest.
    pub fn read(&mut self, key: &Bytes, read_ts: u64) -> Option<v1::KeyValue> {
        self.fence = self.fence.max(read_ts);
        let versions = self.versions.get(key)?;
        let seen = |version: &&Version| read_ts == 0 || version.commit_ts <= read_ts;
        versions.iter().rev().find(seen)?.row.clone()
    }

    /// Keys with a version or a lock for which `inside` is true.
    pub fn keys(&self, inside: impl Fn(&Bytes) -> bool) -> Vec<Bytes> {
        let mut keys: Vec<Bytes> = self.versions.keys().chain(self.locks.keys()).cloned().collect();
        keys.retain(|key| inside(key));
        keys.sort();
        keys.dedup();
        keys
    }

    /// Writes a value, or (none) deletes the key. Returns the previous row.
    pub fn write(
        &mut self,
        key: &Bytes,
        value: Option<Bytes>,
        (start_ts, commit_ts): (u64, u64),
    ) -> Option<v1::KeyValue> {
        self.last_commit = self.last_commit.max(commit_ts);
        let before = self.rows.get(key).cloned();
        let row = value.map(|value| v1::KeyValue {
            key: key.clone(),
            value,
            version: before.as_ref().map_or(0, |kv| kv.version) + 1,
            create_ts: before.as_ref().map_or(commit_ts, |kv| kv.create_ts),
            mod_ts: commit_ts,
            ..Default::default()
        });
        match &row {
            Some(row) => self.rows.insert(key.clone(), row.clone()),
            None => self.rows.remove(key),
        };
        let versions = self.versions.entry(key.clone()).or_default();
        // Of several writes by one command, the last one counts.
        versions.pop_if(|last| last.start_ts == start_ts);
        assert!(versions.last().is_none_or(|last| last.commit_ts < commit_ts), "versions in order");
        versions.push(Version { commit_ts, start_ts, row });
        before
    }

    /// Checks of a one-range commit before its first write.
    pub fn check_commit(&self, commit: &v1::CommitOneRange) -> Result<(), v1::Error> {
        for operation in &commit.operations {
            let inside = |key: &Bytes| match operation.body.as_ref().unwrap() {
                operation::Body::Put(put) => *key == put.key,
                operation::Body::Delete(delete) => *key == delete.key,
                operation::Body::DeleteRange(range) => {
                    *key >= range.start_key && (range.end_key.is_empty() || *key < range.end_key)
                }
            };
            if let Some((key, lock)) = self.locks.iter().find(|(key, _)| inside(key)) {
                return Err(v1::Error::new(Kind::KeyLocked(lock.at(key)), "locked"));
            }
        }
        let all = (commit.start_ts, u64::MAX);
        if let Some(conflict) = self.validate(&commit.reads, all, &[])? {
            return Err(Error::from(conflict).into());
        }
        commit.conditions.iter().try_for_each(|condition| self.check_read(&condition.key, 0, &[]))
    }

    /// Returns another transaction's version in the reads, up to `until`.
    pub fn validate(
        &self,
        reads: &[ReadCheck],
        (start_ts, until): (u64, u64),
        passed: &[u64],
    ) -> Result<Option<WriteConflict>, v1::Error> {
        for read in reads {
            let keys = self.keys(|key| match read.end_key.is_empty() {
                true => *key == read.start_key,
                false => *key >= read.start_key && *key < read.end_key,
            });
            for key in keys {
                let newer = |version: &&Version| {
                    version.commit_ts > read.read_ts
                        && version.commit_ts <= until
                        && version.start_ts != start_ts
                };
                if let Some(newer) = self.versions.get(&key).and_then(|v| v.iter().find(newer)) {
                    return Ok(Some(conflict(&key, newer)));
                }
                self.check_read(&key, until, &[passed, &[start_ts]].concat())?;
            }
        }
        Ok(None)
    }

    pub fn apply(&mut self, command: command::Body, floor_ts: u64) -> Body {
        match command {
            command::Body::Prewrite(prewrite) if prewrite.start_ts < floor_ts => {
                Body::TooOld(v1::TooOld { floor_ts })
            }
            command::Body::Prewrite(prewrite) => self.prewrite(prewrite).unwrap_or_else(|no| no),
            command::Body::CheckSecondaries(check) => self.check_secondaries(&check),
            command::Body::CommitKeys(commit) => self.commit_keys(&commit),
            command::Body::RollbackKeys(v1::RollbackKeys { start_ts, keys }) => {
                for key in &keys {
                    if let Some(commit_ts) = self.committed(key, start_ts) {
                        return committed(commit_ts);
                    }
                }
                keys.iter().for_each(|key| self.roll_back(key, start_ts));
                Body::Resolved(v1::Resolved { keys: keys.len() as u64, ..Default::default() })
            }
            command::Body::CheckTransaction(check) => self.check_transaction(&check),
            command::Body::ResolveLocks(resolve) => self.resolve(&resolve),
            command::Body::HeartbeatLock(beat) => {
                if let Some(lock) = self.locks.get_mut(&beat.primary)
                    && lock.start_ts == beat.start_ts
                {
                    lock.alive_until_ms = lock.alive_until_ms.max(beat.alive_until_ms);
                }
                self.status(&beat.primary, beat.start_ts)
            }
            command::Body::AcquireLocks(acquire) => self.acquire(&acquire).unwrap_or_else(|no| no),
            other => panic!("not by this way: {other:?}"),
        }
    }

    fn resolve(&mut self, resolve: &v1::ResolveLocks) -> Body {
        let mut keys = resolve.keys.clone();
        let mut resume_key = Bytes::new();
        if keys.is_empty() {
            let inside = |key: &Bytes| {
                *key >= resolve.start_key && (resolve.end_key.is_empty() || *key < resolve.end_key)
            };
            let own = self.locks.iter().filter(|(_, lock)| lock.start_ts == resolve.start_ts);
            keys = own.map(|(key, _)| key.clone()).filter(inside).collect();
            if keys.len() > RESOLVED_MAX {
                resume_key = keys[RESOLVED_MAX].clone();
                keys.truncate(RESOLVED_MAX);
            }
        }
        keys.retain(|key| self.own_lock(key, resolve.start_ts).is_some());
        for key in &keys {
            match resolve.commit_ts {
                0 => self.roll_back(key, resolve.start_ts),
                commit_ts => self.commit_lock(key, commit_ts),
            }
        }
        Body::Resolved(v1::Resolved { keys: keys.len() as u64, resume_key })
    }

    fn check_secondaries(&mut self, check: &v1::CheckSecondaries) -> Body {
        let mut status = TransactionStatus::default();
        status.set_state(transaction_status::State::Alive);
        for key in &check.keys {
            if let Some(lock) = self.own_lock(key, check.start_ts).filter(|lock| lock.is_async) {
                status.min_commit_ts = status.min_commit_ts.max(lock.min_commit_ts);
            } else if let Some(commit_ts) = self.committed(key, check.start_ts) {
                status.set_state(transaction_status::State::Committed);
                status.commit_ts = commit_ts;
                break;
            } else {
                self.roll_back(key, check.start_ts);
                status.set_state(transaction_status::State::RolledBack);
                break;
            }
        }
        Body::TransactionStatus(status)
    }

    /// Checks that the transaction may place a lock at the key. Fails if the transaction has ended
    /// there, or if a foreign lock or a newer version is in the way.
    fn place(&self, key: &Bytes, start_ts: u64, seen_ts: u64) -> Result<(), Body> {
        if let Some(commit_ts) = self.committed(key, start_ts) {
            return Err(committed(commit_ts));
        }
        if self.outcomes.contains_key(&(key.clone(), start_ts)) {
            return Err(Body::Aborted(v1::TransactionAborted { key: key.clone() }));
        }
        if let Some(lock) = self.locks.get(key) {
            return Err(Body::Locked(lock.at(key)));
        }
        match self.versions.get(key).and_then(|versions| versions.last()) {
            Some(last) if last.commit_ts > seen_ts => Err(Body::WriteConflict(conflict(key, last))),
            _ => Ok(()),
        }
    }

    fn prewrite(&mut self, prewrite: v1::Prewrite) -> Result<Body, Body> {
        let v1::Prewrite { start_ts, primary, alive_until_ms, for_update_ts, .. } = &prewrite;
        let mut writes = Vec::new();
        for operation in &prewrite.operations {
            let (key, value) = match operation.body.clone().unwrap() {
                operation::Body::Put(put) => (put.key, Some(put.value)),
                operation::Body::Delete(delete) => (delete.key, None),
                operation::Body::DeleteRange(_) => panic!("key by key over ranges"),
            };
            match self.own_lock(&key, *start_ts) {
                Some(lock) => assert_eq!(lock.primary, primary, "one primary for all locks"),
                None => self.place(&key, *start_ts, *start_ts.max(for_update_ts))?,
            }
            writes.push((key, value));
        }
        for (index, condition) in (0..).zip(&prewrite.conditions) {
            if let Some(lock) = self.locks.get(&condition.key)
                && lock.start_ts != *start_ts
                && lock.hides(0)
            {
                return Err(Body::Locked(lock.at(&condition.key)));
            }
            let actual = self.rows.get(&condition.key);
            if !holds(condition, actual) {
                let actual = actual.cloned();
                return Err(Body::ConditionFailed(v1::ConditionFailed {
                    index,
                    actual,
                    ..Default::default()
                }));
            }
        }
        let mut min_commit_ts = start_ts.max(&self.fence).max(&self.last_commit) + 1;
        min_commit_ts = min_commit_ts.max(prewrite.min_commit_ts);
        for (key, _) in &writes {
            let own = self.own_lock(key, *start_ts).map_or(0, |lock| lock.min_commit_ts);
            min_commit_ts = min_commit_ts.max(own);
        }
        for (key, value) in writes {
            let lock = Lock {
                start_ts: *start_ts,
                primary: primary.clone(),
                alive_until_ms: *alive_until_ms,
                min_commit_ts,
                write: Some(value),
                is_async: prewrite.async_commit,
                secondaries: match key == *primary {
                    true => prewrite.secondaries.clone(),
                    false => Vec::new(),
                },
            };
            self.locks.insert(key, lock);
        }
        Ok(Body::Prewritten(v1::Prewritten { min_commit_ts, async_commit: prewrite.async_commit }))
    }

    fn commit_keys(&mut self, commit: &v1::CommitKeys) -> Body {
        for key in &commit.keys {
            match self.own_lock(key, commit.start_ts).map(|lock| lock.min_commit_ts) {
                Some(min_commit_ts) if commit.commit_ts < min_commit_ts => {
                    return Body::CommitTooLow(v1::CommitTooLow { min_commit_ts });
                }
                Some(_) => {}
                None if self.committed(key, commit.start_ts).is_some() => {}
                None => return Body::Aborted(v1::TransactionAborted { key: key.clone() }),
            }
        }
        for key in &commit.keys {
            if self.own_lock(key, commit.start_ts).is_some() {
                self.commit_lock(key, commit.commit_ts);
            }
        }
        committed(commit.commit_ts)
    }

    fn check_transaction(&mut self, check: &v1::CheckTransaction) -> Body {
        let now_ms = Timestamp(check.now_ts).millis();
        let committed = self.committed(&check.primary, check.start_ts).is_some();
        match self.locks.get_mut(&check.primary).filter(|lock| lock.start_ts == check.start_ts) {
            Some(lock) if lock.is_async => {}
            Some(lock) if now_ms <= lock.alive_until_ms => {
                lock.min_commit_ts = lock.min_commit_ts.max(check.push_above_ts + 1);
            }
            None if committed => {}
            None if now_ms <= check.met_alive_until_ms
                && !self.outcomes.contains_key(&(check.primary.clone(), check.start_ts)) =>
            {
                let mut status = TransactionStatus::default();
                status.set_state(transaction_status::State::Alive);
                status.alive_until_ms = check.met_alive_until_ms;
                return Body::TransactionStatus(status);
            }
            _ => self.roll_back(&check.primary, check.start_ts),
        }
        self.status(&check.primary, check.start_ts)
    }

    fn acquire(&mut self, acquire: &v1::AcquireLocks) -> Result<Body, Body> {
        for key in &acquire.keys {
            if self.own_lock(key, acquire.start_ts).is_none() {
                self.place(key, acquire.start_ts, acquire.for_update_ts)?;
            }
        }
        let absent = |key: &Bytes| v1::KeyValue { key: key.clone(), ..Default::default() };
        let mut current = Vec::new();
        for key in &acquire.keys {
            current.push(self.rows.get(key).cloned().unwrap_or_else(|| absent(key)));
            let lock = Lock {
                start_ts: acquire.start_ts,
                primary: acquire.primary.clone(),
                alive_until_ms: acquire.alive_until_ms,
                min_commit_ts: acquire.start_ts + 1,
                write: None,
                is_async: false,
                secondaries: Vec::new(),
            };
            self.locks.entry(key.clone()).or_insert(lock);
        }
        Ok(Body::LocksAcquired(v1::LocksAcquired { current, ..Default::default() }))
    }

    fn own_lock(&self, key: &Bytes, start_ts: u64) -> Option<&Lock> {
        self.locks.get(key).filter(|lock| lock.start_ts == start_ts)
    }

    fn committed(&self, key: &Bytes, start_ts: u64) -> Option<u64> {
        let own = |version: &&Version| version.start_ts == start_ts;
        let version = self.versions.get(key).and_then(|versions| versions.iter().find(own));
        let outcome = self.outcomes.get(&(key.clone(), start_ts)).copied();
        version.map(|version| version.commit_ts).or(outcome.filter(|commit_ts| *commit_ts > 0))
    }

    fn commit_lock(&mut self, key: &Bytes, commit_ts: u64) {
        let lock = self.locks.remove(key).unwrap();
        match lock.write {
            Some(value) => {
                self.write(key, value, (lock.start_ts, commit_ts));
            }
            None if lock.primary == *key => {
                self.outcomes.insert((key.clone(), lock.start_ts), commit_ts);
            }
            None => {}
        }
    }

    fn roll_back(&mut self, key: &Bytes, start_ts: u64) {
        if self.own_lock(key, start_ts).is_some() {
            self.locks.remove(key);
        }
        self.outcomes.insert((key.clone(), start_ts), 0);
    }

    fn status(&self, primary: &Bytes, start_ts: u64) -> Body {
        let mut status = TransactionStatus::default();
        if let Some(lock) = self.own_lock(primary, start_ts) {
            status.set_state(transaction_status::State::Alive);
            status.alive_until_ms = lock.alive_until_ms;
            status.min_commit_ts = lock.min_commit_ts;
            status.async_commit = lock.is_async;
            status.secondaries = lock.secondaries.clone();
        } else if let Some(commit_ts) = self.committed(primary, start_ts) {
            status.set_state(transaction_status::State::Committed);
            status.commit_ts = commit_ts;
        } else {
            status.set_state(transaction_status::State::RolledBack);
        }
        Body::TransactionStatus(status)
    }
}

fn committed(commit_ts: u64) -> Body {
    Body::Committed(v1::Committed { commit_ts, ..Default::default() })
}

fn conflict(key: &Bytes, winner: &Version) -> WriteConflict {
    WriteConflict {
        key: key.clone(),
        winner_start_ts: winner.start_ts,
        winner_commit_ts: winner.commit_ts,
    }
}
