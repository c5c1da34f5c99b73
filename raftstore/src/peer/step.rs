//! Checks on the messages of other replicas before raft gets them.

use raft::StateRole;
use raft::eraftpb::{Message, MessageType};
use rangedb_proto::v1::Replica;

use super::{LastMessage, Peer, SenderState};
use crate::pass::Pass;

/// raft-rs's mark on the votes of an election that the leader itself asked for.
const TRANSFER_CONTEXT: &[u8] = b"CampaignTransfer";

/// Most replicas that one replica remembers to have heard: those of its range, and those that it
/// met before it knew its range. The one that has been silent longest is forgotten first.
const HEARD_MAX: usize = 64;

/// True if replicas send each other this kind of message. Proposals, reads and transfers come in as
/// events: as messages they would bypass the checks of those events. So do snapshots, whose records
/// are staged first, apart from the message.
fn is_between_replicas(kind: MessageType) -> bool {
    !matches!(
        kind,
        MessageType::MsgPropose
            | MessageType::MsgReadIndex
            | MessageType::MsgReadIndexResp
            | MessageType::MsgTransferLeader
            | MessageType::MsgSnapshot
    )
}

/// True if a message of this kind answers one from this replica.
fn is_answer(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::MsgAppendResponse
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVoteResponse
    )
}

impl Peer {
    /// True if this replica is a follower that heard its leader within an election timeout. The
    /// leader's lease relies on it to give no vote until then. Raft refuses votes by the same
    /// measure. But raft takes a later term from any other message, and forgets its leader over it:
    /// also from a late answer to something that this replica sent before it heard that leader. A
    /// follower has no use for answers, so the caller drops them.
    fn is_bound_to_leader(&self) -> bool {
        let raft = &self.raw.raft;
        raft.state == StateRole::Follower
            && raft.leader_id != raft::INVALID_ID
            && raft.election_elapsed < raft.election_timeout()
    }

    /// Hands a raft message for this replica to raft, if it passes all checks.
    pub fn on_message(
        &mut self,
        from: Replica,
        said: SenderState,
        message: Message,
        pass: &mut Pass,
    ) {
        let kind = message.get_msg_type();
        if self.has_lost_entries() || !is_between_replicas(kind) {
            return;
        }
        if !self.is_credible(&message) {
            if self.says_more_than_is_here(&message) {
                self.lost_its_tail(message.commit, pass);
            }
            return;
        }
        if is_answer(kind) && message.term > self.term() && self.is_bound_to_leader() {
            return;
        }
        let is_vote = matches!(kind, MessageType::MsgRequestVote | MessageType::MsgRequestPreVote);
        if is_vote && self.on_check(from, false, pass) {
            return;
        }
        let transfer = message.context[..] == *TRANSFER_CONTEXT;
        if is_vote && self.vote_embargo_ticks > 0 && !transfer {
            return;
        }
        if kind == MessageType::MsgTimeoutNow
            && (self.is_installing() || self.log_stalled || self.is_quarantined())
        {
            return;
        }
        // Accepting entries needs room on the disk and in memory. To the leader, a refused message
        // looks lost.
        let appends = kind == MessageType::MsgAppend && !message.entries.is_empty();
        if appends && (self.in_apply.is_full() || !self.accepts_entries(&message, pass)) {
            return;
        }
        if matches!(kind, MessageType::MsgAppend | MessageType::MsgHeartbeat)
            && message.term >= self.term()
        {
            self.leaderless_ticks = 0;
        }
        self.hear(from, said);
        self.step_raft(message);
    }

    pub(super) fn hear(&mut self, from: Replica, said: SenderState) {
        let heard = LastMessage { replica: from, tick: self.ticks, said };
        self.heard.insert(from.replica_id, heard);
        if self.heard.len() > HEARD_MAX {
            let silent = self.heard.iter().min_by_key(|(_, heard)| heard.tick).map(|(id, _)| *id);
            self.heard.remove(&silent.expect("there are many"));
        }
    }

    pub(super) fn step_raft(&mut self, message: Message) {
        // raft-rs refuses messages for another role and from non-members. They may be late or
        // stray, so there is nothing to answer.
        let _ = self.raw.step(message);
        self.rejitter();
    }
}
