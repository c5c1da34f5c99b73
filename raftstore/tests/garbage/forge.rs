//! Changes to a message: one field to an absurd number, or bytes of its encoding.

use proptest::prelude::*;
use protobuf::{Message as _, ProtobufEnum as _};
use raft_proto::eraftpb::{Entry, EntryType, Message, MessageType};
use rangedb_proto::v1::{
    Epoch, RaftEnvelope, RangeDescriptor, Replica, ReplicaCheck, raft_envelope::Body,
};

/// New number in place of an old one.
#[derive(Clone, Copy, Debug)]
pub enum Figure {
    Absolute(u64),
    More(u64),
    Less(u64),
}

impl Figure {
    fn over(self, old: u64) -> u64 {
        match self {
            Figure::Absolute(figure) => figure,
            Figure::More(by) => old.wrapping_add(by),
            Figure::Less(by) => old.wrapping_sub(by),
        }
    }
}

/// One change. Changes to fields of the raft message do nothing to an envelope without one.
#[derive(Clone, Debug)]
pub enum Edit {
    Kind(i32),
    Term(Figure),
    LogTerm(Figure),
    Index(Figure),
    Commit(Figure),
    CommitTerm(Figure),
    RejectHint(Figure),
    RequestSnapshot(Figure),
    Reject(bool),
    Context(Vec<u8>),
    /// Entries behind the message's index; the figures change index and term of each.
    Entries {
        count: u8,
        index: Figure,
        term: Figure,
        kind: i32,
        data: Vec<u8>,
    },
    SnapshotIndex(Figure),
    SnapshotTerm(Figure),
    SnapshotVoters(Vec<u64>),
    SnapshotData(Vec<u8>),
    /// This and the next two change the envelope and the message alike.
    Swap,
    From(Figure),
    To(Figure),
    /// This and those up to `Check` change the envelope alone.
    Range(Figure),
    FromNode(Figure),
    ToNode(Figure),
    Epoch(u64, u64),
    Removed {
        conf_ver: u64,
        next_replica_id: u64,
        replicas: Vec<(u64, u64)>,
    },
    Check(bool),
    /// This and the next two change the encoded message.
    Flip {
        place: usize,
        bit: u8,
    },
    Cut(usize),
    Insert {
        place: usize,
        bytes: Vec<u8>,
    },
}

fn figure() -> impl Strategy<Value = Figure> {
    let edges =
        [0, 1, 2, 5, 1 << 31, (1 << 32) - 1, 1 << 32, u64::MAX >> 1, u64::MAX - 1, u64::MAX];
    prop_oneof![
        prop::sample::select(edges.to_vec()).prop_map(Figure::Absolute),
        (0..4_u64).prop_map(Figure::More),
        (0..4_u64).prop_map(Figure::Less),
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..12)
}

pub fn edit() -> impl Strategy<Value = Edit> {
    let members = prop::collection::vec((0..5_u64, 0..5_u64), 0..4);
    prop_oneof![
        (0..20_i32).prop_map(Edit::Kind),
        figure().prop_map(Edit::Term),
        figure().prop_map(Edit::LogTerm),
        figure().prop_map(Edit::Index),
        figure().prop_map(Edit::Commit),
        figure().prop_map(Edit::CommitTerm),
        figure().prop_map(Edit::RejectHint),
        figure().prop_map(Edit::RequestSnapshot),
        any::<bool>().prop_map(Edit::Reject),
        prop_oneof![bytes(), Just(b"CampaignTransfer".to_vec())].prop_map(Edit::Context),
        (0..4_u8, figure(), figure(), 0..3_i32, bytes()).prop_map(
            |(count, index, term, kind, data)| Edit::Entries { count, index, term, kind, data }
        ),
        figure().prop_map(Edit::SnapshotIndex),
        figure().prop_map(Edit::SnapshotTerm),
        prop::collection::vec(0..5_u64, 0..4).prop_map(Edit::SnapshotVoters),
        bytes().prop_map(Edit::SnapshotData),
        Just(Edit::Swap),
        figure().prop_map(Edit::From),
        figure().prop_map(Edit::To),
        figure().prop_map(Edit::Range),
        figure().prop_map(Edit::FromNode),
        figure().prop_map(Edit::ToNode),
        any::<(u64, u64)>().prop_map(|(version, conf_ver)| Edit::Epoch(version, conf_ver)),
        (0..9_u64, 0..9_u64, members).prop_map(|(conf_ver, next_replica_id, replicas)| {
            Edit::Removed { conf_ver, next_replica_id, replicas }
        }),
        any::<bool>().prop_map(Edit::Check),
        any::<(usize, u8)>().prop_map(|(place, bit)| Edit::Flip { place, bit }),
        any::<usize>().prop_map(Edit::Cut),
        (any::<usize>(), bytes()).prop_map(|(place, bytes)| Edit::Insert { place, bytes }),
    ]
}

pub fn message_of(envelope: &RaftEnvelope) -> Option<Message> {
    let Some(Body::Message(bytes)) = &envelope.body else { return None };
    Message::parse_from_bytes(bytes).ok()
}

pub fn with_message(envelope: &RaftEnvelope, message: &Message) -> RaftEnvelope {
    let body = Some(Body::Message(message.write_to_bytes().unwrap().into()));
    RaftEnvelope { body, ..envelope.clone() }
}

pub fn forge(mut envelope: RaftEnvelope, edits: &[Edit]) -> RaftEnvelope {
    for edit in edits {
        edit_envelope(&mut envelope, edit);
        if let Some(mut message) = message_of(&envelope) {
            edit_message(&mut message, edit);
            envelope = with_message(&envelope, &message);
        }
        if let Some(Body::Message(bytes)) = &mut envelope.body {
            let mut changed = bytes.to_vec();
            edit_bytes(&mut changed, edit);
            *bytes = changed.into();
        }
    }
    envelope
}

fn edit_message(message: &mut Message, edit: &Edit) {
    let set = |field: &mut u64, figure: &Figure| *field = figure.over(*field);
    match edit {
        Edit::Kind(kind) => {
            message.set_msg_type(MessageType::from_i32(*kind).unwrap_or(MessageType::MsgHup));
        }
        Edit::Term(figure) => set(&mut message.term, figure),
        Edit::LogTerm(figure) => set(&mut message.log_term, figure),
        Edit::Index(figure) => set(&mut message.index, figure),
        Edit::Commit(figure) => set(&mut message.commit, figure),
        Edit::CommitTerm(figure) => set(&mut message.commit_term, figure),
        Edit::RejectHint(figure) => set(&mut message.reject_hint, figure),
        Edit::RequestSnapshot(figure) => set(&mut message.request_snapshot, figure),
        Edit::Reject(reject) => message.reject = *reject,
        Edit::Context(context) => message.context = context.clone().into(),
        Edit::Entries { count, index, term, kind, data } => {
            let entry = |place: u64| {
                let mut entry = Entry {
                    index: index.over(message.index.wrapping_add(place)),
                    term: term.over(message.term),
                    data: data.clone().into(),
                    context: data.clone().into(),
                    ..Default::default()
                };
                entry.set_entry_type(EntryType::from_i32(*kind).unwrap());
                entry
            };
            let entries: Vec<_> = (1..=u64::from(*count)).map(entry).collect();
            message.entries = entries.into();
        }
        Edit::SnapshotIndex(figure) => {
            set(&mut message.mut_snapshot().mut_metadata().index, figure);
        }
        Edit::SnapshotTerm(figure) => set(&mut message.mut_snapshot().mut_metadata().term, figure),
        Edit::SnapshotVoters(voters) => {
            message.mut_snapshot().mut_metadata().mut_conf_state().voters = voters.clone();
        }
        Edit::SnapshotData(data) => message.mut_snapshot().data = data.clone().into(),
        Edit::Swap => std::mem::swap(&mut message.from, &mut message.to),
        Edit::From(figure) => set(&mut message.from, figure),
        Edit::To(figure) => set(&mut message.to, figure),
        _ => {}
    }
}

fn edit_envelope(envelope: &mut RaftEnvelope, edit: &Edit) {
    let set = |field: &mut u64, figure: &Figure| *field = figure.over(*field);
    let from = envelope.from.get_or_insert_default();
    let to = envelope.to.get_or_insert_default();
    match edit {
        Edit::Swap => std::mem::swap(from, to),
        Edit::From(figure) => set(&mut from.replica_id, figure),
        Edit::To(figure) => set(&mut to.replica_id, figure),
        Edit::Range(figure) => set(&mut envelope.range_id, figure),
        Edit::FromNode(figure) => set(&mut from.node_id, figure),
        Edit::ToNode(figure) => set(&mut to.node_id, figure),
        Edit::Epoch(version, conf_ver) => {
            envelope.epoch = Some(Epoch { version: *version, conf_ver: *conf_ver });
        }
        Edit::Removed { conf_ver, next_replica_id, replicas } => {
            let replica = |&(replica_id, node_id)| Replica { replica_id, node_id, role: 0 };
            envelope.body = Some(Body::Removed(Box::new(RangeDescriptor {
                range_id: envelope.range_id,
                epoch: Some(Epoch { version: 1, conf_ver: *conf_ver }),
                replicas: replicas.iter().map(replica).collect(),
                next_replica_id: *next_replica_id,
                ..Default::default()
            })));
        }
        Edit::Check(forwarded) => {
            envelope.body = Some(Body::Check(ReplicaCheck { forwarded: *forwarded }));
        }
        _ => {}
    }
}

fn edit_bytes(bytes: &mut Vec<u8>, edit: &Edit) {
    match edit {
        Edit::Flip { place, bit } if !bytes.is_empty() => {
            let place = place % bytes.len();
            bytes[place] ^= 1 << (bit % 8);
        }
        Edit::Cut(length) if !bytes.is_empty() => bytes.truncate(length % bytes.len()),
        Edit::Insert { place, bytes: inserted } => {
            let place = place % (bytes.len() + 1);
            bytes.splice(place..place, inserted.iter().copied());
        }
        _ => {}
    }
}
