//! Compaction bounds: how far compaction may drop versions out of sight, replica by replica.
//!
//! A replica drops by what it has itself applied: its own record says below what its range collects.
//! What leaders know, or what the cluster decided, is no measure for one that lags and has still to
//! come to the same results over what the others saw. The engine waits for a flush before it uses a
//! bound, so that a replay after a crash finds what it needs.
//!
//! A read is refused below the floor that its snapshot of the state shows, but the floor may rise
//! behind it, and compaction drops what snapshots show, too. So a bound is told to the engine one look
//! later than it is first seen: reads that began before it are over by then.
//!
//! A view that is streamed to another replica is read for as long as that takes, and its receiver does
//! more than read: it replays the log from there, by the floor that the view shows. Were a mark of a
//! deletion dropped above what the view itself collects below, a commit behind the view that everybody
//! else refuses because of the mark would be taken by the receiver. So *the bound in force is below
//! what every view under way collects below*, or the stream does not reach its end:
//!
//! - No bound is told while the replica sends a snapshot. One that is told was seen at the look
//!   before, and what a replica collects below never sinks. A stream that is under way and was not
//!   when the replica was last asked, which it is between any two looks, has a view from after the
//!   look before, which collects below no less. Only bounds told later can pass that, and for those
//!   the replica was asked again. As what was seen counts for one look, nothing seen before a stream
//!   is told after it.
//! - A stream may have no replica any more that is asked for it: that was destroyed, and another came
//!   in its place; or its store may stand still. So the sender compares behind each chunk that it has
//!   read, and behind the last ([`StreamedView::check`]). Compaction takes the bounds in force when it
//!   begins, and the engine keeps the highest, so what was read by then had lost nothing above it.

use std::collections::BTreeMap;

use bytes::Bytes;
use rangedb_proto::RangeId;
use rangedb_raftstore::RangeStatus;
use rangedb_storage::{Compaction, Error, Reader, Result, Span, StateEngine, keys};
use rangedb_txn::floors;

/// What the replicas of this node collected below when they were last looked at.
#[derive(Default)]
pub struct CompactionBounds(BTreeMap<RangeId, u64>);

impl CompactionBounds {
    /// Tells the engine the bounds that these replicas had at the last look, but for those that send a
    /// snapshot, and looks again. The time between two looks is what reads have to end in: time in
    /// which this process ran, not time in which it stood still.
    ///
    /// # Errors
    ///
    /// The engine's alone.
    pub fn raise(
        &mut self,
        state: &(impl StateEngine + Compaction),
        replicas: &[RangeStatus],
    ) -> Result<()> {
        let reader = state.snapshot();
        let before = std::mem::take(&mut self.0);
        for status in replicas.iter().filter(|status| status.applied_index > 0) {
            let range = RangeId(status.descriptor.range_id);
            let (start, end) = (&status.descriptor.start_key, &status.descriptor.end_key);
            let below = floors(&*reader, start)?.collect_below_ts;
            self.0.insert(range, below);
            // Lower than before in a replica that was taken away and has come back.
            let seen = before.get(&range).map_or(0, |seen| below.min(*seen));
            let held_up = status.sends_snapshot;
            #[cfg(feature = "planted")]
            let held_up = held_up && !rangedb_planted::Bug::CompactionUnderStream.is_planted();
            if seen > 0 && !held_up {
                // Strictly below is dropped, and the engine's bound includes itself.
                state.set_collect_below(&keys::data_span(start, end), seen - 1);
            }
        }
        Ok(())
    }
}

/// A view of a range on its way to another replica.
pub struct StreamedView {
    span: Span,
    /// What it collects below itself.
    below: u64,
}

impl StreamedView {
    /// Of the range whose data stands in the span.
    ///
    /// # Errors
    ///
    /// The engine's, and [`Error::Corrupt`] if no range has that span.
    pub fn new(view: &dyn Reader, span: Span) -> Result<Self> {
        let start_key = match &span.start[..] {
            [] => Bytes::new(),
            start => keys::parse_user_key(start)?,
        };
        let below = floors(view, &start_key)?.collect_below_ts;
        Ok(StreamedView { span, below })
    }

    /// # Errors
    ///
    /// [`Error::Refused`] if what was read from the view before this call may have lacked records that
    /// it has to have.
    pub fn check(&self, state: &dyn Compaction) -> Result<()> {
        #[cfg(feature = "planted")]
        if rangedb_planted::Bug::CompactionUnderStream.is_planted() {
            return Ok(());
        }
        match state.collected_up_to(&self.span) {
            // A bound that includes 0 drops nothing.
            0 => Ok(()),
            up_to if up_to < self.below => Ok(()),
            up_to => Err(Error::Refused(format!(
                "compaction has dropped up to {up_to} what a snapshot had to keep from {} on",
                self.below
            ))),
        }
    }
}

#[cfg(all(test, feature = "shell"))]
mod tests;
