//! Limits of spans, checked by the leader before it proposes a command.
//!
//! At apply, deleted versions from below collect_below do not count: one replica may have dropped
//! them and another not, and all must reach the same answer. But walking over them takes time. So
//! the leader counts them in its own state, and refuses a command with more than
//! [`COMMAND_WALK_MAX`] records in its spans. Such a span can be walked step by step, or once the
//! records have been dropped.

use bytes::Bytes;
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{self, RangeDescriptor, TooLarge, error::Kind};
use rangedb_storage::{ColumnFamily, Direction, Reader, Result, keys};

use crate::facts::{CommandFacts, Named};
use crate::limits::{COMMAND_WALK_MAX, first_key, span_end};
use crate::walk_budget::WalkBudget;

/// True if the command names spans; its cost depends on the records in them.
pub fn names_spans(command: &dyn CommandFacts) -> bool {
    let mut found = false;
    command.visit_named(&mut |named| {
        found |= matches!(named, Named::Deleted(..) | Named::ReadSpan(..));
    });
    found
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
    command: &dyn CommandFacts,
) -> Result<std::result::Result<(), v1::Error>> {
    let mut budget = WalkBudget::new(COMMAND_WALK_MAX);
    for (start, end) in spans(command, &range.end_key) {
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

/// Spans that the command names, with their ends as bounds in this range.
fn spans(command: &dyn CommandFacts, range_end: &[u8]) -> Vec<(Bytes, Bytes)> {
    let mut spans = Vec::new();
    command.visit_named(&mut |named| {
        let (start, end) = match named {
            Named::Deleted(start, end) => (start, span_end(end, range_end)),
            Named::ReadSpan(start, end) => (start, end),
            Named::Written(_) | Named::Read(_) => return,
        };
        spans.push((Bytes::copy_from_slice(first_key(start)), Bytes::copy_from_slice(end)));
    });
    spans
}

fn too_large() -> v1::Error {
    let (what, limit) = ("records in its spans, of deleted keys too".to_owned(), COMMAND_WALK_MAX);
    let message = format!("{what} are over the limit of {limit} in one command");
    let limit = limit as u64;
    v1::Error::new(Kind::TooLarge(TooLarge { what, limit }), message)
}
