//! Delivery of envelopes from other nodes: to the replica that they name, or to a new one. A sender
//! that missed its own removal gets an answer.

use prost::Message as _;
use raft::eraftpb::{Message, MessageType};
use rangedb_proto::v1::{RaftEnvelope, Replica, Tombstone, raft_envelope::Body};
use rangedb_proto::{RangeId, ReplicaId};
use rangedb_storage::{ColumnFamily, Error as StorageError, Result, StagedSnapshot, keys};

use super::Store;
use crate::apply::{ApplyTask, ReplicaRef};
use crate::pass::Pass;
use crate::peer::{Peer, SenderState};
use crate::{Io, eraft};

/// Most replicas without state that a store keeps for leaders that addressed them. Far more than a
/// node is given at once. A replica beyond that is created when its leader sends again.
const UNINITIALIZED_MAX: usize = 4096;

impl Store {
    pub(super) fn on_envelope(&mut self, envelope: RaftEnvelope, pass: &mut Pass) -> Result<()> {
        self.counters.messages_received += 1;
        let range = RangeId(envelope.range_id);
        let said = SenderState::of(&envelope);
        let (Some(from), Some(to), Some(body)) = (envelope.from, envelope.to, envelope.body) else {
            return Ok(());
        };
        match body {
            Body::Message(bytes) => {
                let Some(message) = decode_for(&bytes, from, to) else { return Ok(()) };
                let creates = matches!(
                    message.get_msg_type(),
                    MessageType::MsgAppend | MessageType::MsgHeartbeat
                );
                if let Some(peer) = self.receiver(range, from, to, creates, pass)? {
                    peer.on_message(from, said, message, pass);
                }
            }
            Body::Removed(descriptor) => {
                let peer = self.peers.get_mut(&range);
                if let Some(peer) = peer.filter(|peer| peer.is_removed_by(&descriptor)) {
                    peer.on_removal_claimed();
                }
            }
            Body::Check(check) => {
                if let Some(peer) = self.peers.get_mut(&range) {
                    peer.on_check(from, check.forwarded, pass);
                }
            }
        }
        Ok(())
    }

    pub(super) fn on_snapshot_received(
        &mut self,
        envelope: RaftEnvelope,
        staged: StagedSnapshot,
        pass: &mut Pass,
    ) -> Result<()> {
        self.counters.snapshots_received += 1;
        let range = RangeId(envelope.range_id);
        let said = SenderState::of(&envelope);
        let to_replica = envelope.to.map_or(0, |to| to.replica_id);
        if let (Some(from), Some(to), Some(Body::Message(bytes))) =
            (envelope.from, envelope.to, envelope.body)
            && let Some(message) = decode_for(&bytes, from, to)
            && message.get_msg_type() == MessageType::MsgSnapshot
            && let Some(peer) = self.receiver(range, from, to, true, pass)?
        {
            peer.on_snapshot_received(from, said, message, staged, pass);
            return Ok(());
        }
        let replica = ReplicaRef { range, id: ReplicaId(to_replica) };
        pass.io(Io::Apply(ApplyTask::Discard { replica, staged }));
        Ok(())
    }

    /// Returns the replica that an envelope is for. Creates it if a leader addresses it for the
    /// first time.
    fn receiver(
        &mut self,
        range: RangeId,
        from: Replica,
        to: Replica,
        creates: bool,
        pass: &mut Pass,
    ) -> Result<Option<&mut Peer>> {
        // Ids that no replica has: one with such an id could not be opened, or no tombstone could
        // cover it.
        let nothing = range.0 == 0 || to.replica_id == 0 || to.replica_id == u64::MAX;
        if nothing || to.node_id != self.shared.node.0 || !self.shard.holds(range) {
            return Ok(None);
        }
        if let Some(peer) = self.peers.get_mut(&range) {
            let mine = peer.me.replica_id;
            if to.replica_id < mine {
                peer.on_check(from, false, pass);
                return Ok(None);
            }
            if to.replica_id > mine {
                // A node has one replica of a range. If there is a newer one, this one was removed
                // and has not heard of it. The newer one is created once this one is gone.
                if creates {
                    peer.ask_whether_removed(from, pass);
                }
                return Ok(None);
            }
        }
        if !self.peers.contains_key(&range) {
            // The old log must be gone before a new one begins; the leader will send again.
            let destroying = self.destroying.contains_key(&range);
            if !creates || destroying || to.replica_id < self.replica_ids_below(range)? {
                return Ok(None);
            }
            let without_state = self.peers.values().filter(|peer| !peer.is_initialized());
            if without_state.count() >= UNINITIALIZED_MAX {
                return Ok(None);
            }
            let rng = self.peer_rng();
            let mut peer = Peer::create(&self.shared, range, to, rng)?;
            peer.lift_vote_embargo();
            peer.set_room(self.room);
            peer.set_log_stalled(self.log_stalled);
            self.peers.insert(range, peer);
            self.counters.replicas_created += 1;
        }
        Ok(self.touch(range))
    }

    /// Bound below which replica ids were destroyed here and never come back.
    fn replica_ids_below(&self, range: RangeId) -> Result<u64> {
        let stored = self.shared.state.get(ColumnFamily::Meta, &keys::tombstone(range.0))?;
        let Some(stored) = stored else { return Ok(0) };
        let tombstone = Tombstone::decode(stored)
            .map_err(|e| StorageError::corrupt(format!("tombstone of {range}: {e}")))?;
        Ok(tombstone.replica_ids_below)
    }
}

/// Decodes a raft message. `None` if it names another sender or receiver than its envelope.
fn decode_for(bytes: &[u8], from: Replica, to: Replica) -> Option<Message> {
    let message = eraft::decode_message(bytes)?;
    (message.from == from.replica_id && message.to == to.replica_id).then_some(message)
}
