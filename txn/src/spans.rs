//! Limits of spans, checked by the leader before it proposes a command.
//!
//! At apply, deleted versions from below collect_below do not count: one replica may have dropped
//! them and another not, and all must reach the same answer. But walking over them takes time. So
//! the leader counts them in its own state, and refuses a command with more than
//! [`COMMAND_WALK_MAX`] records in its spans. Such a span can be walked step by step, or once the
//! records have been dropped.

use bytes::Bytes;
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{
    self, Command, CommitOneRange, RangeDescriptor, TooLarge, command, error::Kind, operation,
};
use rangedb_storage::{ColumnFamily, Direction, Reader, Result, keys};

use crate::limits::{COMMAND_WALK_MAX, first_key, span_end};
use crate::walk_budget::WalkBudget;

/// True if the command names spans; its cost depends on the records in them.
pub fn names_spans(command: &Command) -> bool {
    match &command.body {
        Some(command::Body::CommitOneRange(commit)) => spans(commit, b"").next().is_some(),
        _ => false,
    }
}

/// Checks the command's spans against [`COMMAND_WALK_MAX`]: counts their records in this range, of
/// whatever kind.
///
/// # Errors
///
/// Only errors of the storage engine. The inner result is the `TooLarge` error for the sender.
pub fn check_spans(
    reader: &dyn Reader,
    range: &RangeDescriptor,
    command: &Command,
) -> Result<std::result::Result<(), v1::Error>> {
    let Some(command::Body::CommitOneRange(commit)) = &command.body else { return Ok(Ok(())) };
    let mut budget = WalkBudget::new(COMMAND_WALK_MAX);
    for (start, end) in spans(commit, &range.end_key) {
        // The command is refused for this span at apply.
        if !range.covers(&start, &end) {
            continue;
        }
        let span = keys::data_span(&start, &end);
        for cf in [ColumnFamily::Current, ColumnFamily::Lock] {
            let mut records = reader.scan(cf, &span.start, &span.end, Direction::Forward)?;
            while records.next()?.is_some() {
                if !budget.take() {
                    return Ok(Err(too_large()));
                }
            }
        }
    }
    Ok(Ok(()))
}

fn spans<'a>(
    commit: &'a CommitOneRange,
    range_end: &'a [u8],
) -> impl Iterator<Item = (Bytes, Bytes)> + 'a {
    let deleted = commit.operations.iter().filter_map(move |operation| match &operation.body {
        Some(operation::Body::DeleteRange(span)) => {
            let end = span_end(&span.end_key, range_end);
            Some((&span.start_key[..], end))
        }
        _ => None,
    });
    let read = commit.reads.iter().filter(|read| !read.end_key.is_empty());
    let read = read.map(|read| (&read.start_key[..], &read.end_key[..]));
    let own = Bytes::copy_from_slice;
    deleted.chain(read).map(move |(start, end)| (own(first_key(start)), own(end)))
}

fn too_large() -> v1::Error {
    let (what, limit) = ("records in its spans, of deleted keys too".to_owned(), COMMAND_WALK_MAX);
    let message = format!("{what} are over the limit of {limit} in one command");
    let limit = limit as u64;
    v1::Error::new(Kind::TooLarge(TooLarge { what, limit }), message)
}
