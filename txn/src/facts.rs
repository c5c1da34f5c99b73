//! Facts about commands, for those who send, admit, count and queue them.
//!
//! Each kind of command states its facts in its own file under `commands/`. A node only adds policy:
//! it never matches on the kinds. To add a kind:
//!
//! 1. Add its message to `command.proto`.
//! 2. Write its file: evaluation and facts.
//! 3. Add it to the two matches of `commands.rs`, which the compiler demands.

use bytes::Bytes;
use rangedb_proto::Timestamp;
use rangedb_proto::v1::{Condition, Error, Operation, ReadCheck, command_reply, operation};

/// Facts about a command that follow from the command alone.
pub trait CommandFacts {
    /// Name of the kind, in metrics.
    fn name(&self) -> &'static str;

    /// Checks the rules that depend on neither the range nor its state.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, with a message that names the limit or the rule.
    fn check(&self) -> Result<(), Error>;

    /// Start timestamp of the transaction that the command belongs to or asks about. 0 if it belongs
    /// to none.
    fn start_ts(&self) -> u64;

    /// Timestamps that the command names.
    fn timestamps(&self) -> NamedTimestamps;

    /// Upper bound of the cost of its evaluation.
    fn cost(&self) -> Cost;

    /// Number of values that the reply may carry at most.
    fn values_in_reply(&self) -> usize {
        0
    }

    /// Calls `visit` for each key and span that the command names.
    fn visit_named<'a>(&'a self, visit: Visit<'_, 'a>);

    /// True for a command that nodes send, and nobody else.
    fn is_of_nodes(&self) -> bool {
        false
    }

    /// Time until which the command's locks are to live, in milliseconds of the oracle's time, if it
    /// sets one.
    fn alive_until_ms(&mut self) -> Option<&mut u64> {
        None
    }

    /// Change of locks that the reply shows.
    fn lock_change(&self, reply: &command_reply::Body) -> LockChange<'_> {
        let _ = reply;
        LockChange::None
    }
}

/// Timestamps that a command names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamedTimestamps {
    /// The highest of those that the oracle handed out, according to the sender.
    pub handed_out: Timestamp,
    /// Commit timestamp of the transaction, or 0 if the command has none. A range may have counted
    /// it up.
    pub commit_ts: Timestamp,
}

impl NamedTimestamps {
    pub(crate) fn handed_out<const N: usize>(all: [u64; N]) -> Self {
        let highest = all.into_iter().max().unwrap_or_default();
        NamedTimestamps { handed_out: Timestamp(highest), commit_ts: Timestamp::ZERO }
    }

    pub(crate) fn of_commit(start_ts: u64, commit_ts: u64) -> Self {
        NamedTimestamps { handed_out: Timestamp(start_ts), commit_ts: Timestamp(commit_ts) }
    }
}

/// Upper bound of the cost of evaluating one command. Used for admission control and to pack commands
/// into log entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// Records that the command may touch at most: one for each condition, operation, key or read
    /// of a key. A command that names spans adds all records that it may walk over.
    pub records: u32,
    /// True if the command writes no new values: it deletes, ends transactions or drops garbage. On
    /// a full disk, only such commands free space.
    pub frees_space: bool,
}

impl Cost {
    pub(crate) fn new(records: usize, frees_space: bool) -> Self {
        Cost { records: u32::try_from(records).unwrap_or(u32::MAX), frees_space }
    }
}

/// A key or a span that a command names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Named<'a> {
    /// Key that it writes or locks, or names as primary or secondary of a lock.
    Written(&'a [u8]),
    /// Span `[start, end)` that it deletes; an empty end has no end.
    Deleted(&'a [u8], &'a [u8]),
    /// Key that a condition or a read looks at. The command's outcome reveals something of it.
    Read(&'a [u8]),
    /// Span that a read looks at.
    ReadSpan(&'a [u8], &'a [u8]),
}

/// Function that is called for each key and span that a command names.
pub type Visit<'v, 'a> = &'v mut dyn FnMut(Named<'a>);

pub(crate) fn visit_written<'a>(keys: &'a [Bytes], visit: Visit<'_, 'a>) {
    keys.iter().for_each(|key| visit(Named::Written(key)));
}

pub(crate) fn visit_operations<'a>(operations: &'a [Operation], visit: Visit<'_, 'a>) {
    for operation in operations {
        match &operation.body {
            Some(operation::Body::Put(put)) => visit(Named::Written(&put.key)),
            Some(operation::Body::Delete(delete)) => visit(Named::Written(&delete.key)),
            Some(operation::Body::DeleteRange(span)) => {
                visit(Named::Deleted(&span.start_key, &span.end_key));
            }
            None => {}
        }
    }
}

pub(crate) fn visit_conditions<'a>(conditions: &'a [Condition], visit: Visit<'_, 'a>) {
    conditions.iter().for_each(|condition| visit(Named::Read(&condition.key)));
}

pub(crate) fn visit_reads<'a>(reads: &'a [ReadCheck], visit: Visit<'_, 'a>) {
    for read in reads {
        match read.end_key.is_empty() {
            true => visit(Named::Read(&read.start_key)),
            false => visit(Named::ReadSpan(&read.start_key, &read.end_key)),
        }
    }
}

/// True if the operations only delete, and there is one. A command without operations frees no
/// space, so it has no claim to the reserve for commands that do.
pub(crate) fn only_deletes(operations: &[Operation]) -> bool {
    let deletes = |operation: &Operation| match &operation.body {
        Some(operation::Body::Delete(_) | operation::Body::DeleteRange(_)) => true,
        Some(operation::Body::Put(_)) | None => false,
    };
    !operations.is_empty() && operations.iter().all(deletes)
}

/// The newest timestamp at which a transaction read.
pub fn newest_read(reads: &[ReadCheck]) -> u64 {
    reads.iter().map(|read| read.read_ts).max().unwrap_or_default()
}

/// Change of a transaction's locks.
#[derive(PartialEq, Eq, Debug)]
pub enum LockChange<'a> {
    None,
    /// It has no lock at these keys any more.
    Released {
        start_ts: u64,
        keys: &'a [Bytes],
    },
    /// It has no lock any more in a span whose keys nobody listed.
    ReleasedInSpan {
        start_ts: u64,
    },
    /// It holds the locks at these keys.
    Taken {
        start_ts: u64,
        keys: Vec<&'a Bytes>,
    },
}

#[cfg(test)]
mod tests;
