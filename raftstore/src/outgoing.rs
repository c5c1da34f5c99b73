//! Snapshots that a replica has on their way to others: one at a time to each.
//!
//! Raft is told of the end of a stream, not of which one, and would take the end of an older one for
//! that of the newest, send what comes behind that, be refused and send another, for as long as there
//! are writes.
//!
//! From the moment that raft is given a snapshot's description until its stream has ended, somebody
//! holds a view of the state and counts on finding all in it. That lasts through the end of this
//! replica's leadership; who looks at [`crate::RangeStatus::sends_snapshot`] can rely on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rangedb_storage::{Reader, Span};

/// The state that a snapshot shows.
pub(crate) struct OutgoingView {
    pub reader: Arc<dyn Reader>,
    /// Stored keys of the range, as the view has it.
    pub span: Span,
}

/// By the entry it stands at.
enum Stage {
    /// Raft was given its description.
    Taken(u64, OutgoingView),
    Streaming(u64),
}

/// By the replica that they are for.
#[derive(Default)]
pub(crate) struct Outgoing(BTreeMap<u64, Stage>);

impl Outgoing {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Raft is about to be given the description. It takes the place of one whose stream has not
    /// begun.
    pub fn take(&mut self, to: u64, index: u64, view: OutgoingView) {
        assert!(!self.is_streaming(to), "one stream at a time goes to replica {to}");
        self.0.insert(to, Stage::Taken(index, view));
    }

    pub fn is_streaming(&self, to: u64) -> bool {
        matches!(self.0.get(&to), Some(Stage::Streaming(_)))
    }

    /// The view that goes with a snapshot which raft was given, unless it took a newer one since.
    pub fn begin(&mut self, to: u64, index: u64) -> Option<OutgoingView> {
        if !matches!(self.0.get(&to), Some(Stage::Taken(taken, _)) if *taken == index) {
            return None;
        }
        match self.0.insert(to, Stage::Streaming(index)) {
            Some(Stage::Taken(_, view)) => Some(view),
            _ => unreachable!("just seen"),
        }
    }

    /// The message with the description leaves for nobody.
    pub fn give_up(&mut self, to: u64) {
        if let Some(Stage::Taken(..)) = self.0.get(&to) {
            self.0.remove(&to);
        }
    }

    /// False if no such stream was under way.
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
