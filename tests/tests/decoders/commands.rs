//! Commands at apply. A command that decodes is answered, the same on every replica, and leaves a
//! state that can be read. A command on a damaged state is answered or refused as corrupt.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use prost::Message as _;
use rangedb_proto::Timestamp;
use rangedb_proto::v1::{
    AcquireLocks, CheckSecondaries, CheckTransaction, CollectGarbage, Command, CommandReply,
    CommitKeys, CommitOneRange, Condition, Delete, DeleteRange, HeartbeatLock, Operation, Prewrite,
    Put, ReadCheck, ResolveLocks, RollbackKeys, Validate, command::Body, condition::Test,
    operation,
};
use rangedb_storage::{
    ApplyContext, Batch, ColumnFamily, Direction, MemState, Reader, Result, Span, StateEngine as _,
    StateMachine as _, WriteBatch, state_hash,
};
use rangedb_txn::{Locks, ReadAt, ScanRequest, TxnMachine, check_command, check_validate};

use crate::allocation::bounded;
use crate::mutate::{cases, input};

/// Bounds of the range in these tests; some keys lie outside.
const RANGE: (&[u8], &[u8]) = (b"b", b"x");

/// Maximum memory of evaluating a command, as a multiple of its length and a constant: the decoded
/// command, the records that it writes, and the rows of its answer, of a state of a few keys.
const TIMES: usize = 128;
const EVALUATION_BYTES: usize = 1 << 20;

const KEYS: [&[u8]; 9] = [b"", b"a", b"b", b"b\x00", b"c", b"c\xff", b"m", b"w", b"y"];

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        12 => prop::sample::select(KEYS.to_vec()).prop_map(Bytes::from_static),
        1 => prop::collection::vec(any::<u8>(), 0..10).prop_map(Bytes::from),
        1 => (8190..8195_usize).prop_map(|length| vec![b'k'; length].into()),
    ]
}

/// Generates timestamps close to each other, so that commands meet, and at the edges of what is
/// valid.
fn timestamp() -> impl Strategy<Value = u64> {
    let edges = [0, 1, Timestamp::MAX.0 - 1, Timestamp::MAX.0, Timestamp::MAX.0 + 1, u64::MAX];
    prop_oneof![8 => 1..40_u64, 1 => prop::sample::select(edges.to_vec()), 1 => any::<u64>()]
}

fn value() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec![0_usize, 1, 512, 513, 5000]).prop_map(|length| vec![7; length].into())
}

fn keys() -> impl Strategy<Value = Vec<Bytes>> {
    prop::collection::vec(key(), 0..4)
}

fn condition() -> impl Strategy<Value = Condition> {
    let test = prop_oneof![
        any::<bool>().prop_map(Test::Exists),
        prop_oneof![0..4_u64, any::<u64>()].prop_map(Test::Version),
        timestamp().prop_map(Test::ModTs),
        value().prop_map(Test::Value),
    ];
    (key(), prop::option::weighted(0.95, test)).prop_map(|(key, test)| Condition { key, test })
}

fn operation() -> impl Strategy<Value = Operation> {
    let body = prop_oneof![
        4 => (key(), value(), prop_oneof![Just(0), any::<u64>()]).prop_map(|(key, value, lease_id)| {
            operation::Body::Put(Put { key, value, lease_id })
        }),
        2 => key().prop_map(|key| operation::Body::Delete(Delete { key })),
        1 => (key(), key()).prop_map(|(start_key, end_key)| {
            operation::Body::DeleteRange(DeleteRange { start_key, end_key })
        }),
    ];
    prop::option::weighted(0.97, body).prop_map(|body| Operation { body })
}

fn reads() -> impl Strategy<Value = Vec<ReadCheck>> {
    let read = (key(), key(), timestamp()).prop_map(|(start_key, end_key, read_ts)| ReadCheck {
        start_key,
        end_key,
        read_ts,
    });
    prop::collection::vec(read, 0..3)
}

fn commit() -> impl Strategy<Value = Body> {
    let conditions = prop::collection::vec(condition(), 0..3);
    let operations = prop::collection::vec(operation(), 0..4);
    (timestamp(), conditions, operations, any::<bool>(), reads()).prop_map(
        |(start_ts, conditions, operations, return_previous, reads)| {
            Body::CommitOneRange(CommitOneRange {
                start_ts,
                conditions,
                operations,
                return_previous,
                reads,
            })
        },
    )
}

fn prewrite() -> impl Strategy<Value = Body> {
    let conditions = prop::collection::vec(condition(), 0..2);
    let operations = prop::collection::vec(operation(), 0..4);
    (timestamp(), key(), conditions, operations, timestamp(), timestamp(), keys()).prop_map(
        |(
            start_ts,
            primary,
            conditions,
            operations,
            alive_until_ms,
            for_update_ts,
            secondaries,
        )| {
            Body::Prewrite(Prewrite {
                start_ts,
                primary,
                conditions,
                operations,
                alive_until_ms,
                for_update_ts,
                secondaries,
                ..Default::default()
            })
        },
    )
}

fn body() -> impl Strategy<Value = Body> {
    let ts = timestamp;
    prop_oneof![
        4 => commit(),
        4 => prewrite(),
        2 => (ts(), ts(), keys()).prop_map(|(start_ts, commit_ts, keys)| {
            Body::CommitKeys(CommitKeys { start_ts, commit_ts, keys })
        }),
        1 => (ts(), keys()).prop_map(|(start_ts, keys)| {
            Body::RollbackKeys(RollbackKeys { start_ts, keys })
        }),
        2 => (key(), ts(), ts(), ts()).prop_map(|(primary, start_ts, now_ts, push_above_ts)| {
            let check = CheckTransaction {
                primary, start_ts, now_ts, push_above_ts, ..Default::default()
            };
            Body::CheckTransaction(check)
        }),
        2 => (ts(), ts(), keys(), key(), key(), key()).prop_map(
            |(start_ts, commit_ts, keys, start_key, end_key, primary)| {
                Body::ResolveLocks(ResolveLocks {
                    start_ts,
                    commit_ts,
                    keys,
                    start_key,
                    end_key,
                    primary,
                })
            }
        ),
        1 => (key(), ts(), ts()).prop_map(|(primary, start_ts, alive_until_ms)| {
            Body::HeartbeatLock(HeartbeatLock { primary, start_ts, alive_until_ms })
        }),
        2 => (ts(), key(), keys(), ts(), ts()).prop_map(
            |(start_ts, primary, keys, for_update_ts, alive_until_ms)| {
                Body::AcquireLocks(AcquireLocks {
                    start_ts,
                    primary,
                    keys,
                    for_update_ts,
                    alive_until_ms,
                })
            }
        ),
        1 => (ts(), keys()).prop_map(|(start_ts, keys)| {
            Body::CheckSecondaries(CheckSecondaries { start_ts, keys })
        }),
        1 => (ts(), ts(), key(), key()).prop_map(
            |(floor_ts, collect_below_ts, start_key, end_key)| {
                let collect = CollectGarbage { floor_ts, collect_below_ts, start_key, end_key };
                Body::CollectGarbage(collect)
            }
        ),
    ]
}

fn encoded() -> impl Strategy<Value = Vec<u8>> {
    let encode = |body| Command { body: Some(body) }.encode_to_vec();
    // Deterministic, so that a failure can be reproduced.
    let mut runner = TestRunner::deterministic();
    let samples = (0..40).map(|_| encode(body().new_tree(&mut runner).unwrap().current()));
    prop_oneof![4 => body().prop_map(encode), 1 => input(samples.collect())]
}

struct Replica {
    state: MemState,
    machine: TxnMachine,
}

impl Replica {
    fn new() -> Self {
        let mut replica = Replica { state: MemState::new(), machine: TxnMachine::new() };
        replica.restart().unwrap();
        replica
    }

    fn restart(&mut self) -> Result<()> {
        self.machine = TxnMachine::new();
        self.machine.load(&*self.state.snapshot(), RANGE.0, RANGE.1)
    }

    fn apply(&mut self, index: u64, fence: u64, command: &[u8]) -> Result<CommandReply> {
        let (start_key, end_key) = RANGE;
        let with_changes = true;
        let context = ApplyContext { start_key, end_key, fence, index, with_changes };
        let snapshot = self.state.snapshot();
        let mut batch = Batch::new(&*snapshot);
        let reply = self.machine.apply(&context, command, &mut batch)?.reply;
        self.state.write(batch.into_writes())?;
        Ok(CommandReply::decode(reply).expect("a reply that can be read"))
    }

    fn hash(&self) -> u64 {
        state_hash(&self.state, &Span::everything()).unwrap()
    }
}

/// Reads the state in every way. An error means that the state is damaged.
fn read(state: &dyn Reader, at: u64) -> Result<()> {
    let at = ReadAt::from_read_ts(at);
    for locks in [Locks::Ignored, Locks::InTheWay { but_of: vec![3] }] {
        for key in KEYS {
            rangedb_txn::get(state, RANGE.0, key, at, &locks)?;
        }
        for direction in [Direction::Forward, Direction::Reverse] {
            rangedb_txn::scan(
                state,
                RANGE.0,
                &ScanRequest {
                    start: RANGE.0.into(),
                    end: RANGE.1.into(),
                    limit: 0,
                    bytes_max: 0,
                    direction,
                    keys_only: false,
                    at,
                    locks: locks.clone(),
                },
            )?;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(1))]

    #[test]
    fn commands_of_any_bytes_are_answered_and_replicas_agree(
        log in prop::collection::vec((encoded(), timestamp()), 1..16),
        restarts in prop::collection::vec(any::<bool>(), 16),
        at in timestamp(),
    ) {
        let (mut one, mut other) = (Replica::new(), Replica::new());
        for (place, (command, fence)) in log.iter().enumerate() {
            let index = place as u64 + 1;
            let evaluated = command.len() * TIMES + EVALUATION_BYTES;
            let reply = crate::allocation::bounded_with(evaluated, || one.apply(index, *fence, command));
            let reply = reply.expect("the state is sound");
            if restarts[place] {
                other.restart().unwrap();
            }
            prop_assert_eq!(&reply, &other.apply(index, *fence, command).unwrap());
            prop_assert!(reply.body.is_some());
            if let Ok(command) = Command::decode(&command[..])
                && let Err(error) = check_command(&command)
            {
                let refused = rangedb_proto::v1::command_reply::Body::Invalid(error.message);
                prop_assert_eq!(reply.body, Some(refused));
            }
        }
        prop_assert_eq!(one.hash(), other.hash());
        read(&one.state, at).expect("the state is sound");
    }

    #[test]
    fn validations_of_anything_are_refused_or_answered(
        commands in prop::collection::vec(body(), 0..6),
        start_ts in timestamp(),
        commit_ts in timestamp(),
        reads in reads(),
    ) {
        let mut replica = Replica::new();
        for (place, body) in commands.into_iter().enumerate() {
            let command = Command { body: Some(body) }.encode_to_vec();
            replica.apply(place as u64 + 1, 0, &command).unwrap();
        }
        let request = Validate { start_ts, commit_ts, reads, ..Default::default() };
        if check_validate(&request).is_ok() {
            rangedb_txn::validate(&replica.state, RANGE.0, &request).expect("the state is sound");
        }
    }
}

/// Returns the records of a state in which a bit of everything has happened.
fn stored_records() -> Vec<(ColumnFamily, Bytes, Bytes)> {
    let mut replica = Replica::new();
    let put = |key: &'static [u8], length: usize| {
        let put = Put { key: key.into(), value: vec![5; length].into(), lease_id: 0 };
        Operation { body: Some(operation::Body::Put(put)) }
    };
    let delete = |key: &'static [u8]| Operation {
        body: Some(operation::Body::Delete(Delete { key: key.into() })),
    };
    let commit = |start_ts, operations| {
        Body::CommitOneRange(CommitOneRange { start_ts, operations, ..Default::default() })
    };
    let prewrite = |start_ts, operations| {
        let primary = Bytes::from_static(b"m");
        let alive_until_ms = 100;
        Body::Prewrite(Prewrite {
            start_ts,
            primary,
            operations,
            alive_until_ms,
            ..Default::default()
        })
    };
    let keys = vec![Bytes::from_static(b"w")];
    for (place, body) in [
        commit(1, vec![put(b"b", 3), put(b"c", 700), put(b"c\xff", 3)]),
        commit(5, vec![put(b"b", 700), delete(b"c"), put(b"m", 1)]),
        commit(9, vec![delete(b"b")]),
        prewrite(20, vec![put(b"m", 700), put(b"w", 4), delete(b"b\x00")]),
        Body::RollbackKeys(RollbackKeys { start_ts: 30, keys: keys.clone() }),
        Body::RollbackKeys(RollbackKeys { start_ts: 20, keys }),
        Body::AcquireLocks(AcquireLocks {
            start_ts: 40,
            primary: "w".into(),
            keys: vec!["w".into()],
            for_update_ts: 41,
            alive_until_ms: 100,
        }),
    ]
    .into_iter()
    .enumerate()
    {
        let command = Command { body: Some(body) }.encode_to_vec();
        replica.apply(place as u64 + 1, 0, &command).unwrap();
    }
    let mut all = Vec::new();
    for cf in ColumnFamily::DATA {
        let mut records = replica.state.scan(cf, b"", b"", Direction::Forward).unwrap();
        while let Some((key, value)) = records.next().unwrap() {
            all.push((cf, Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        }
    }
    let families: std::collections::BTreeSet<_> = all.iter().map(|(cf, ..)| *cf).collect();
    assert_eq!(families.len(), ColumnFamily::DATA.len(), "records of every family");
    all
}

proptest! {
    #![proptest_config(cases(1))]

    #[test]
    fn a_state_of_damaged_records_is_read_or_refused(
        place in any::<usize>(),
        value in input(stored_records().into_iter().map(|(.., value)| value.to_vec()).collect()),
        key in prop::option::weighted(0.3, input(
            stored_records().into_iter().map(|(_, key, _)| key.to_vec()).collect()
        )),
        commands in prop::collection::vec(body(), 1..5),
        at in timestamp(),
    ) {
        let mut replica = Replica::new();
        let mut records = stored_records();
        let damaged = place % records.len();
        records[damaged].2 = value.into();
        if let Some(key) = key {
            records[damaged].1 = key.into();
        }
        let mut batch = WriteBatch::default();
        for (cf, key, value) in records {
            batch.put(cf, key, value);
        }
        replica.state.write(batch).unwrap();
        // An error ends the process in production. The test only asks for an error instead of a
        // panic.
        let _ = read(&replica.state, at);
        if replica.restart().is_ok() {
            for (index, body) in commands.into_iter().enumerate() {
                let command = Command { body: Some(body) }.encode_to_vec();
                if replica.apply(index as u64 + 1, 0, &command).is_err() {
                    break;
                }
            }
        }
    }
}

#[test]
fn commands_that_name_nothing_are_decoded_within_their_bound() {
    // The shortest elements of which a command can hold many.
    for body in [
        Body::CommitOneRange(CommitOneRange {
            operations: vec![Operation::default(); 2000],
            ..Default::default()
        }),
        Body::Prewrite(Prewrite {
            conditions: vec![Condition::default(); 2000],
            ..Default::default()
        }),
        Body::RollbackKeys(RollbackKeys { keys: vec![Bytes::new(); 2000], ..Default::default() }),
    ] {
        let bytes = Command { body: Some(body) }.encode_to_vec();
        bounded(bytes.len(), TIMES, || Command::decode(&bytes[..]).unwrap());
    }
}
