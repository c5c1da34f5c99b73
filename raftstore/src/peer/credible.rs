//! Validation of messages before raft-rs sees them.
//!
//! raft-rs was written for messages that other replicas made from sound logs. On some messages that
//! no sound replica sends it panics: a heartbeat that commits more than the log holds, entries that
//! are not consecutive, numbers that overflow when one is added. On others it forgets its promises:
//! it takes a message without a term for a local one, and a candidate follows such a message back
//! to term 0. A message of this kind is damaged, forged or from a faulty replica. It is dropped as
//! if it had been lost, which raft tolerates.
//!
//! Left out: no check here detects a lie that a sound replica might have told. A sender that can
//! forge a member's messages can depose a leader, acknowledge for others or replace uncommitted
//! entries. The transport must keep such senders out. The commands in an entry are not decoded here
//! either: the state machine refuses a command that it does not understand. An entry that does not
//! decode would quarantine the range when it is applied, so it is not let into the log.

use prost::Message as _;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use rangedb_proto::v1::{LogEntry, MembershipChange};

use super::Peer;
use crate::{eraft, membership};

/// Most terms by which one message may advance a replica. More than elections can have passed while
/// the replica was away; few enough that such messages cannot exhaust the terms.
const TERM_STEP_MAX: u64 = 1 << 32;

/// Highest index of a log. raft-rs can add to it without overflow.
pub(crate) const INDEX_MAX: u64 = u64::MAX >> 1;

impl Peer {
    /// True if a replica with a sound log could have sent the message.
    pub(super) fn is_credible(&self, message: &Message) -> bool {
        let (own_term, last_index) = (self.term(), self.raw.raft.raft_log.last_index());
        let terms = 1..=own_term.saturating_add(TERM_STEP_MAX);
        if message.from == message.to
            || !terms.contains(&message.term)
            || message.index > INDEX_MAX
            // No replica requests a snapshot in this way, and the request would block everything
            // else.
            || message.request_snapshot != 0
        {
            return false;
        }
        match message.get_msg_type() {
            MessageType::MsgAppend => entries_follow(message),
            // A sound leader commits here only what it knows this replica to hold.
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
    /// True if this replica's own leader, in its own term, claims that more is durable here than
    /// the log holds. No lost, late or repeated message makes such a claim.
    pub(super) fn says_more_than_is_here(&self, message: &Message) -> bool {
        let raft = &self.raw.raft;
        message.get_msg_type() == MessageType::MsgHeartbeat
            && message.term == self.term()
            && message.from == raft.leader_id
            && message.commit > raft.raft_log.last_index()
            && message.commit <= INDEX_MAX
    }
}

/// True if the entries are consecutive from the message's index on, with terms that never fall.
fn entries_follow(message: &Message) -> bool {
    // Only index 0, before the first entry, has term 0.
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

/// True if apply can decode the entry; apply uses the same decoders. Membership changes are rare
/// and raft-rs acts on them, so they are checked completely.
fn is_known_kind(entry: &Entry) -> bool {
    match entry.get_entry_type() {
        // Empty data is the first entry of a leader, or a membership change that raft-rs did not
        // allow. Decoding copies nothing: commands stay slices of the entry.
        EntryType::EntryNormal => LogEntry::decode(entry.data.clone()).is_ok(),
        // Membership change of the first generation; never proposed.
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
