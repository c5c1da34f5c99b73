//! Part of a range's state that its machine keeps in memory.

use rangedb_proto::Timestamp;
use rangedb_proto::v1::{TooOld, command_reply};
use rangedb_storage::{ApplyContext, Reader, Result};

use crate::commands::Stop;
use crate::lock_table::LockTable;
use crate::range_record::RangeRecord;

#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) range: RangeRecord,
    pub(crate) locks: LockTable,
}

impl Memory {
    /// Loads the memory of the range `[start, end)`; an empty end has no end.
    pub(crate) fn load(state: &dyn Reader, start: &[u8], end: &[u8]) -> Result<Self> {
        let range = RangeRecord::read(state, start)?;
        let locks = LockTable::load(state, start, end)?;
        Ok(Memory { range, locks })
    }

    /// Returns the lowest timestamp, from `least` on, that is above every served read and every
    /// commit of the range.
    pub(crate) fn next_ts(
        &self,
        context: &ApplyContext<'_>,
        least: u64,
    ) -> std::result::Result<u64, Stop> {
        let ts = least
            .max(context.fence.saturating_add(1))
            .max(self.range.last_commit_ts.saturating_add(1));
        if ts > Timestamp::MAX.0 {
            let reason = format!("no timestamp is left above the fence {}", context.fence);
            return Err(Stop::invalid(reason));
        }
        Ok(ts)
    }

    /// Refuses new work of a transaction that reads, or started, below the floor. Callers answer
    /// repeated commands before this check.
    pub(crate) fn check_floor(&self, ts: u64) -> std::result::Result<(), Stop> {
        if ts < self.range.floor_ts { Err(self.too_old()) } else { Ok(()) }
    }

    /// Refuses to answer about a transaction from below collect_below that has left no record here.
    /// Its records may have been dropped, so it may have committed or not.
    pub(crate) fn check_remembered(&self, start_ts: u64) -> std::result::Result<(), Stop> {
        if start_ts < self.range.collected_below_ts { Err(self.too_old()) } else { Ok(()) }
    }

    /// True if a transaction without a lock here can still take one.
    pub(crate) fn may_lock(&self, start_ts: u64) -> bool {
        start_ts >= self.range.floor_ts
    }

    fn too_old(&self) -> Stop {
        let floor_ts = self.range.floor_ts;
        Stop::Reply(command_reply::Body::TooOld(TooOld { floor_ts }))
    }
}
