//! Floors of a range: the timestamps below which it no longer answers.
//!
//! - Below the *floor*, nothing is read, and no transaction that started there takes a new lock or
//!   commits in one range. What such a transaction did before is still known, and its locks still
//!   count.
//! - Below *collect_below*, which is at or below the floor, the range no longer knows transactions
//!   that started there. The control plane raises collect_below only once no range has a lock of
//!   such a transaction. If an answer would need their dropped records, the range answers `TooOld`.
//!
//! Both rise with a command and stand in the range record. A read must take its state first, and
//! then check the floor in that state. If it checked before, the floor could rise in between, and
//! versions that the read needs could be dropped.

use rangedb_proto::v1::{self, TooOld, error::Kind};
use rangedb_storage::{Reader, Result};

use crate::range_record::RangeRecord;
use crate::read::ReadAt;

/// A range's floor and collect_below; 0 if never set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Floors {
    pub floor_ts: u64,
    pub collect_below_ts: u64,
}

/// Returns the floors of the range that begins at `range_start`.
///
/// # Errors
///
/// Only errors of the storage engine.
pub fn floors(reader: &dyn Reader, range_start: &[u8]) -> Result<Floors> {
    let RangeRecord { floor_ts, collected_below_ts, .. } = RangeRecord::read(reader, range_start)?;
    Ok(Floors { floor_ts, collect_below_ts: collected_below_ts })
}

/// Returns the floor, if the read is below it. A read of the newest versions is never too old.
pub(crate) fn floor_above(
    reader: &dyn Reader,
    range_start: &[u8],
    at: ReadAt,
) -> Result<Option<u64>> {
    let ReadAt::Timestamp(ts) = at else { return Ok(None) };
    let floor_ts = RangeRecord::read(reader, range_start)?.floor_ts;
    Ok((ts.0 < floor_ts).then_some(floor_ts))
}

/// Returns the error for a read below the floor.
pub(crate) fn too_old_error(floor_ts: u64) -> v1::Error {
    let message = format!("what was there below the floor {floor_ts} is not kept");
    v1::Error::new(Kind::TooOld(TooOld { floor_ts }), message)
}
