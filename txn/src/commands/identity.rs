//! Identity of commands: a start_ts names one command, at every key that it writes.
//!
//! A command is known by its start_ts: that is how a copy is told from a new command, where a long
//! value stands, and what everybody who finds a lock asks about. Clients take it from the oracle
//! and use it once. Nothing is built on their doing so: a command that names a start_ts which
//! something at one of its keys has already, and is not that command once more, is refused and
//! writes nothing.
//!
//! Commands are compared by what they write, key by key and value by value. Their conditions and
//! reads are not kept anywhere, so a copy with others counts as a copy: what it would have written
//! is there.
//!
//! Records out of sight at the bound of garbage may be gone, on one replica sooner than on another,
//! and are not looked at. A command that started there is refused for its age, whatever it is.

use std::collections::BTreeMap;

use bytes::Bytes;
use rangedb_proto::v1::{CommitOneRange, Operation, operation};
use rangedb_storage::{ColumnFamily, Reader, Record, RecordValue, Result, keys};

use super::Stop;
use super::changes::{After, Changes};
use crate::limits::first_key;
use crate::memory::Memory;
use crate::versions;

/// Identity of a command, as its keys tell it.
pub(crate) enum Identity {
    /// No key knows its start_ts. Here is what stands at each of them.
    New(BTreeMap<Bytes, Option<Record>>),
    /// Each has a version of it, all of one commit: it is a copy, if its writes are the same.
    WrittenAt(u64),
}

/// Looks at the keys of the command's operations. Of a delete-range that is its first key, where a
/// version is left whatever the span holds.
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

/// Refuses a new command that would write where a transaction of its start_ts ended without a
/// version, or, by a delete-range, where a version of its start_ts stands or stood.
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

/// Refuses what is no copy of the command that was committed then: `changes` are what it would have
/// written then.
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

/// True if the value of a version or a lock of `start_ts` at the key is this one; none is a delete.
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

/// For a command whose start_ts has been used for something else.
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
