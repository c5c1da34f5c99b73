//! Compaction bounds: timestamps up to which compaction may drop versions, for each replica.
//!
//! A replica's bound comes from its own applied state: the range record in it says below which
//! timestamp the range collects. The state of leaders and the decisions of the cluster do not
//! count. A replica that lags must still reach the same results from the entries that the others
//! have applied. The engine waits for a flush before it uses a bound, so that a replay after a
//! crash finds what it needs.
//!
//! A read is refused below the floor in its own snapshot of the state. The floor may rise while the
//! read goes on, and compaction also drops records that snapshots show. So the engine is given a
//! bound one look after the bound was first seen. Reads that began before that look have ended by
//! then.
//!
//! A view that is streamed to another replica is read for longer than that. Its receiver also
//! replays the log from the view, under the floor in the view. If compaction dropped a tombstone
//! that the receiver still needs, the receiver would accept a commit that all other replicas
//! reject: divergence. So *the bound in force is below the `collect_below_ts` of every view in
//! flight*, or the stream does not complete:
//!
//! - While the replica sends a snapshot, the engine is given no bound for it. Let B be the bound
//!   given at look n:
//!   1. B was seen at look n-1, and a replica's `collect_below_ts` never sinks.
//!   2. A view taken after look n-1 has a `collect_below_ts` above B. This covers a stream that
//!      began between two looks.
//!   3. The replica's status is taken between any two looks. So the stream of a view taken before
//!      look n-1 is either over at look n or reported there. If it is reported, no bound is given.
//!   4. Bounds given at later looks may pass the view's `collect_below_ts`, but each later look
//!      asks the replica again. A bound seen is used at the next look or never, so none that was
//!      seen before a stream is given after the stream.
//! - A stream may have no replica that reports it: the replica was destroyed and replaced by
//!   another, or its store stands still. So the sender checks the bounds after each chunk that it
//!   has read, and after the last ([`StreamedView::check`]). A compaction uses the bounds in force
//!   when it begins, and the engine remembers the highest. So the records read before a successful
//!   check are complete.

use std::collections::BTreeMap;

use bytes::Bytes;
use rangedb_proto::RangeId;
use rangedb_raftstore::RangeStatus;
use rangedb_storage::{Compaction, Error, Reader, Result, Span, StateEngine, keys};
use rangedb_txn::floors;

use crate::planted::planted;

/// Timestamps below which each replica of this node collected, as of the last look.
#[derive(Default)]
pub struct CompactionBounds(BTreeMap<RangeId, u64>);

impl CompactionBounds {
    /// Gives the engine the bounds that these replicas had at the last look, and looks again.
    /// Replicas that send a snapshot get no bound. Reads have the time between two looks to end.
    /// That must be time in which this process ran, not time in which it stood still.
    ///
    /// # Errors
    ///
    /// Only errors of the storage engine.
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
            // The value is lower than before if the replica was removed and has come back.
            let seen = before.get(&range).map_or(0, |seen| below.min(*seen));
            let held_up = status.sends_snapshot;
            let held_up = held_up && !planted!(CompactionUnderStream);
            if seen > 0 && !held_up {
                // Compaction drops strictly below `collect_below_ts`, and the engine's bound is
                // inclusive.
                state.set_collect_below(&keys::data_span(start, end), seen - 1);
            }
        }
        Ok(())
    }
}

/// A view of a range on its way to another replica.
pub struct StreamedView {
    span: Span,
    /// The `collect_below_ts` in the view.
    below: u64,
}

impl StreamedView {
    /// Creates the view of the range whose data is in the span.
    ///
    /// # Errors
    ///
    /// Errors of the storage engine, and [`Error::Corrupt`] if no range has that span.
    pub fn new(view: &dyn Reader, span: Span) -> Result<Self> {
        let start_key = match &span.start[..] {
            [] => Bytes::new(),
            start => keys::parse_user_key(start)?,
        };
        let below = floors(view, &start_key)?.collect_below_ts;
        Ok(StreamedView { span, below })
    }

    /// Checks that compaction has dropped nothing that the view must show.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if records may be missing from what was read from the view before this
    /// call.
    pub fn check(&self, state: &dyn Compaction) -> Result<()> {
        if planted!(CompactionUnderStream) {
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
