//! What a machine keeps at hand of the state of its range.

use rangedb_proto::Timestamp;
use rangedb_storage::{ApplyContext, Batch, Reader, Result};

use crate::commands::Stop;
use crate::lock_table::LockTable;
use crate::range_record::RangeRecord;
use crate::window::AppliedWindow;

#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) range: RangeRecord,
    pub(crate) applied: AppliedWindow,
    pub(crate) locks: LockTable,
}

impl Memory {
    /// Of the range `[start, end)`; an empty end has no end.
    pub(crate) fn load(state: &dyn Reader, start: &[u8], end: &[u8]) -> Result<Self> {
        let range = RangeRecord::read(state, start)?;
        let applied = AppliedWindow::new(range.last_commit_ts);
        let locks = LockTable::load(state, start, end)?;
        Ok(Memory { range, applied, locks })
    }

    /// The least timestamp, from `least` on, that is above every read that was served and above
    /// every commit of the range.
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

    /// Notes that a transaction committed in the range. Transactions over ranges bring their own
    /// timestamps, which need not be above those of all others.
    pub(crate) fn committed(
        &mut self,
        context: &ApplyContext<'_>,
        batch: &mut Batch<'_>,
        (start_ts, commit_ts): (u64, u64),
    ) {
        let last_commit_ts = self.range.last_commit_ts.max(commit_ts);
        self.range = RangeRecord { last_commit_ts };
        let (cf, key) = RangeRecord::position(context.start_key);
        batch.put(cf, key, self.range.encode());
        self.applied.insert(start_ts);
    }
}
