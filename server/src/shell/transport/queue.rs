//! Queue of messages for one node: bounded in bytes and number, heartbeats and votes before
//! entries.
//!
//! Only messages with entries are bulk. All others are small. If the heartbeats of a leader waited
//! behind its own entries, its followers would elect another leader. Messages of one kind stay in
//! order.

use std::collections::VecDeque;

use parking_lot::Mutex;
use prost::Message;
use rangedb_proto::v1::{RaftEnvelope, raft_envelope::Body};
use tokio::sync::Notify;

/// Maximum bytes that wait for one node: half a second of a gigabit link. Raft better replaces
/// older messages by new ones.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Maximum number of messages that wait for one node. It bounds the small ones.
const QUEUE_MESSAGES_MAX: usize = 32 * 1024;

/// Bytes after which a batch is closed. With the largest entry added last, a batch is still below
/// the maximum size of a gRPC message.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Maximum number of messages in one batch (docs/architecture.md, D8).
const BATCH_MESSAGES_MAX: usize = 1024;

/// Messages that wait for one node.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<QueuedMessage>,
    filled: Notify,
}

#[derive(Default)]
struct QueuedMessage {
    small: VecDeque<(RaftEnvelope, usize)>,
    bulk: VecDeque<(RaftEnvelope, usize)>,
    bytes: usize,
}

impl Queue {
    /// Adds a message. False if there is no room.
    pub fn push(&self, envelope: RaftEnvelope) -> bool {
        let bytes = envelope.encoded_len();
        let mut waiting = self.waiting.lock();
        if waiting.bytes + bytes > QUEUE_BYTES_MAX || waiting.len() >= QUEUE_MESSAGES_MAX {
            return false;
        }
        waiting.bytes += bytes;
        let bulk = is_bulk(&envelope);
        let queue = if bulk { &mut waiting.bulk } else { &mut waiting.small };
        queue.push_back((envelope, bytes));
        drop(waiting);
        self.filled.notify_one();
        true
    }

    /// Waits until the queue holds a message.
    pub async fn filled(&self) {
        while self.waiting.lock().len() == 0 {
            self.filled.notified().await;
        }
    }

    /// Takes the next messages; none if the queue is empty.
    pub fn take(&self) -> Vec<RaftEnvelope> {
        let mut waiting = self.waiting.lock();
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES_MAX && batch.len() < BATCH_MESSAGES_MAX {
            let waiting = &mut *waiting;
            let next = waiting.small.pop_front().or_else(|| waiting.bulk.pop_front());
            let Some((envelope, length)) = next else { break };
            waiting.bytes -= length;
            bytes += length;
            batch.push(envelope);
        }
        batch
    }

    /// Drops all messages. Returns their number.
    pub fn clear(&self) -> usize {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.len()
    }
}

impl QueuedMessage {
    fn len(&self) -> usize {
        self.small.len() + self.bulk.len()
    }
}

/// True if the message carries entries. A Raft message is opaque except for its first field, the
/// type. Protobuf writes the type first: tag 1 as a varint, then `MsgAppend`, which is 3.
fn is_bulk(envelope: &RaftEnvelope) -> bool {
    matches!(&envelope.body, Some(Body::Message(message)) if message.starts_with(&[0x08, 0x03]))
}

#[cfg(test)]
mod tests {
    use protobuf::Message as _;
    use raft_proto::eraftpb::{Message as RaftMessage, MessageType};

    use super::*;

    fn envelope(range_id: u64, kind: MessageType, bytes: usize) -> RaftEnvelope {
        let mut message = RaftMessage::default();
        message.set_msg_type(kind);
        message.context = vec![7; bytes].into();
        let body = Some(Body::Message(message.write_to_bytes().unwrap().into()));
        RaftEnvelope { range_id, body, ..Default::default() }
    }

    fn ranges(batch: &[RaftEnvelope]) -> Vec<u64> {
        batch.iter().map(|envelope| envelope.range_id).collect()
    }

    #[test]
    fn heartbeats_and_votes_pass_before_entries_and_each_kind_keeps_its_order() {
        let queue = Queue::default();
        for (range, kind) in [
            (1, MessageType::MsgAppend),
            (2, MessageType::MsgHeartbeat),
            (3, MessageType::MsgAppend),
            (4, MessageType::MsgRequestVote),
            (5, MessageType::MsgAppendResponse),
        ] {
            assert!(queue.push(envelope(range, kind, 10)));
        }
        assert_eq!(ranges(&queue.take()), [2, 4, 5, 1, 3]);
        assert!(queue.take().is_empty());
    }

    #[test]
    fn what_does_not_fit_is_refused_until_there_is_room() {
        let queue = Queue::default();
        let large = || envelope(1, MessageType::MsgAppend, QUEUE_BYTES_MAX / 2);
        assert!(queue.push(large()));
        assert!(!queue.push(large()));
        assert_eq!(queue.take().len(), 1);
        assert!(queue.push(large()));
        assert_eq!(queue.clear(), 1);
        assert!(queue.take().is_empty());
    }

    #[test]
    fn a_batch_is_bounded_in_bytes() {
        let queue = Queue::default();
        for range in 0..10 {
            assert!(queue.push(envelope(range, MessageType::MsgAppend, BATCH_BYTES_MAX / 2)));
        }
        assert_eq!(ranges(&queue.take()), [0, 1]);
        assert_eq!(ranges(&queue.take()), [2, 3]);
    }
}
