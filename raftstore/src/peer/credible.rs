//! Checks of what raft-rs takes on trust, before it sees a message.
//!
//! raft-rs was written for messages that other replicas made of sound logs. On some that no sound
//! replica makes it panics (a heartbeat that commits more than there is, entries that do not follow
//! each other, figures that overflow when one is added), and on some it forgets what it promised (a
//! message without a term passes for one of its own, and a candidate follows it back to term 0).
//! Such a message is damaged, forged or of a mad replica; it is dropped as if it had been lost,
//! which raft can take.
//!
//! What is left out: nothing here can tell a lie that a sound replica might have told. Whoever can
//! forge messages of a member can depose a leader, acknowledge for others or replace entries that
//! are not committed. That is for the transport to keep out. The commands in an entry are not decoded
//! here either: the machine refuses one that it does not understand. An entry that is none would
//! quarantine the range when it is applied, so it is not let into the log.

use prost::Message as _;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use rangedb_proto::v1::{LogEntry, MembershipChange};

use super::Peer;
use crate::{eraft, membership};

/// Terms that one message may move a replica on. More than elections can have passed while it was
/// away; few enough that terms do not run out however many such messages come.
const TERM_STEP_MAX: u64 = 1 << 32;

/// The highest place in a log: there is room above it for what raft adds.
pub(crate) const INDEX_MAX: u64 = u64::MAX >> 1;

impl Peer {
    /// True if a replica with a sound log could have sent the message.
    pub(super) fn is_credible(&self, message: &Message) -> bool {
        let (own_term, last_index) = (self.term(), self.raw.raft.raft_log.last_index());
        let terms = 1..=own_term.saturating_add(TERM_STEP_MAX);
        if message.from == message.to
            || !terms.contains(&message.term)
            || message.index > INDEX_MAX
            // Nobody here asks for a snapshot in this way, and it would block everything else.
            || message.request_snapshot != 0
        {
            return false;
        }
        match message.get_msg_type() {
            MessageType::MsgAppend => entries_follow(message),
            // Sent by whoever knows that this replica has what it may commit.
            MessageType::MsgHeartbeat => message.term < own_term || message.commit <= last_index,
            // A leader's log holds all that its followers took from it, and all that is committed.
            MessageType::MsgAppendResponse | MessageType::MsgHeartbeatResponse => {
                let figures = [message.index, message.commit, message.reject_hint];
                message.term != own_term
                    || !self.is_raft_leader()
                    || figures.into_iter().all(|figure| figure <= last_index)
            }
            MessageType::MsgSnapshot => {
                let metadata = message.get_snapshot().get_metadata();
                (1..=INDEX_MAX).contains(&metadata.index)
                    && (1..=message.term).contains(&metadata.term)
            }
            _ => true,
        }
    }
}

impl Peer {
    /// True if this replica's own leader, in its own term, knows more to be durable here than there
    /// is. No lost, late or repeated message looks like that.
    pub(super) fn says_more_than_is_here(&self, message: &Message) -> bool {
        let raft = &self.raw.raft;
        message.get_msg_type() == MessageType::MsgHeartbeat
            && message.term == self.term()
            && message.from == raft.leader_id
            && message.commit > raft.raft_log.last_index()
            && message.commit <= INDEX_MAX
    }
}

/// True if entries stand one behind the other and behind the place that the message names, with terms
/// that never fall.
fn entries_follow(message: &Message) -> bool {
    // Only the place before the first entry has no term.
    if (message.index == 0) != (message.log_term == 0) || message.log_term > message.term {
        return false;
    }
    let mut before = (message.index, message.log_term);
    message.entries.iter().all(|entry| {
        let (index, term) = std::mem::replace(&mut before, (entry.index, entry.term));
        entry.index == index + 1
            && entry.term >= term.max(1)
            && entry.term <= message.term
            && is_known_kind(entry)
    })
}

/// True if apply knows what the entry is: each is decoded there in the same way. Changes of membership
/// are rare and raft-rs acts on them, so they are looked at whole.
fn is_known_kind(entry: &Entry) -> bool {
    match entry.get_entry_type() {
        // Empty is the first entry of a leader, or what raft made of a change it did not allow. Decoding
        // copies nothing: commands stay slices of the entry.
        EntryType::EntryNormal => LogEntry::decode(entry.data.clone()).is_ok(),
        // Of the first generation; none is ever proposed.
        EntryType::EntryConfChange => false,
        EntryType::EntryConfChangeV2 => {
            let change = eraft::decode_conf_change(&entry.data);
            let replicas = match entry.data.is_empty() {
                true => Ok(None),
                false => MembershipChange::decode(&entry.context[..]).map(Some),
            };
            change.is_some()
                && replicas.is_ok_and(|wanted| {
                    wanted.is_none_or(|wanted| {
                        membership::are_sound(&wanted.replicas, wanted.next_replica_id)
                    })
                })
        }
    }
}
