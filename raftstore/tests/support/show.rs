//! Messages, log writes and answers as one line each.

use prost::Message as _;
use protobuf::Message as _;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use rangedb_proto::v1::{
    LogEntry, MembershipChange, RaftEnvelope, RangeDescriptor, Replica, ReplicaRole,
    raft_envelope::Body,
};
use rangedb_raftstore::Error;
use rangedb_storage::{LogBatch, LogChange};

use super::words::shortened;

pub fn raft_message(envelope: &RaftEnvelope) -> Option<Message> {
    let Some(Body::Message(bytes)) = &envelope.body else { return None };
    let mut message = Message::default();
    message.merge_from_bytes(bytes).unwrap();
    Some(message)
}

/// Shows an envelope: `n1@2 -> n2 Append ..`, where 2 is the term.
pub fn envelope(envelope: &RaftEnvelope) -> String {
    let (from, to) = (envelope.from.unwrap().node_id, envelope.to.unwrap().node_id);
    match envelope.body.as_ref().unwrap() {
        Body::Message(_) => {
            let message = raft_message(envelope).unwrap();
            format!("n{from}@{} -> n{to} {}", message.term, raft(&message))
        }
        Body::Removed(descriptor) => {
            let gone = envelope.to.unwrap().replica_id;
            format!("n{from} -> n{to} Removed p{gone}, {}", members(descriptor))
        }
        Body::Check(_) => format!("n{from} -> n{to} IsMember p{}?", from_id(envelope)),
    }
}

fn from_id(envelope: &RaftEnvelope) -> u64 {
    envelope.from.unwrap().replica_id
}

fn raft(m: &Message) -> String {
    let round = match m.context.last_chunk::<8>() {
        Some(count) if m.context.len() == 24 => format!(" round {}", u64::from_be_bytes(*count)),
        _ => String::new(),
    };
    let verdict = if m.reject { "refused" } else { "granted" };
    match m.get_msg_type() {
        MessageType::MsgAppend => {
            let entries: Vec<_> = m.entries.iter().map(entry).collect();
            let entries = entries.join("; ");
            format!("Append base={}@{} [{entries}] commit={}", m.index, m.log_term, m.commit)
        }
        MessageType::MsgAppendResponse if m.reject => {
            format!("AppendResponse refused {}, try {}@{}", m.index, m.reject_hint, m.log_term)
        }
        MessageType::MsgAppendResponse => format!("AppendResponse {}", m.index),
        MessageType::MsgHeartbeat => format!("Heartbeat commit={}{round}", m.commit),
        MessageType::MsgHeartbeatResponse => format!("HeartbeatResponse{round}"),
        MessageType::MsgRequestPreVote => format!("PreVote last={}@{}", m.index, m.log_term),
        MessageType::MsgRequestPreVoteResponse => format!("PreVoteResponse {verdict}"),
        MessageType::MsgRequestVote => {
            let forced = if m.context.is_empty() { "" } else { " of a transfer" };
            format!("Vote last={}@{}{forced}", m.index, m.log_term)
        }
        MessageType::MsgRequestVoteResponse => format!("VoteResponse {verdict}"),
        MessageType::MsgTimeoutNow => "TimeoutNow".into(),
        MessageType::MsgSnapshot => {
            let metadata = m.get_snapshot().get_metadata();
            format!("Snapshot at {}@{}", metadata.index, metadata.term)
        }
        other => format!("{other:?}"),
    }
}

fn entry(entry: &Entry) -> String {
    let place = format!("{}@{}", entry.index, entry.term);
    if entry.get_entry_type() != EntryType::EntryNormal {
        if entry.data.is_empty() {
            return format!("{place} leave joint");
        }
        let change = MembershipChange::decode(entry.context.clone()).unwrap();
        return format!("{place} members {}", replicas(&change.replicas));
    }
    if entry.data.is_empty() {
        return format!("{place} empty");
    }
    let log_entry = LogEntry::decode(entry.data.clone()).unwrap();
    let command = |bytes: &bytes::Bytes| shortened(std::str::from_utf8(bytes).unwrap());
    let commands: Vec<_> = log_entry.commands.iter().map(command).collect();
    format!("{place} {} above {}", commands.join(", "), log_entry.fence)
}

pub fn batch(batch: &LogBatch) -> String {
    let changes = batch.changes.iter().map(|change| match change {
        LogChange::Append { entries, .. } => {
            let places = entries.iter().map(|e| format!("{}@{}", e.index, e.term));
            format!("entries {}", places.collect::<Vec<_>>().join(" "))
        }
        LogChange::HardState { state, .. } => {
            format!("term={} vote={} commit={}", state.term, state.vote, state.commit)
        }
        LogChange::Truncate { index, term, .. } => format!("truncate to {index}@{term}"),
        LogChange::Reset { index, term, .. } => format!("reset to {index}@{term}"),
        LogChange::Destroy { .. } => "destroy".into(),
    });
    changes.collect::<Vec<_>>().join(", ")
}

pub fn members(descriptor: &RangeDescriptor) -> String {
    let epoch = descriptor.epoch.unwrap_or_default();
    format!("epoch {}.{}: {}", epoch.version, epoch.conf_ver, replicas(&descriptor.replicas))
}

fn replicas(replicas: &[Replica]) -> String {
    replicas.iter().map(replica).collect::<Vec<_>>().join(" ")
}

/// Shows a replica: `p4@n4+` is an incoming voter, `p4@n4-` an outgoing one, `p4@n4?` a learner.
fn replica(replica: &Replica) -> String {
    let mark = match replica.role() {
        ReplicaRole::Voter => "",
        ReplicaRole::Learner => "?",
        ReplicaRole::IncomingVoter => "+",
        ReplicaRole::OutgoingVoter => "-",
    };
    format!("p{}@n{}{mark}", replica.replica_id, replica.node_id)
}

pub fn answer(result: &Result<bytes::Bytes, Error>) -> String {
    match result {
        Ok(reply) if reply.is_empty() => "ok".into(),
        Ok(reply) => format!("ok, {}", std::str::from_utf8(reply).unwrap()),
        Err(Error::NotLeader { leader: Some(leader), .. }) => {
            format!("NotLeader, p{} leads", leader.replica_id)
        }
        Err(Error::NotLeader { leader: None, .. }) => "NotLeader".into(),
        Err(Error::StaleEpoch { descriptor }) => format!("StaleEpoch, {}", members(descriptor)),
        Err(Error::RangeNotFound(_)) => "RangeNotFound".into(),
        Err(Error::TooBusy { reason, .. }) => format!("TooBusy, {reason}"),
        Err(Error::DiskFull(_)) => "DiskFull".into(),
        Err(Error::Undetermined(_)) => "Undetermined".into(),
        Err(Error::Quarantined { reason, .. }) => format!("quarantined: {reason}"),
        Err(Error::Refused(reason)) => format!("Refused, {reason}"),
    }
}
