//! The same command twice: applied once, answered twice.
//!
//! A sender that got no answer sends its command again, and both copies may reach the log, the
//! second long after the first. Every version carries the start_ts of the command that wrote it, so
//! the key of a command's first operation tells: some version of it has the command's start_ts, or
//! the command was not applied. This holds because every operation leaves a version there, also a
//! delete of a key without a value.

use rangedb_proto::v1::{CommitOneRange, Committed, Operation, operation};
use rangedb_storage::{ApplyContext, Reader, Result};

use super::fate::committed_at;
use super::{Stop, operations::Execution};
use crate::limits::first_key;
use crate::read::ReadAt;
use crate::versions;
use crate::window::AppliedWindow;

/// The commit timestamp that the command got when it was applied; `None` if it was not. A command
/// without operations changes nothing, so it is never counted as applied.
pub(crate) fn applied_at(
    reader: &dyn Reader,
    applied: &AppliedWindow,
    commit: &CommitOneRange,
) -> Result<Option<u64>> {
    let Some(key) = commit.operations.first().map(identity_key) else { return Ok(None) };
    let current = versions::current(reader, key)?;
    committed_at(reader, applied, key, current.as_ref(), commit.start_ts)
}

/// What the command was answered when it was applied, worked out again from the versions just below
/// its commit timestamp: the operations run as they did then and their writes are dropped.
///
/// Exact as long as those versions are kept, which is until garbage collection has passed the commit
/// timestamp, with one exception: where a delete-range would have to
/// walk over more records today than a command may, all results are empty.
pub(crate) fn answer(
    reader: &dyn Reader,
    context: &ApplyContext<'_>,
    commit: &CommitOneRange,
    commit_ts: u64,
    collect_below: u64,
) -> std::result::Result<Committed, Stop> {
    let before = ReadAt::Timestamp(rangedb_proto::Timestamp(commit_ts - 1));
    let mut execution =
        Execution::new(reader, before, context.end_key, commit, commit_ts, collect_below);
    let results = match execution.run(&commit.operations) {
        Ok(results) => results,
        Err(Stop::Reply(_)) => vec![Default::default(); commit.operations.len()],
        Err(stop) => return Err(stop),
    };
    Ok(Committed { commit_ts, results, repeated_command: true })
}

fn identity_key(operation: &Operation) -> &[u8] {
    match operation.body.as_ref().expect("check_commit refuses operations of unknown kinds") {
        operation::Body::Put(put) => &put.key,
        operation::Body::Delete(delete) => &delete.key,
        operation::Body::DeleteRange(span) => first_key(&span.start_key),
    }
}
