//! Pessimistic locks: keys that no other transaction may write until this one ends.
//!
//! The command also returns the newest value of each key that it locks. So the transaction cannot
//! learn at prewrite that another one wrote the key in between. Readers pass such locks, because no
//! write stands under them.

use bytes::Bytes;
use rangedb_proto::v1::{self, AcquireLocks, KeyValue, LocksAcquired, command_reply};
use rangedb_storage::{Reader, Record};

use super::fate::Fate;
use super::range_check::RangeCheck;
use super::{Evaluate, Stop};
use crate::check::check_keys;
use crate::evaluation::Evaluation;
use crate::facts::{CommandFacts, Cost, LockChange, Named, NamedTimestamps, Visit, visit_written};
use crate::limits::{PREVIOUS_BYTES_MAX, check_key, check_timestamp};
use crate::lock::{Lock, LockKind};
use crate::versions;

impl CommandFacts for AcquireLocks {
    fn name(&self) -> &'static str {
        "acquire_locks"
    }

    fn check(&self) -> Result<(), v1::Error> {
        check_key(&self.primary)?;
        check_timestamp("for_update_ts", self.for_update_ts)?;
        check_keys(self.start_ts, &self.keys)
    }

    fn start_ts(&self) -> u64 {
        self.start_ts
    }

    fn timestamps(&self) -> NamedTimestamps {
        // The node that proposes the command bounds `alive_until_ms`.
        let AcquireLocks { start_ts, for_update_ts, primary: _, keys: _, alive_until_ms: _ } = self;
        NamedTimestamps::handed_out([*start_ts, *for_update_ts])
    }

    fn cost(&self) -> Cost {
        Cost::new(self.keys.len(), false)
    }

    fn values_in_reply(&self) -> usize {
        self.keys.len()
    }

    fn visit_named<'a>(&'a self, visit: Visit<'_, 'a>) {
        visit(Named::Written(&self.primary));
        visit_written(&self.keys, visit);
    }

    fn alive_until_ms(&mut self) -> Option<&mut u64> {
        Some(&mut self.alive_until_ms)
    }

    fn lock_change(&self, reply: &command_reply::Body) -> LockChange<'_> {
        match reply {
            command_reply::Body::LocksAcquired(_) => {
                LockChange::Taken { start_ts: self.start_ts, keys: self.keys.iter().collect() }
            }
            _ => LockChange::None,
        }
    }
}

impl Evaluate for AcquireLocks {
    /// Locks all of the keys or none.
    fn evaluate(&self, evaluation: &mut Evaluation<'_, '_>) -> Result<command_reply::Body, Stop> {
        RangeCheck::of(evaluation.context).check_keys(&self.keys)?;
        let mut own_locks = Vec::new();
        let mut current = Vec::new();
        let mut value_bytes = 0;
        for key in &self.keys {
            let (own_lock, record) = check(evaluation, self, key)?;
            own_locks.push(own_lock);
            value_bytes += record.as_ref().map_or(0, versions::value_bytes);
            if value_bytes > PREVIOUS_BYTES_MAX {
                return Err(Stop::too_large("bytes of locked values", PREVIOUS_BYTES_MAX));
            }
            current.push(value(evaluation.reader(), key, record)?);
        }
        // Report the highest for_update_ts already granted. With a lower one, the sender of a late copy
        // would take a version committed in between to be newer than the lock.
        let known = own_locks.iter().flatten().map(|lock| lock.for_update_ts);
        let for_update_ts = known.fold(self.for_update_ts, u64::max);
        for (key, own_lock) in self.keys.iter().zip(own_locks) {
            take(evaluation, self, key, own_lock);
        }
        Ok(command_reply::Body::LocksAcquired(LocksAcquired { current, for_update_ts }))
    }
}

/// Checks that the key can be locked. Returns the transaction's lock, if it has one there, and the
/// newest version.
fn check(
    evaluation: &Evaluation<'_, '_>,
    acquire: &AcquireLocks,
    key: &[u8],
) -> Result<(Option<Lock>, Option<Record>), Stop> {
    let found = evaluation.find(key, acquire.start_ts)?;
    match found.fate {
        Fate::Locked(lock) => return Ok((Some(lock), found.current)),
        Fate::Committed { commit_ts } => return Err(Stop::committed(commit_ts)),
        Fate::RolledBack => return Err(Stop::aborted(key)),
        Fate::Unknown => {
            evaluation.memory().check_floor(acquire.start_ts.min(acquire.for_update_ts))?;
        }
    }
    if let Some(lock) = found.foreign_lock {
        return Err(Stop::locked(key, &lock));
    }
    match &found.current {
        Some(current) if current.mod_ts > acquire.for_update_ts => {
            Err(Stop::conflict(versions::conflict(key, current)))
        }
        _ => Ok((None, found.current)),
    }
}

fn value(reader: &dyn Reader, key: &Bytes, record: Option<Record>) -> Result<KeyValue, Stop> {
    match record {
        Some(record) if !record.is_deleted() => {
            Ok(versions::key_value(reader, key.clone(), &record)?)
        }
        _ => Ok(KeyValue { key: key.clone(), ..Default::default() }),
    }
}

/// Returns the lowest commit timestamp of the transaction: its versions come after those that it
/// saw.
fn commits_above(acquire: &AcquireLocks) -> u64 {
    acquire.start_ts.max(acquire.for_update_ts) + 1
}

fn take(
    evaluation: &mut Evaluation<'_, '_>,
    acquire: &AcquireLocks,
    key: &Bytes,
    own_lock: Option<Lock>,
) {
    match own_lock {
        None => {
            let lock = Lock {
                start_ts: acquire.start_ts,
                min_commit_ts: commits_above(acquire),
                alive_until_ms: acquire.alive_until_ms,
                for_update_ts: acquire.for_update_ts,
                primary: acquire.primary.clone(),
                async_commit: None,
                kind: LockKind::Pessimistic,
            };
            evaluation.add_lock(key, &lock);
        }
        // A copy, or a later request for the same key. The transaction's own write needs no
        // reservation.
        Some(mut lock) if lock.is_pessimistic() => {
            lock.alive_until_ms = lock.alive_until_ms.max(acquire.alive_until_ms);
            lock.for_update_ts = lock.for_update_ts.max(acquire.for_update_ts);
            lock.min_commit_ts = lock.min_commit_ts.max(commits_above(acquire));
            evaluation.replace_lock(key, &lock);
        }
        Some(_) => {}
    }
}
