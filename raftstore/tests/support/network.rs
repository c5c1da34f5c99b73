//! Network between the nodes: messages in the order of sending, and snapshots apart from them.

use std::collections::VecDeque;
use std::sync::Arc;

use rangedb_proto::v1::RaftEnvelope;
use rangedb_storage::{Reader, Span};

use super::words::Link;

/// Snapshot stream that its sender was asked to begin.
pub struct Stream {
    pub envelope: RaftEnvelope,
    pub index: u64,
    pub reader: Arc<dyn Reader>,
    pub span: Span,
}

#[derive(Default)]
pub struct Network {
    queue: VecDeque<RaftEnvelope>,
    held: VecDeque<RaftEnvelope>,
    cuts: Vec<Link>,
    pub streams: VecDeque<Stream>,
}

/// Returns the nodes that an envelope goes from and to.
pub fn ends(envelope: &RaftEnvelope) -> (u64, u64) {
    (envelope.from.unwrap().node_id, envelope.to.unwrap().node_id)
}

impl Network {
    /// Queues a message. False if it is lost.
    pub fn send(&mut self, envelope: RaftEnvelope) -> bool {
        let (from, to) = ends(&envelope);
        let lost = self.cuts.iter().any(|link| link.holds(from, to));
        if !lost {
            self.queue.push_back(envelope);
        }
        !lost
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn queue(&self) -> impl Iterator<Item = &RaftEnvelope> {
        self.queue.iter()
    }

    /// Takes the messages that are in flight on a link now.
    pub fn take(&mut self, link: Link) -> Vec<RaftEnvelope> {
        let (taken, left): (VecDeque<_>, _) =
            std::mem::take(&mut self.queue).into_iter().partition(|envelope| {
                let (from, to) = ends(envelope);
                link.holds(from, to)
            });
        self.queue = left;
        taken.into()
    }

    pub fn hold(&mut self, link: Link) {
        let held = self.take(link);
        self.held.extend(held);
    }

    pub fn release(&mut self) {
        self.queue.append(&mut self.held);
    }

    pub fn cut(&mut self, link: Link) {
        self.cuts.push(link);
        self.take(link);
    }

    pub fn heal(&mut self) {
        self.cuts.clear();
    }
}
