//! First phase of a transaction over ranges: its writes in this range become locks, all or none.
//!
//! A lock stops every other writer of the key. It also stops every reader at or above its
//! min_commit_ts until the transaction is decided. Reads below it are served regardless of the
//! lock, before or after, so the transaction may not commit below it.
//!
//! An asynchronous commit has only this phase: the transaction is committed once its locks stand in
//! every range, at the largest of their min_commit_ts. So these never change. The primary's lock
//! names the other keys, so that a client can check that all of the locks stand
//! (`check_secondaries.rs`).

use bytes::Bytes;
use rangedb_proto::v1::{self, Operation, Prewrite, Prewritten, command_reply, operation};
use rangedb_storage::{Reader, RecordValue};

use super::fate::Fate;
use super::range_check::RangeCheck;
use super::{Evaluate, Stop, conditions, identity};
use crate::check::check_prewrite;
use crate::check::written_key;
use crate::evaluation::Evaluation;
use crate::facts::{
    CommandFacts, Cost, LockChange, Named, NamedTimestamps, Visit, only_deletes, visit_conditions,
    visit_operations, visit_written,
};
use crate::lock::{Lock, LockKind};
use crate::planted::planted;
use crate::versions;

/// State of a key that the transaction may write.
enum KeyState {
    Free,
    /// The transaction's own pessimistic lock, which the write replaces.
    Reserved(Lock),
    /// The transaction's own write: the command is a copy.
    Written(Lock),
}

impl CommandFacts for Prewrite {
    fn name(&self) -> &'static str {
        "prewrite"
    }

    fn check(&self) -> Result<(), v1::Error> {
        check_prewrite(self)
    }

    fn start_ts(&self) -> u64 {
        self.start_ts
    }

    fn timestamps(&self) -> NamedTimestamps {
        let Prewrite {
            start_ts,
            for_update_ts,
            min_commit_ts,
            primary: _,
            conditions: _,
            operations: _,
            // The node that proposes the command bounds it.
            alive_until_ms: _,
            async_commit: _,
            secondaries: _,
        } = self;
        // The transaction commits above what it read.
        NamedTimestamps::handed_out([*start_ts, *for_update_ts, min_commit_ts.saturating_sub(1)])
    }

    fn cost(&self) -> Cost {
        let items = self.conditions.len() + self.operations.len();
        Cost::new(items, only_deletes(&self.operations))
    }

    fn values_in_reply(&self) -> usize {
        // The value that a failed condition met.
        self.conditions.len().min(1)
    }

    fn visit_named<'a>(&'a self, visit: Visit<'_, 'a>) {
        visit(Named::Written(&self.primary));
        visit_written(&self.secondaries, visit);
        visit_operations(&self.operations, visit);
        visit_conditions(&self.conditions, visit);
    }

    fn alive_until_ms(&mut self) -> Option<&mut u64> {
        Some(&mut self.alive_until_ms)
    }

    fn lock_change(&self, reply: &command_reply::Body) -> LockChange<'_> {
        match reply {
            command_reply::Body::Prewritten(_) => {
                let keys = self.operations.iter().filter_map(written_key).collect();
                LockChange::Taken { start_ts: self.start_ts, keys }
            }
            _ => LockChange::None,
        }
    }
}

impl Evaluate for Prewrite {
    fn evaluate(&self, evaluation: &mut Evaluation<'_, '_>) -> Result<command_reply::Body, Stop> {
        RangeCheck::of(evaluation.context).check_items(&self.conditions, &self.operations)?;
        let mut places = Vec::new();
        for operation in &self.operations {
            places.push(place(evaluation, self, operation)?);
        }
        if let Some(min_commit_ts) = promised_to_all(&places) {
            // A copy. Its conditions would be checked against a later state than those of the first
            // one.
            return Ok(reply(self, min_commit_ts));
        }
        let locks = &evaluation.memory().locks;
        conditions::check(evaluation.reader(), locks, self.start_ts, &self.conditions)?;

        let mut min_commit_ts = evaluation.next_ts(self.min_commit_ts.max(self.start_ts + 1))?;
        for place in &places {
            if let KeyState::Reserved(lock) | KeyState::Written(lock) = place {
                min_commit_ts = min_commit_ts.max(lock.min_commit_ts);
            }
        }
        if planted!(CommitTsBeforePrewrite) {
            min_commit_ts = self.start_ts + 1;
        }
        for (operation, place) in self.operations.iter().zip(&places) {
            write(evaluation, self, operation, place, min_commit_ts);
        }
        Ok(reply(self, min_commit_ts))
    }
}

fn reply(prewrite: &Prewrite, min_commit_ts: u64) -> command_reply::Body {
    let async_commit = prewrite.async_commit;
    command_reply::Body::Prewritten(Prewritten { min_commit_ts, async_commit })
}

/// Returns the secondaries to store in the key's lock; `None` unless the commit is asynchronous.
fn async_commit(prewrite: &Prewrite, key: &[u8]) -> Option<Vec<Bytes>> {
    let is_primary = prewrite.primary == key;
    let secondaries = || if is_primary { prewrite.secondaries.clone() } else { Vec::new() };
    prewrite.async_commit.then(secondaries)
}

/// Returns the lowest commit timestamp, if every write stands there already.
fn promised_to_all(places: &[KeyState]) -> Option<u64> {
    let promised = |place: &KeyState| match place {
        KeyState::Written(lock) => Some(lock.min_commit_ts),
        KeyState::Free | KeyState::Reserved(_) => None,
    };
    places.iter().map(promised).collect::<Option<Vec<u64>>>()?.into_iter().max()
}

fn place(
    evaluation: &Evaluation<'_, '_>,
    prewrite: &Prewrite,
    operation: &Operation,
) -> Result<KeyState, Stop> {
    let key = &key_of(operation)[..];
    let found = evaluation.find(key, prewrite.start_ts)?;
    match found.fate {
        Fate::Locked(lock) if lock.primary != prewrite.primary => {
            // A client that has seen the lock keeps asking the primary that it names.
            let (key, primary) = (key.escape_ascii(), lock.primary.escape_ascii());
            let reason = format!("the lock at \"{key}\" names another primary, \"{primary}\"");
            return Err(Stop::invalid(reason));
        }
        // No other transaction could write there since the lock was taken.
        Fate::Locked(lock) if lock.is_pessimistic() => return Ok(KeyState::Reserved(lock)),
        Fate::Locked(lock) if lock.async_commit != async_commit(prewrite, key) => {
            // The transaction may already be committed by the rules of the stored lock.
            let key = key.escape_ascii();
            let reason = format!("the lock at \"{key}\" is committed in another way");
            return Err(Stop::invalid(reason));
        }
        Fate::Locked(lock) => {
            check_copy(evaluation.reader(), operation, &lock)?;
            return Ok(KeyState::Written(lock));
        }
        Fate::Committed { commit_ts } => return Err(Stop::committed(commit_ts)),
        Fate::RolledBack => return Err(Stop::aborted(key)),
        Fate::Unknown => evaluation.memory().check_floor(prewrite.start_ts)?,
    }
    if let Some(lock) = found.foreign_lock {
        return Err(Stop::locked(key, &lock));
    }
    match found.current {
        Some(current) if current.mod_ts > prewrite.start_ts.max(prewrite.for_update_ts) => {
            Err(Stop::conflict(versions::conflict(key, &current)))
        }
        _ => Ok(KeyState::Free),
    }
}

/// Refuses a write that differs from the one in the lock. A write that stands is never replaced by
/// another of the same start_ts, because its transaction may be committed by now.
fn check_copy(reader: &dyn Reader, operation: &Operation, lock: &Lock) -> Result<(), Stop> {
    let key = key_of(operation);
    let put = match &operation.body {
        Some(operation::Body::Put(put)) => Some(&put.value),
        _ => None,
    };
    let is_same = match &lock.kind {
        LockKind::Pessimistic => false,
        LockKind::Write { value, .. } => {
            identity::is_value(reader, key, lock.start_ts, value, put)?
        }
    };
    match is_same {
        true => Ok(()),
        false => Err(identity::reused(key, lock.start_ts)),
    }
}

fn write(
    evaluation: &mut Evaluation<'_, '_>,
    prewrite: &Prewrite,
    operation: &Operation,
    place: &KeyState,
    min_commit_ts: u64,
) {
    if let KeyState::Written(_) = place {
        return;
    }
    let key = key_of(operation);
    let (value, lease_id) = match &operation.body {
        Some(operation::Body::Put(put)) => {
            let value = RecordValue::of(&put.value);
            if let RecordValue::Reference { .. } = value {
                evaluation.put_value(key, prewrite.start_ts, put.value.clone());
            }
            (value, put.lease_id)
        }
        _ => (RecordValue::Deleted, 0),
    };
    let mut lock = Lock {
        start_ts: prewrite.start_ts,
        min_commit_ts,
        alive_until_ms: prewrite.alive_until_ms,
        for_update_ts: prewrite.for_update_ts,
        primary: prewrite.primary.clone(),
        async_commit: async_commit(prewrite, key),
        kind: LockKind::Write { value, lease_id },
    };
    if let KeyState::Reserved(reserved) = place {
        lock.alive_until_ms = lock.alive_until_ms.max(reserved.alive_until_ms);
        lock.for_update_ts = lock.for_update_ts.max(reserved.for_update_ts);
        evaluation.replace_lock(key, &lock);
    } else {
        evaluation.add_lock(key, &lock);
    }
}

fn key_of(operation: &Operation) -> &Bytes {
    written_key(operation).expect("check_command refuses all but puts and deletes")
}
