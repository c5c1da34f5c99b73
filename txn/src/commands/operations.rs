//! Execution of a command's operations.
//!
//! Operations run in order, against the state and the command's own writes so far. Those are kept
//! aside until all operations have run. So a key gets one new version, however often the command
//! writes it: the last write wins, and the version number goes up by one.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use rangedb_proto::v1::{
    CommitOneRange, Delete, DeleteRange, KeyValue, Operation, OperationResult, Put, operation,
};
use rangedb_storage::{Direction, Reader, Record};

use super::Stop;
use super::changes::{After, Change, Changes, Value};
use crate::limits::{
    COMMAND_WALK_MAX, DELETE_RANGE_BYTES_MAX, DELETE_RANGE_KEYS_MAX, PREVIOUS_BYTES_MAX, first_key,
    span_end,
};
use crate::read::ReadAt;
use crate::versions::{self, Walk};
use crate::walk_budget::WalkBudget;

/// One run of a command's operations.
pub(crate) struct Execution<'a> {
    reader: &'a dyn Reader,
    /// State that the operations see: the newest, or, to answer a repeated command, that of the
    /// first time.
    at: ReadAt,
    /// End of a delete-range that names none.
    range_end: &'a [u8],
    /// Deleted versions from below this timestamp count as absent.
    collect_below: u64,
    return_previous: bool,
    changes: Changes,
    delete_ranges: DeleteRanges,
    previous_bytes: usize,
}

impl<'a> Execution<'a> {
    pub(crate) fn new(
        reader: &'a dyn Reader,
        at: ReadAt,
        range_end: &'a [u8],
        commit: &CommitOneRange,
        commit_ts: u64,
        collect_below: u64,
    ) -> Self {
        Execution {
            reader,
            at,
            range_end,
            collect_below,
            return_previous: commit.return_previous,
            changes: Changes { start_ts: commit.start_ts, commit_ts, keys: BTreeMap::new() },
            delete_ranges: DeleteRanges::default(),
            previous_bytes: 0,
        }
    }

    /// Adds the newest versions that are known at some of the keys, so that they are not read once
    /// more.
    pub(crate) fn with_known(mut self, known: BTreeMap<Bytes, Option<Record>>) -> Self {
        let unwritten = |(key, before)| (key, Change { before, after: None });
        self.changes.keys.extend(known.into_iter().map(unwritten));
        self
    }

    /// Runs the operations in order. Returns one result for each.
    pub(crate) fn run(
        &mut self,
        operations: &[Operation],
        budget: &mut WalkBudget,
    ) -> Result<Vec<OperationResult>, Stop> {
        let run_one = |operation: &Operation| match operation
            .body
            .as_ref()
            .expect("check_commit refuses unknown operations")
        {
            operation::Body::Put(put) => self.put(put),
            operation::Body::Delete(delete) => self.delete(delete),
            operation::Body::DeleteRange(span) => self.delete_range(span, budget),
        };
        operations.iter().map(run_one).collect()
    }

    pub(crate) fn into_changes(self) -> Changes {
        self.changes
    }

    fn put(&mut self, put: &Put) -> Result<OperationResult, Stop> {
        let previous = self.previous(&put.key)?;
        let commit_ts = self.changes.commit_ts;
        let change = self.change(&put.key)?;
        let (version, create_ts) = match (&change.after, &change.before) {
            // The command's own write is replaced without counting as a version.
            (Some(After::Put(own)), _) => (own.version, own.create_ts),
            (None, Some(before)) if !before.is_deleted() => (before.version + 1, before.create_ts),
            _ => (1, commit_ts),
        };
        let value = put.value.clone();
        change.after =
            Some(After::Put(Value { value, version, create_ts, lease_id: put.lease_id }));
        Ok(OperationResult { deleted: 0, previous })
    }

    fn delete(&mut self, delete: &Delete) -> Result<OperationResult, Stop> {
        let previous = self.previous(&delete.key)?;
        let change = self.change(&delete.key)?;
        let deleted = u64::from(change.has_value());
        // Also for a key without a value: a repeated command is recognised by this version.
        change.after = Some(After::Deleted);
        Ok(OperationResult { deleted, previous })
    }

    fn delete_range(
        &mut self,
        span: &DeleteRange,
        budget: &mut WalkBudget,
    ) -> Result<OperationResult, Stop> {
        let start = first_key(&span.start_key);
        let end = span_end(&span.end_key, self.range_end);
        let mut deleted = 0;
        let bound = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end) };
        for (_, change) in self.changes.keys.range_mut::<[u8], _>((Bound::Included(start), bound)) {
            if change.has_value() {
                change.after = Some(After::Deleted);
                deleted += 1;
            }
        }
        let mut walk = Walk::new(self.reader, (start, end), Direction::Forward, self.at)?
            .without_spent(self.collect_below);
        while let Some((key, record)) = walk.next()? {
            if !budget.take() {
                return Err(Stop::too_large("records in its spans", COMMAND_WALK_MAX));
            }
            let Some(record) = record else { continue };
            if self.changes.keys.contains_key(&key) {
                continue;
            }
            self.delete_ranges.count_deleted(&key, &record)?;
            deleted += 1;
            let change = Change { before: Some(record), after: Some(After::Deleted) };
            self.changes.keys.insert(key, change);
        }
        // A repeated command is recognised by this version, even if nothing was deleted there.
        self.change(start)?.after.get_or_insert(After::Deleted);
        Ok(OperationResult { deleted, previous: None })
    }

    /// Returns the key's entry among the changes. Reads the state for it if there is none yet.
    fn change(&mut self, key: &[u8]) -> Result<&mut Change, Stop> {
        if !self.changes.keys.contains_key(key) {
            let before = versions::visible(self.reader, key, self.at)?;
            let change = Change { before, after: None };
            self.changes.keys.insert(Bytes::copy_from_slice(key), change);
        }
        Ok(self.changes.keys.get_mut(key).expect("was there or has been inserted"))
    }

    /// Returns the value that the next operation on the key replaces, if the command asks for it.
    fn previous(&mut self, key: &Bytes) -> Result<Option<KeyValue>, Stop> {
        if !self.return_previous {
            return Ok(None);
        }
        let change = self.change(key)?;
        let bytes = change.value_bytes();
        self.previous_bytes += bytes;
        if self.previous_bytes > PREVIOUS_BYTES_MAX {
            return Err(Stop::too_large("bytes of replaced values", PREVIOUS_BYTES_MAX));
        }
        let change = &self.changes.keys[key];
        Ok(match (&change.after, &change.before) {
            (Some(After::Put(own)), _) => Some(own.key_value(key.clone(), self.changes.commit_ts)),
            (None, Some(before)) if !before.is_deleted() => {
                Some(versions::key_value(self.reader, key.clone(), before)?)
            }
            _ => None,
        })
    }
}

/// Share of their limits that the command's delete-ranges have used.
#[derive(Default)]
struct DeleteRanges {
    deleted: usize,
    deleted_bytes: usize,
}

impl DeleteRanges {
    fn count_deleted(&mut self, key: &[u8], record: &Record) -> Result<(), Stop> {
        self.deleted += 1;
        // The key counts twice: for the deleted version and for the superseded one.
        self.deleted_bytes += 2 * key.len() + versions::inline_bytes(record);
        if self.deleted > DELETE_RANGE_KEYS_MAX {
            return Err(Stop::too_large("keys in its delete-ranges", DELETE_RANGE_KEYS_MAX));
        }
        if self.deleted_bytes > DELETE_RANGE_BYTES_MAX {
            let what = "bytes of keys and records in its delete-ranges";
            return Err(Stop::too_large(what, DELETE_RANGE_BYTES_MAX));
        }
        Ok(())
    }
}
