//! Garbage collection of a range: raises its floors, and drops the garbage below them.
//!
//! The sender finds out which spans are worth the command, with
//! [`garbage_ahead`](crate::garbage_ahead): a log entry that drops nothing is a waste.

use rangedb_proto::v1::{CollectGarbage, GarbageCollected, command_reply};
use rangedb_storage::{ApplyContext, Batch};

use super::Stop;
use super::bounds::Bounds;
use crate::garbage::{GARBAGE_WALK_MAX, Garbage};
use crate::limits::span_end;
use crate::memory::Memory;
use crate::range_record::RangeRecord;

/// Evaluates the command against the batch and puts its writes there. Neither timestamp is ever
/// lowered. The highest collect_below so far decides what is dropped.
pub(crate) fn apply(
    context: &ApplyContext<'_>,
    memory: &mut Memory,
    collect: &CollectGarbage,
    batch: &mut Batch<'_>,
) -> Result<command_reply::Body, Stop> {
    let start = match &collect.start_key[..] {
        [] => context.start_key,
        start => start,
    };
    let end = span_end(&collect.end_key, context.end_key);
    Bounds::of(context).check_part("collect-garbage", start, end)?;
    let range = RangeRecord {
        floor_ts: memory.range.floor_ts.max(collect.floor_ts),
        collected_below_ts: memory.range.collected_below_ts.max(collect.collect_below_ts),
        ..memory.range
    };
    let found = match collect.collect_below_ts {
        0 => Garbage::default(),
        _ => Garbage::find(&*batch, (start, end), range.collected_below_ts, GARBAGE_WALK_MAX)?,
    };
    if range != memory.range {
        memory.set_range(context, batch, range);
    }
    let dropped = found.stored.len() as u64;
    for (cf, stored_key) in found.stored {
        batch.delete(cf, stored_key);
    }
    Ok(command_reply::Body::GarbageCollected(GarbageCollected {
        floor_ts: range.floor_ts,
        dropped,
        resume_key: found.next.unwrap_or_default(),
    }))
}
