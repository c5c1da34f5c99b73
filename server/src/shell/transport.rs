//! Transport of Raft messages to other nodes. Each node has one stream, kept open, on which the
//! messages of all ranges travel in batches.
//!
//! A driver only puts messages into a queue (`queue.rs`). A task per node (`link.rs`) carries them.
//! Nothing waits for a node that is slow or gone: its queue is bounded, and messages that do not
//! fit are dropped, which Raft makes good. Every batch names cluster, sender and receiver. The
//! receiver refuses batches that are meant for another cluster or node ([`Arrivals`]).

mod link;
mod queue;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use rangedb_proto::RangeId;
use rangedb_proto::v1::{NodeDescriptor, NodeState, RaftEnvelope, RaftMessages};
use rangedb_raftstore::Event;
use tokio::runtime::Handle;
use tonic::Status;
use tonic::metadata::MetadataMap;

use self::queue::Queue;
use crate::control::is_address;
use crate::handle::StoreHandle;
use crate::node::Node;
use crate::shell::logging::Seldom;

/// Identification of this node to other nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identification {
    pub cluster_id: u64,
    pub node_id: u64,
}

/// Addresses of nodes, known once the node runs.
#[derive(Default)]
pub(crate) struct Directory {
    node: OnceLock<Weak<Node>>,
    /// True if another node answered at the address of a node.
    misled: AtomicBool,
    /// Addresses that callers give as theirs, and at which no node is known to be.
    hints: Mutex<BTreeSet<String>>,
}

/// Maximum number of hints that wait to be looked at: more than nodes that move at one moment.
const HINTS_MAX: usize = 64;

/// Metadata key of a stream of Raft messages, for the address of its sender. The address is a hint:
/// the receiver asks which node is there before it believes the address.
pub(crate) const PEER_ADDRESS_KEY: &str = "rangedb-peer-address";

impl Directory {
    pub fn set(&self, node: &Arc<Node>) {
        assert!(self.node.set(Arc::downgrade(node)).is_ok(), "a process is one node");
    }

    /// Records that another node answered than the one that was meant, so that addresses are looked
    /// up.
    pub fn was_misled(&self) {
        self.misled.store(true, Ordering::Relaxed);
    }

    /// True if [`Directory::was_misled`] was called since the last call.
    pub fn take_misled(&self) -> bool {
        self.misled.swap(false, Ordering::Relaxed)
    }

    /// Records the address of a caller. This node may not know yet that the caller is reached
    /// there.
    pub fn hint(&self, address: &str) {
        let Some(this) = self.node.get().and_then(Weak::upgrade) else { return };
        let is_known = this.address_book().iter().any(|node| node.peer_address == address);
        let mut hints = self.hints.lock();
        if !is_known && is_address(address) && hints.len() < HINTS_MAX {
            hints.insert(address.to_owned());
        }
    }

    pub fn has_hints(&self) -> bool {
        !self.hints.lock().is_empty()
    }

    /// Returns the hints since the last call.
    pub fn take_hints(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.hints.lock())
    }

    /// Returns the descriptor of a node. `None` if the node is unknown, or if it was removed and a
    /// newer node has its address now. A removed node without such a successor is still sent
    /// messages: it leads ranges until other nodes have taken them over.
    pub fn find(&self, node_id: u64) -> Option<NodeDescriptor> {
        let this = self.node.get()?.upgrade()?;
        let node = this.address_of(node_id)?;
        let succeeds = |other: &NodeDescriptor| {
            other.peer_address == node.peer_address && other.node_id > node_id
        };
        let is_removed = node.state() == NodeState::NodeRemoved;
        let replaced = is_removed && this.address_book().iter().any(succeeds);
        (!replaced).then_some(node)
    }
}

/// Counts of the transport since the process began.
#[derive(Default)]
pub(crate) struct Counts {
    pub sent: AtomicU64,
    pub received: AtomicU64,
    /// Messages dropped for want of room or of a connection, or because they were for another node.
    pub dropped: AtomicU64,
    pub connects: AtomicU64,
    pub refused: AtomicU64,
}

/// Sending side of the transport.
pub(crate) struct Transport {
    runtime: Handle,
    shared: Arc<Shared>,
    queues: Mutex<BTreeMap<u64, Arc<Queue>>>,
}

/// State that all links share.
pub(crate) struct Shared {
    pub me: Identification,
    /// Address at which others reach this node.
    pub peer_address: String,
    pub directory: Arc<Directory>,
    pub stores: StoreHandle,
    pub counts: Arc<Counts>,
}

impl Transport {
    /// Creates a transport. Its links run on the current tokio runtime.
    pub fn new(shared: Shared) -> Self {
        Transport { runtime: Handle::current(), shared: Arc::new(shared), queues: Mutex::default() }
    }

    /// Queues the message, or drops it. Never blocks.
    pub fn send(&self, envelope: RaftEnvelope) {
        let Some(to) = envelope.to.map(|replica| replica.node_id) else { return };
        if !self.queue(to).push(envelope) {
            self.shared.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn queue(&self, node_id: u64) -> Arc<Queue> {
        let mut queues = self.queues.lock();
        let queue = queues.entry(node_id).or_insert_with(|| {
            let queue = Arc::new(Queue::default());
            self.runtime.spawn(link::run(self.shared.clone(), node_id, queue.clone()));
            queue
        });
        queue.clone()
    }
}

/// Receiving side of the transport.
pub(crate) struct Arrivals {
    me: Identification,
    directory: Arc<Directory>,
    stores: StoreHandle,
    counts: Arc<Counts>,
    /// Rate limit of the log lines about refused senders, which try again and again.
    refused: Seldom,
}

impl Arrivals {
    pub fn new(
        me: Identification,
        directory: Arc<Directory>,
        stores: StoreHandle,
        counts: Arc<Counts>,
    ) -> Self {
        Arrivals { me, directory, stores, counts, refused: Seldom::default() }
    }

    /// Notes the address of a sender that opened a stream.
    pub fn begin(&self, metadata: &MetadataMap) {
        let address = metadata.get(PEER_ADDRESS_KEY).and_then(|value| value.to_str().ok());
        if let Some(address) = address {
            self.directory.hint(address);
        }
    }

    /// Hands a batch to the stores, or returns the reason why its stream must end. Messages for a
    /// store whose mailbox is full are dropped.
    pub fn take(&self, batch: RaftMessages) -> Result<(), Status> {
        let RaftMessages { cluster_id, from_node_id, to_node_id, envelopes } = batch;
        if let Err(reason) = check(self.me, cluster_id, to_node_id) {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            if let Some(left_out) = self.refused.may_write() {
                tracing::warn!(from_node_id, reason, left_out, "refusing raft messages");
            }
            return Err(Status::failed_precondition(reason));
        }
        self.counts.received.fetch_add(envelopes.len() as u64, Ordering::Relaxed);
        for envelope in envelopes {
            let range = RangeId(envelope.range_id);
            let is_mine = envelope.to.is_some_and(|to| to.node_id == self.me.node_id);
            if !is_mine || !self.stores.send(range, Event::Message(envelope)) {
                self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// Refuses a message for another cluster or node, with the reason.
pub(crate) fn check(me: Identification, cluster_id: u64, to_node_id: u64) -> Result<(), String> {
    if cluster_id != me.cluster_id {
        return Err(format!(
            "this node belongs to cluster {:016x}, not to {cluster_id:016x}",
            me.cluster_id
        ));
    }
    if to_node_id != me.node_id {
        return Err(format!("this is node {}, not node {to_node_id}", me.node_id));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_another_cluster_or_node_is_refused() {
        let me = Identification { cluster_id: 7, node_id: 1 };
        assert_eq!(check(me, 7, 1), Ok(()));
        assert!(check(me, 8, 1).unwrap_err().contains("cluster"));
        assert!(check(me, 7, 2).unwrap_err().contains("node 2"));
    }
}
