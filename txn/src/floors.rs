//! Floors: how far back a range still answers.
//!
//! - Below the *floor* nothing is read, and no transaction that started there takes a new lock or
//!   commits in one range. What it did before is still known, and a lock that it has still counts.
//! - Below *collect_below*, at or below the floor, nothing is known any more of transactions that
//!   started there; whoever raised it saw to it that no range has a lock of one. A range says
//!   `TooOld` there rather than what it cannot know.
//!
//! Both rise with a command and stand in the range record. A read must look at the floor in the
//! state that it reads, after it has taken it: before, the floor could rise in between, and what the
//! read wants to see be dropped.

use rangedb_proto::v1::{self, TooOld, error::Kind};
use rangedb_storage::{Reader, Result};

use crate::range_record::RangeRecord;
use crate::read::ReadAt;

/// Both of a range's bounds to the past. 0: never set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Floors {
    pub floor_ts: u64,
    pub collect_below_ts: u64,
}

/// Those of the range that begins at `range_start`.
///
/// # Errors
///
/// The engine's alone.
pub fn floors(reader: &dyn Reader, range_start: &[u8]) -> Result<Floors> {
    let RangeRecord { floor_ts, collected_below_ts, .. } = RangeRecord::read(reader, range_start)?;
    Ok(Floors { floor_ts, collect_below_ts: collected_below_ts })
}

/// The floor, if a read is below it. The newest versions are never too old.
pub(crate) fn floor_above(
    reader: &dyn Reader,
    range_start: &[u8],
    at: ReadAt,
) -> Result<Option<u64>> {
    let ReadAt::Timestamp(ts) = at else { return Ok(None) };
    let floor_ts = RangeRecord::read(reader, range_start)?.floor_ts;
    Ok((ts.0 < floor_ts).then_some(floor_ts))
}

/// What a client is told whose read is below the floor.
pub(crate) fn too_old_error(floor_ts: u64) -> v1::Error {
    let message = format!("what was there below the floor {floor_ts} is not kept");
    v1::Error::new(Kind::TooOld(TooOld { floor_ts }), message)
}
