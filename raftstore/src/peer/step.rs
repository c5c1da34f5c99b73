//! Messages of other replicas, on their way into raft.

use prost::Message as _;
use raft::StateRole;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use rangedb_proto::v1::{LogEntry, Replica};

use super::{Heard, Peer};
use crate::pass::Pass;

/// How raft-rs marks the votes of an election that the leader itself asked for.
const TRANSFER_CONTEXT: &[u8] = b"CampaignTransfer";

/// Replicas that one replica remembers to have heard of: its range's, and those that it met before it
/// knew them. Whoever is silent longest is forgotten first.
const HEARD_MAX: usize = 64;

/// Proposals, reads and transfers come in as events; as messages they would get past their checks.
/// So do snapshots, whose records come apart from the message and are staged first.
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

/// What a replica is told because it asked.
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
    /// True if this replica heard its leader within an election timeout, whose lease counts on it to
    /// give no vote until then. Raft refuses votes by the same measure, but takes a later term from
    /// whatever else comes with one, and forgets the leader over it: also from a late answer to what
    /// this replica asked before it heard that leader. As a follower it has no use for answers.
    fn is_bound_to_leader(&self) -> bool {
        let raft = &self.raw.raft;
        raft.state == StateRole::Follower
            && raft.leader_id != raft::INVALID_ID
            && raft.election_elapsed < raft.election_timeout()
    }

    /// A raft message for this replica.
    pub fn on_message(
        &mut self,
        from: Replica,
        vote_promise_us: u64,
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
        // Taking entries in would need room, on the disk or in memory. To the leader it looks like a
        // lost message.
        let is_short = !self.has_room_for_all(&message.entries) || self.in_apply.is_full();
        if kind == MessageType::MsgAppend && !message.entries.is_empty() && is_short {
            return;
        }
        if matches!(kind, MessageType::MsgAppend | MessageType::MsgHeartbeat)
            && message.term >= self.term()
        {
            self.leaderless_ticks = 0;
        }
        self.hear(from, vote_promise_us);
        self.step_raft(message);
    }

    /// True if there is room to take in these entries. An election and a membership change take next
    /// to none, and are needed to get some.
    fn has_room_for_all(&self, entries: &[Entry]) -> bool {
        let is_small = |entry: &Entry| {
            entry.get_entry_type() != EntryType::EntryNormal || entry.data.is_empty()
        };
        let frees_space = |entry: &Entry| {
            is_small(entry) || LogEntry::decode(&entry.data[..]).is_ok_and(|log| log.frees_space)
        };
        self.has_room_for(false) || (self.has_room_for(true) && entries.iter().all(frees_space))
    }

    pub(super) fn hear(&mut self, from: Replica, vote_promise_us: u64) {
        let heard = Heard { replica: from, tick: self.ticks, vote_promise_us };
        self.heard.insert(from.replica_id, heard);
        if self.heard.len() > HEARD_MAX {
            let silent = self.heard.iter().min_by_key(|(_, heard)| heard.tick).map(|(id, _)| *id);
            self.heard.remove(&silent.expect("there are many"));
        }
    }

    pub(super) fn step_raft(&mut self, message: Message) {
        // Refused are messages for another role or from non-members; they may be late or stray, so
        // there is nothing to answer.
        let _ = self.raw.step(message);
        self.rejitter();
    }
}
