//! Identity of commands: a start_ts names one command, at every key that it writes.
//!
//! The start_ts of a command has three uses: it tells a copy from a new command, a long value
//! stands under it, and clients that find a lock ask about it. Clients take it from the oracle and
//! use it once. Nothing relies on that. If something at one of a command's keys already has its
//! start_ts, and the command is no copy, then the command is refused and writes nothing.
//!
//! Commands are compared by what they write, key by key and value by value. Their conditions and
//! reads are not stored, so a command that differs only in these counts as a copy: what it would
//! have written is there.
//!
//! Records that garbage collection may drop can be gone on one replica sooner than on another, so
//! they are not looked at. A command from below that bound, of which no key has a version any more,
//! is refused for its age.

use std::collections::BTreeMap;

use bytes::Bytes;
use rangedb_proto::v1::{CommitOneRange, Operation, operation};
use rangedb_storage::{ColumnFamily, Reader, Record, RecordValue, Result, keys};

use super::Stop;
use super::changes::{After, Changes};
use crate::limits::first_key;
use crate::memory::Memory;
use crate::versions;

/// Identity of a command, according to its keys.
pub(crate) enum Identity {
    /// No key knows the start_ts. Holds the newest version of each key.
    New(BTreeMap<Bytes, Option<Record>>),
    /// Each key has a version of the start_ts, all of one commit. The command is a copy if its
    /// writes are the same.
    WrittenAt(u64),
}

/// Looks at the keys of the command's operations. For a delete-range that is its first key, which
/// gets a version whatever the span holds.
///
/// # Errors
///
/// [`Stop`] if another command has the start_ts at one of the keys.
pub(crate) fn of_commit(
    reader: &dyn Reader,
    memory: &Memory,
    commit: &CommitOneRange,
) -> std::result::Result<Identity, Stop> {
    let (start_ts, collect_below) = (commit.start_ts, memory.range.collected_below_ts);
    let mut found = BTreeMap::new();
    let mut written_at = None;
    let mut unwritten = None;
    for key in commit.operations.iter().map(key_of) {
        if found.contains_key(key) {
            continue;
        }
        let current = versions::current(reader, key)?;
        match versions::written_at(reader, key, current.as_ref(), start_ts, collect_below)? {
            None => unwritten = Some(key),
            Some(commit_ts) if commit_ts == *written_at.get_or_insert(commit_ts) => {}
            Some(_) => return Err(reused(key, start_ts)),
        }
        found.insert(Bytes::copy_from_slice(key), current);
    }
    match (written_at, unwritten) {
        (None, _) => Ok(Identity::New(found)),
        (Some(commit_ts), None) => Ok(Identity::WrittenAt(commit_ts)),
        (Some(_), Some(key)) => Err(reused(key, start_ts)),
    }
}

/// Refuses a new command whose start_ts is already used where it writes: by a transaction that
/// ended without a version, or, in a delete-range, by a version that stands or stood there.
pub(crate) fn check_unused(
    reader: &dyn Reader,
    memory: &Memory,
    changes: &Changes,
) -> std::result::Result<(), Stop> {
    let (start_ts, collect_below) = (changes.start_ts, memory.range.collected_below_ts);
    for (key, change) in changes.keys.iter().filter(|(_, change)| change.after.is_some()) {
        let before = change.before.as_ref();
        let written_at = versions::written_at(reader, key, before, start_ts, collect_below)?;
        if written_at.is_some() || memory.locks.outcome(reader, key, start_ts)?.is_some() {
            return Err(reused(key, start_ts));
        }
    }
    Ok(())
}

/// Refuses a command that is no copy of the one committed then. `changes` are what the command
/// would have written then.
pub(crate) fn check_copy(reader: &dyn Reader, changes: &Changes) -> std::result::Result<(), Stop> {
    let (start_ts, commit_ts) = (changes.start_ts, changes.commit_ts);
    for (key, change) in &changes.keys {
        let Some(after) = &change.after else { continue };
        let written = versions::committed_at(reader, key, commit_ts)?;
        let written = written.filter(|written| written.start_ts == start_ts);
        let value = match after {
            After::Put(put) => Some(&put.value),
            After::Deleted => None,
        };
        let is_same = match &written {
            None => false,
            Some(written) => is_value(reader, key, start_ts, &written.value, value)?,
        };
        if !is_same {
            return Err(reused(key, start_ts));
        }
    }
    Ok(())
}

/// True if the stored value of a version or a lock of `start_ts` is this one; `None` is a delete.
pub(crate) fn is_value(
    reader: &dyn Reader,
    key: &[u8],
    start_ts: u64,
    stored: &RecordValue,
    value: Option<&Bytes>,
) -> Result<bool> {
    let expected = value.map_or(RecordValue::Deleted, RecordValue::of);
    if *stored != expected {
        return Ok(false);
    }
    match (stored, value) {
        (RecordValue::Reference { .. }, Some(value)) => {
            let apart = reader.get(ColumnFamily::Value, &keys::value(key, start_ts))?;
            Ok(apart.is_some_and(|apart| apart == *value))
        }
        _ => Ok(true),
    }
}

/// Returns the refusal of a command whose start_ts is already used at the key.
pub(crate) fn reused(key: &[u8], start_ts: u64) -> Stop {
    let key = key.escape_ascii();
    Stop::invalid(format!(
        "start_ts {start_ts} is that of another command at key \"{key}\": every command needs a \
         timestamp of its own from the oracle"
    ))
}

fn key_of(operation: &Operation) -> &[u8] {
    match operation.body.as_ref().expect("check_commit refuses operations of unknown kinds") {
        operation::Body::Put(put) => &put.key,
        operation::Body::Delete(delete) => &delete.key,
        operation::Body::DeleteRange(span) => first_key(&span.start_key),
    }
}
