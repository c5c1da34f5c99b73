//! Records and messages of raftstore: raft's own messages, entries, and the states of ranges. Also
//! a store that is opened over damaged records.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use protobuf::Message as _;
use raft_proto::eraftpb::{ConfState, Entry, HardState, Message, MessageType};
use rangedb_proto::NodeId;
use rangedb_proto::v1::{
    Epoch, LogEntry, MembershipChange, RangeDescriptor, RangeState, Replica, SnapshotMeta,
    Tombstone,
};
use rangedb_raftstore::{
    ApplyEffect, Config, Effect, Event, Io, Monotonic, Options, Shard, Store, bootstrap,
    decode_message,
};
use rangedb_storage::{
    ColumnFamily, LogBatch, LogChange, LogEngine as _, MemLog, MemState, StateEngine as _,
    WriteBatch, keys,
};
use rangedb_txn::TxnMachine;

use crate::allocation::bounded;
use crate::mutate::{cases, input};

/// Maximum memory, as a multiple of the input. An empty entry is two bytes on the wire and a
/// hundred in memory, and a growing vector exists twice for a moment.
const TIMES: usize = 256;

fn replica(id: u64) -> Replica {
    Replica { replica_id: id, node_id: id, role: 0 }
}

fn descriptor() -> RangeDescriptor {
    RangeDescriptor {
        range_id: 1,
        start_key: "a".into(),
        end_key: "z".into(),
        epoch: Some(Epoch { version: 1, conf_ver: 3 }),
        replicas: (1..4).map(replica).collect(),
        next_replica_id: 4,
    }
}

fn conf_state() -> ConfState {
    ConfState { voters: vec![1, 2, 300], learners: vec![4], ..Default::default() }
}

/// Returns messages as raft-rs sends them.
fn messages() -> Vec<Vec<u8>> {
    let message = |kind: MessageType| {
        let mut message = Message { from: 1, to: 2, term: 7, index: 9, ..Default::default() };
        message.set_msg_type(kind);
        message
    };
    let mut append = message(MessageType::MsgAppend);
    let entry = |index| Entry { term: 7, index, data: vec![1; 30].into(), ..Default::default() };
    append.entries = (10..14).map(entry).collect::<Vec<_>>().into();
    let mut snapshot = message(MessageType::MsgSnapshot);
    let meta = SnapshotMeta { descriptor: Some(descriptor()), format_version: 2 };
    snapshot.mut_snapshot().data = meta.encode_to_vec().into();
    let metadata = snapshot.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (8, 7);
    metadata.set_conf_state(conf_state());
    let mut vote = message(MessageType::MsgRequestVote);
    vote.context = b"CampaignTransfer".as_slice().into();
    [append, snapshot, vote, message(MessageType::MsgHeartbeat)]
        .map(|message| message.write_to_bytes().unwrap())
        .into()
}

fn range_states() -> Vec<Vec<u8>> {
    let state = |descriptor, applied_index, snapshot_index, replica_id| RangeState {
        descriptor,
        applied_index,
        applied_term: applied_index.min(5),
        snapshot_index,
        replica_id,
    };
    vec![
        state(Some(descriptor()), 5, 0, 1).encode_to_vec(),
        state(Some(descriptor()), 40, 40, 0).encode_to_vec(),
        state(None, 0, 0, 0).encode_to_vec(),
        state(Some(descriptor()), u64::MAX, u64::MAX, u64::MAX).encode_to_vec(),
    ]
}

proptest! {
    #![proptest_config(cases(1))]

    #[test]
    fn raft_messages_of_any_bytes_are_bounded(bytes in input(messages())) {
        bounded(bytes.len(), TIMES, || decode_message(&bytes).is_some());
    }

    #[test]
    fn what_stands_in_entries_is_bounded(bytes in input(entries())) {
        let shared = Bytes::from(bytes.clone());
        bounded(bytes.len(), TIMES, || LogEntry::decode(shared.clone()).is_ok());
        bounded(bytes.len(), TIMES, || MembershipChange::decode(shared.clone()).is_ok());
        bounded(bytes.len(), TIMES, || SnapshotMeta::decode(&bytes[..]).is_ok());
        bounded(bytes.len(), TIMES, || RangeState::decode(&bytes[..]).is_ok());
        bounded(bytes.len(), TIMES, || Tombstone::decode(shared.clone()).is_ok());
    }

    #[test]
    fn a_store_over_damaged_state_opens_or_is_refused(
        range_state in input(range_states()),
        tombstone in input(vec![Tombstone { replica_ids_below: 3 }.encode_to_vec()]),
        hard_state in (0..9_u64, 0..4_u64, prop_oneof![0..9_u64, Just(u64::MAX)]),
        entries in prop::collection::vec(input(entries()), 0..4),
        ticks in 0..40_usize,
    ) {
        let (log, state) = (Arc::new(MemLog::new()), Arc::new(MemState::new()));
        bootstrap(&*log, &*state, &[RangeDescriptor { range_id: 2, ..descriptor() }]).unwrap();
        let mut batch = WriteBatch::default();
        batch.put(ColumnFamily::Meta, keys::range_state(1), range_state);
        batch.put(ColumnFamily::Meta, keys::tombstone(3), tombstone);
        state.write(batch).unwrap();
        state.flush().unwrap();
        let (term, vote, commit) = hard_state;
        let state_of_log = HardState { term, vote, commit, ..Default::default() };
        let entry = |(place, data): (usize, Vec<u8>)| Entry {
            index: 6 + place as u64,
            term: 5,
            data: data.into(),
            ..Default::default()
        };
        let entries: Vec<Entry> = entries.into_iter().enumerate().map(entry).collect();
        log.append(LogBatch {
            changes: vec![
                LogChange::Reset { range_id: 1, index: 5, term: 5 },
                LogChange::HardState { range_id: 1, state: state_of_log },
            ],
        }).unwrap();
        if !entries.is_empty() {
            let changes = vec![LogChange::Append { range_id: 1, entries }];
            log.append(LogBatch { changes }).unwrap();
        }
        let options = Options {
            node: NodeId(1),
            shard: Shard { index: 0, count: 1 },
            config: Config::default(),
            vote_embargo_us: 0,
            seed: 1,
        };
        let machines = Box::new(|_| Box::new(TxnMachine::new()) as Box<_>);
        if let Ok((mut store, mut applier)) = Store::open(options, log, state, machines) {
            for _ in 0..ticks {
                store.step(Event::Tick);
                let effects = store.flush(Monotonic(0)).expect("an entry ends no process");
                for effect in effects {
                    if let Effect::Io(Io::Apply(task)) = effect {
                        applier.step(task);
                    }
                }
                // A damaged entry leads to a quarantine.
                while applier.has_work() {
                    for effect in applier.run().expect("an entry ends no process") {
                        if let ApplyEffect::Event(event) = effect {
                            store.step(event);
                        }
                    }
                }
            }
        }
    }
}

fn entries() -> Vec<Vec<u8>> {
    let epoch = Some(Epoch { version: 1, conf_ver: 3 });
    let commands = vec![Bytes::from_static(b"\x0a\x02\x08\x05"), Bytes::new()];
    vec![
        LogEntry { feature_level: 1, epoch, fence: 9, commands, cost: 2, frees_space: true }
            .encode_to_vec(),
        LogEntry { feature_level: 1, epoch, fence: u64::MAX, ..Default::default() }.encode_to_vec(),
        MembershipChange { epoch, replicas: (1..4).map(replica).collect(), next_replica_id: 4 }
            .encode_to_vec(),
        SnapshotMeta { descriptor: Some(descriptor()), format_version: 2 }.encode_to_vec(),
    ]
}

#[test]
fn a_length_that_goes_beyond_the_message_is_not_believed() {
    // A known field and an unknown field.
    for field in [b"\x62", b"\x6a"] {
        for length in [&b"\xff\xff\x03"[..], b"\xff\xff\xff\x03", b"\xff\xff\xff\xff\x0f"] {
            let bytes = [&field[..], length].concat();
            assert!(bounded(bytes.len(), TIMES, || decode_message(&bytes)).is_none());
        }
    }
}

#[test]
fn lists_of_empty_entries_and_of_members_are_bounded() {
    let entries = b"\x3a\x00".repeat(4096);
    assert!(bounded(entries.len(), TIMES, || decode_message(&entries)).is_some());
    // A snapshot whose configuration lists voters, one byte each.
    let field = |tag: u8, bytes: &[u8]| {
        let length = [bytes.len() as u8 | 0x80, (bytes.len() >> 7) as u8];
        [&[tag], &length[..], bytes].concat()
    };
    let conf_state = field(0x0a, &[1; 4096]);
    let snapshot = field(0x12, &field(0x0a, &conf_state));
    let message = field(0x4a, &snapshot);
    let decoded = bounded(message.len(), TIMES, || decode_message(&message)).unwrap();
    assert_eq!(decoded.get_snapshot().get_metadata().get_conf_state().voters.len(), 4096);
}
