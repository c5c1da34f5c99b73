//! The ready loop of raft-rs: writes, sends and applies in the order that keeps promises.
//!
//! A leader's messages leave at once, so that replication overlaps the leader's own fsync. Messages
//! of other replicas are promises (votes, acknowledgements). They wait until the writes of their
//! ready, and of all readies before it, are durable.

use raft::eraftpb::{Message, MessageType};
use rangedb_proto::v1::{RaftEnvelope, Replica, raft_envelope::Body};
use rangedb_proto::{RangeDescriptorExt, ReplicaId};
use rangedb_storage::LogChange;

use super::{Peer, Persisting};
use crate::outgoing::OutgoingView;
use crate::pass::Pass;
use crate::planted::planted;
use crate::{Io, eraft};

/// Most readies handled for one range in one pass, so that the others get their turn. The next pass
/// handles the rest.
const READIES_PER_PASS_MAX: usize = 8;

impl Peer {
    /// Handles raft's readies. True if there are more.
    pub fn on_ready(&mut self, pass: &mut Pass) -> bool {
        for _ in 0..READIES_PER_PASS_MAX {
            if !self.raw.has_ready() {
                break;
            }
            self.on_one_ready(pass);
        }
        self.note_role(pass);
        self.raw.has_ready()
    }

    fn on_one_ready(&mut self, pass: &mut Pass) {
        let mut ready = self.raw.ready();
        let number = ready.number();
        let mut changes = Vec::new();
        if !ready.snapshot().is_empty() {
            changes.extend(self.install(ready.snapshot(), pass));
        }
        for state in ready.take_read_states() {
            self.on_read_state(state, pass.now);
        }
        let messages = ready.take_messages();
        self.send(messages, pass);
        let hard_state = ready.hs().cloned();
        let entries = ready.take_entries();
        changes.extend(self.storage_mut().append(number, entries, hard_state.as_ref()));
        let held = ready.take_persisted_messages();
        let (early, held) = held.into_iter().partition(leaves_early);
        self.send(early, pass);
        let committed = ready.take_committed_entries();
        self.raw.advance_append_async(ready);

        let ready = Persisting { ready: number, held };
        if let Some((ready, changes)) = self.hold_behind_install(ready, changes) {
            self.write_ready(ready, changes, pass);
        }
        self.hand_to_applier(committed, pass);
        self.rejitter();
    }

    /// Hands a ready's writes to the log writer and holds the ready's messages until the writes are
    /// durable. Without writes here or in flight, the messages leave at once.
    pub(super) fn write_ready(
        &mut self,
        ready: Persisting,
        changes: Vec<LogChange>,
        pass: &mut Pass,
    ) {
        if changes.is_empty() && self.persisting.is_empty() {
            self.raw.on_persist_ready(ready.ready);
            self.send(ready.held, pass);
        } else {
            pass.log.changes.extend(changes);
            pass.persisting.push((self.range, ReplicaId(self.me.replica_id), ready.ready));
            self.persisting.push_back(ready);
        }
    }

    /// Sends the messages of this ready and of all before it, which are now durable.
    pub fn on_persisted(&mut self, ready: u64, pass: &mut Pass) {
        while self.persisting.front().is_some_and(|first| first.ready <= ready) {
            let persisted = self.persisting.pop_front().expect("just seen");
            self.send(persisted.held, pass);
        }
        self.raw.on_persist_ready(ready);
        self.storage_mut().on_persisted(ready);
        self.finish_install();
        self.rejitter();
    }

    fn send(&mut self, messages: Vec<Message>, pass: &mut Pass) {
        for message in messages {
            let Some(to) = self.find_replica(message.to) else {
                // The receiver was removed while raft made the message.
                self.storage_mut().outgoing().give_up(message.to);
                continue;
            };
            let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
            let index = message.get_snapshot().get_metadata().index;
            let envelope = self.envelope(to, Body::Message(eraft::encode(&message)));
            if !is_snapshot {
                pass.io(Io::Send(envelope));
                continue;
            }
            match self.storage_mut().outgoing().begin(to.replica_id, index) {
                Some(OutgoingView { reader, span }) => {
                    pass.io(Io::SendSnapshot { envelope, index, reader, span });
                }
                // Raft asked twice within a ready; one stream is enough.
                None => self.report_snapshot(to.replica_id, false),
            }
        }
    }

    fn find_replica(&self, id: u64) -> Option<Replica> {
        let heard = || self.heard.get(&id).map(|heard| heard.replica);
        self.descriptor().replica(id).copied().or_else(heard)
    }

    pub(super) fn envelope(&self, to: Replica, body: Body) -> RaftEnvelope {
        RaftEnvelope {
            range_id: self.range.0,
            from: Some(self.me),
            to: Some(to),
            epoch: self.descriptor().epoch,
            vote_promise_us: self.config.vote_promise_us(),
            short_of_room: self.is_short_of_room(),
            body: Some(body),
        }
    }
}

/// True if a planted bug lets the message leave before what it promises is durable.
fn leaves_early(message: &Message) -> bool {
    match message.get_msg_type() {
        MessageType::MsgAppendResponse => planted!(AckBeforeSync),
        MessageType::MsgRequestVote | MessageType::MsgRequestVoteResponse => {
            planted!(VoteBeforePersist)
        }
        _ => false,
    }
}
