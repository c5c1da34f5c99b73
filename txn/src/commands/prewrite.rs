//! First phase of a transaction over ranges: its writes in this range become locks, all or none.
//!
//! A lock stops every other writer of the key, and every reader at or above its min_commit_ts until
//! the transaction is decided. Reads below that were served, or will be, without regard to it: this
//! is why the transaction may not commit lower.
//!
//! In an asynchronous commit the first phase is all: the transaction is committed once its locks
//! stand in every range, at the largest of their min_commit_ts. So these never change, and the
//! primary's lock names the others, for those who have to find out whether all of them stand
//! (`check_secondaries.rs`).

use bytes::Bytes;
use rangedb_proto::v1::{Operation, Prewrite, Prewritten, command_reply, operation};
use rangedb_storage::{ApplyContext, Batch, ColumnFamily, Reader, RecordValue, keys};

use super::bounds::Bounds;
use super::fate::{Fate, Found};
use super::{Stop, conditions, identity};
use crate::check::written_key;
use crate::lock::{Lock, LockKind};
use crate::memory::Memory;
use crate::versions;

/// What stands at a key that the transaction may write.
enum Place {
    Free,
    /// Its own pessimistic lock, which a write takes the place of.
    Reserved(Lock),
    /// Its own write: the command is a copy.
    Written(Lock),
}

/// Evaluates the command against the batch and puts its writes there.
///
/// # Errors
///
/// [`Stop`], and nothing was written; as for all commands.
pub(crate) fn apply(
    context: &ApplyContext<'_>,
    memory: &mut Memory,
    prewrite: &Prewrite,
    batch: &mut Batch<'_>,
) -> Result<command_reply::Body, Stop> {
    Bounds::of(context).check_items(&prewrite.conditions, &prewrite.operations)?;
    let mut places = Vec::new();
    for operation in &prewrite.operations {
        places.push(place(memory, prewrite, operation, batch)?);
    }
    if let Some(min_commit_ts) = promised_to_all(&places) {
        // A copy. What its conditions would find now says nothing of what the first one's found.
        return Ok(reply(prewrite, min_commit_ts));
    }
    conditions::check(batch, &memory.locks, prewrite.start_ts, &prewrite.conditions)?;

    let mut min_commit_ts =
        memory.next_ts(context, prewrite.min_commit_ts.max(prewrite.start_ts + 1))?;
    for place in &places {
        if let Place::Reserved(lock) | Place::Written(lock) = place {
            min_commit_ts = min_commit_ts.max(lock.min_commit_ts);
        }
    }
    #[cfg(feature = "planted")]
    if rangedb_planted::Bug::CommitTsBeforePrewrite.is_planted() {
        min_commit_ts = prewrite.start_ts + 1;
    }
    for (operation, place) in prewrite.operations.iter().zip(&places) {
        write(memory, prewrite, operation, place, min_commit_ts, batch);
    }
    Ok(reply(prewrite, min_commit_ts))
}

fn reply(prewrite: &Prewrite, min_commit_ts: u64) -> command_reply::Body {
    let async_commit = prewrite.async_commit;
    command_reply::Body::Prewritten(Prewritten { min_commit_ts, async_commit })
}

/// What the key's lock says of an asynchronous commit.
fn async_commit(prewrite: &Prewrite, key: &[u8]) -> Option<Vec<Bytes>> {
    let is_primary = prewrite.primary == key;
    let secondaries = || if is_primary { prewrite.secondaries.clone() } else { Vec::new() };
    prewrite.async_commit.then(secondaries)
}

/// The least timestamp to commit at, if every write stands there already.
fn promised_to_all(places: &[Place]) -> Option<u64> {
    let promised = |place: &Place| match place {
        Place::Written(lock) => Some(lock.min_commit_ts),
        Place::Free | Place::Reserved(_) => None,
    };
    places.iter().map(promised).collect::<Option<Vec<u64>>>()?.into_iter().max()
}

fn place(
    memory: &Memory,
    prewrite: &Prewrite,
    operation: &Operation,
    reader: &dyn Reader,
) -> Result<Place, Stop> {
    let key = &key_of(operation)[..];
    let found = Found::at(reader, memory, key, prewrite.start_ts)?;
    match found.fate {
        Fate::Locked(lock) if lock.primary != prewrite.primary => {
            // Who has seen the lock asks the primary that it names, for ever.
            let (key, primary) = (key.escape_ascii(), lock.primary.escape_ascii());
            let reason = format!("the lock at \"{key}\" names another primary, \"{primary}\"");
            return Err(Stop::invalid(reason));
        }
        // Nobody could write there since it was taken.
        Fate::Locked(lock) if lock.is_pessimistic() => return Ok(Place::Reserved(lock)),
        Fate::Locked(lock) if lock.async_commit != async_commit(prewrite, key) => {
            // By now it may be committed by the rules that it was written by.
            let key = key.escape_ascii();
            let reason = format!("the lock at \"{key}\" is committed in another way");
            return Err(Stop::invalid(reason));
        }
        Fate::Locked(lock) => {
            check_copy(reader, operation, &lock)?;
            return Ok(Place::Written(lock));
        }
        Fate::Committed { commit_ts } => return Err(Stop::committed(commit_ts)),
        Fate::RolledBack => return Err(Stop::aborted(key)),
        Fate::Unknown => memory.check_floor(prewrite.start_ts)?,
    }
    if let Some(lock) = found.foreign_lock {
        return Err(Stop::locked(key, &lock));
    }
    match found.current {
        Some(current) if current.mod_ts > prewrite.start_ts.max(prewrite.for_update_ts) => {
            Err(Stop::conflict(versions::conflict(key, &current)))
        }
        _ => Ok(Place::Free),
    }
}

/// A write that stands is never replaced by another of the same start_ts: its transaction may be
/// committed by now.
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
    memory: &mut Memory,
    prewrite: &Prewrite,
    operation: &Operation,
    place: &Place,
    min_commit_ts: u64,
    batch: &mut Batch<'_>,
) {
    if let Place::Written(_) = place {
        return;
    }
    let key = key_of(operation);
    let (value, lease_id) = match &operation.body {
        Some(operation::Body::Put(put)) => {
            let value = RecordValue::of(&put.value);
            if let RecordValue::Reference { .. } = value {
                let position = keys::value(key, prewrite.start_ts);
                batch.put(ColumnFamily::Value, position, put.value.clone());
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
    if let Place::Reserved(reserved) = place {
        lock.alive_until_ms = lock.alive_until_ms.max(reserved.alive_until_ms);
        lock.for_update_ts = lock.for_update_ts.max(reserved.for_update_ts);
        memory.locks.replace(batch, key, &lock);
    } else {
        memory.locks.add(batch, key, &lock);
    }
}

fn key_of(operation: &Operation) -> &Bytes {
    written_key(operation).expect("check_command refuses all but puts and deletes")
}
