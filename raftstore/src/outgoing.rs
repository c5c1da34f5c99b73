//! Snapshots in flight from this replica to others: one at a time to each.
//!
//! raft-rs's `report_snapshot` does not name the snapshot. Without a match by index, a late report
//! of an older stream would count for the newest snapshot. Raft would then send the entries behind
//! that snapshot, be rejected and send another snapshot, for as long as there are writes.
//!
//! A snapshot needs everything in its view of the state from the moment raft gets its description
//! until its stream has ended, even after this replica has ceased to lead.
//! [`crate::RangeStatus::sends_snapshot`] is true for all of that time.

use std::collections::BTreeMap;
use std::sync::Arc;

use rangedb_storage::{Reader, Span};

/// View of the state that a snapshot shows.
pub(crate) struct OutgoingView {
    pub reader: Arc<dyn Reader>,
    /// Stored keys of the range, as of the view.
    pub span: Span,
}

/// Stage of a snapshot, with the index of its last entry.
enum Stage {
    /// Raft has the snapshot's description.
    Taken(u64, OutgoingView),
    Streaming(u64),
}

/// Snapshots by the receiver's replica id.
#[derive(Default)]
pub(crate) struct Outgoing(BTreeMap<u64, Stage>);

impl Outgoing {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes a snapshot whose description raft is about to get. It replaces a snapshot whose stream
    /// has not begun.
    pub fn take(&mut self, to: u64, index: u64, view: OutgoingView) {
        assert!(!self.is_streaming(to), "one stream at a time goes to replica {to}");
        self.0.insert(to, Stage::Taken(index, view));
    }

    pub fn is_streaming(&self, to: u64) -> bool {
        matches!(self.0.get(&to), Some(Stage::Streaming(_)))
    }

    /// Begins a stream. Returns its view, unless raft was given a newer snapshot since.
    pub fn begin(&mut self, to: u64, index: u64) -> Option<OutgoingView> {
        if !matches!(self.0.get(&to), Some(Stage::Taken(taken, _)) if *taken == index) {
            return None;
        }
        match self.0.insert(to, Stage::Streaming(index)) {
            Some(Stage::Taken(_, view)) => Some(view),
            _ => unreachable!("just seen"),
        }
    }

    /// Drops a snapshot whose message has no receiver.
    pub fn give_up(&mut self, to: u64) {
        if let Some(Stage::Taken(..)) = self.0.get(&to) {
            self.0.remove(&to);
        }
    }

    /// Ends a stream. False if no such stream was in flight.
    pub fn end(&mut self, to: u64, index: u64) -> bool {
        let ends = matches!(self.0.get(&to), Some(Stage::Streaming(at)) if *at == index);
        if ends {
            self.0.remove(&to);
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use rangedb_storage::{MemState, StateEngine as _};

    use super::*;

    fn view() -> OutgoingView {
        OutgoingView { reader: MemState::new().snapshot(), span: Span::everything() }
    }

    #[test]
    fn a_snapshot_counts_from_its_view_to_the_end_of_its_stream() {
        let mut outgoing = Outgoing::default();
        outgoing.take(2, 7, view());
        assert!(!outgoing.is_empty() && !outgoing.is_streaming(2));
        assert!(outgoing.begin(2, 6).is_none(), "raft was given a newer one");
        assert!(outgoing.begin(2, 7).is_some() && !outgoing.is_empty());
        assert!(outgoing.is_streaming(2));
        assert!(!outgoing.end(2, 6) && !outgoing.end(3, 7));
        assert!(!outgoing.is_empty());
        assert!(outgoing.end(2, 7) && outgoing.is_empty());
    }

    #[test]
    fn a_view_goes_with_the_message_that_goes_to_nobody_and_a_stream_does_not() {
        let mut outgoing = Outgoing::default();
        outgoing.take(2, 7, view());
        outgoing.give_up(2);
        assert!(outgoing.is_empty());
        outgoing.take(2, 8, view());
        outgoing.begin(2, 8).unwrap();
        outgoing.give_up(2);
        assert!(outgoing.end(2, 8));
    }
}
