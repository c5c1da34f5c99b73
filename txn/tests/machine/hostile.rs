//! Commands that no client of ours sends, of all kinds, over few keys and few start timestamps:
//! reused, stale and future timestamps, foreign primaries, transactions and one-range commits of
//! one start_ts, long values.
//!
//! The machine must answer each of them. Replicas must answer and write the same. Stored records
//! must stay whole: if a version or a lock refers to a value that stands apart, the value stands
//! there.

use crate::support::{Entry, Replica, forget_dropped, operation};
use bytes::Bytes;
use rangedb_proto::Timestamp;
use rangedb_proto::v1::command::Body;
use rangedb_proto::v1::command_reply::Body as Reply;
use rangedb_proto::v1::operation::Body as Op;
use rangedb_proto::v1::{
    AcquireLocks, CheckSecondaries, CheckTransaction, CollectGarbage, CommitKeys, CommitOneRange,
    Condition, Delete, DeleteRange, HeartbeatLock, Operation, Prewrite, Put, ReadCheck,
    ResolveLocks, RollbackKeys, condition,
};
use rangedb_storage::keys::{self, HistoryKey};
use rangedb_storage::{ColumnFamily, HistoryRecord, Reader, Record, RecordValue};
use rangedb_txn::{floors, locks};

const KEYS: [&[u8]; 6] = [b"a", b"b", b"c", b"d", b"e", b"f"];

struct Hostile {
    rng: fastrand::Rng,
    now: u64,
}

impl Hostile {
    fn key(&mut self) -> Bytes {
        Bytes::from_static(KEYS[self.rng.usize(0..KEYS.len())])
    }

    fn keys(&mut self) -> Vec<Bytes> {
        let mut keys: Vec<Bytes> = (0..self.rng.usize(1..4)).map(|_| self.key()).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// Draws one of the last few timestamps, or one from the future.
    fn timestamp(&mut self) -> u64 {
        match self.rng.u32(0..20) {
            0 => self.now + self.rng.u64(1..40),
            _ => self.now.saturating_sub(self.rng.u64(0..5)).max(1),
        }
    }

    fn value(&mut self) -> Bytes {
        let length = [1, 513, 600, 600][self.rng.usize(0..4)];
        vec![self.rng.u8(b'v'..=b'x'); length].into()
    }

    fn point(&mut self, key: Bytes) -> Operation {
        operation(match self.rng.u32(0..4) {
            0 => Op::Delete(Delete { key }),
            _ => Op::Put(Put { key, value: self.value(), lease_id: 0 }),
        })
    }

    fn points(&mut self) -> Vec<Operation> {
        self.keys().into_iter().map(|key| self.point(key)).collect()
    }

    fn conditions(&mut self) -> Vec<Condition> {
        let count = if self.rng.u32(0..4) == 0 { 1 } else { 0 };
        let condition = |hostile: &mut Self| {
            let test = match hostile.rng.bool() {
                true => condition::Test::Exists(hostile.rng.bool()),
                false => condition::Test::Value(hostile.value()),
            };
            Condition { key: hostile.key(), test: Some(test) }
        };
        (0..count).map(|_| condition(self)).collect()
    }

    fn commit(&mut self) -> CommitOneRange {
        let mut operations = self.points();
        if self.rng.u32(0..5) == 0 {
            let start_key = self.key();
            let delete = Op::DeleteRange(DeleteRange { start_key, end_key: Bytes::new() });
            operations.push(operation(delete));
        }
        let read = ReadCheck { start_key: self.key(), end_key: "z".into(), read_ts: self.now };
        CommitOneRange {
            start_ts: self.timestamp(),
            conditions: self.conditions(),
            operations,
            return_previous: self.rng.bool(),
            reads: if self.rng.u32(0..6) == 0 { vec![read] } else { Vec::new() },
        }
    }

    fn prewrite(&mut self) -> Prewrite {
        let operations = self.points();
        let keys = operations.iter().map(|operation| match operation.body.as_ref().unwrap() {
            Op::Put(put) => put.key.clone(),
            Op::Delete(delete) => delete.key.clone(),
            Op::DeleteRange(_) => unreachable!("points"),
        });
        let keys: Vec<Bytes> = keys.collect();
        let primary = if self.rng.u32(0..4) == 0 { self.key() } else { keys[0].clone() };
        let async_commit = self.rng.u32(0..3) == 0;
        let is_primary = async_commit && keys.contains(&primary);
        let others = keys.into_iter().filter(|key| is_primary && *key != primary);
        Prewrite {
            start_ts: self.timestamp(),
            conditions: self.conditions(),
            alive_until_ms: self.rng.u64(0..3),
            for_update_ts: if self.rng.bool() { 0 } else { self.timestamp() },
            min_commit_ts: if self.rng.bool() { 0 } else { self.timestamp() },
            secondaries: others.collect(),
            operations,
            primary,
            async_commit,
        }
    }

    fn command(&mut self) -> Body {
        self.now += u64::from(self.rng.u32(0..3) == 0);
        let (start_ts, keys, primary) = (self.timestamp(), self.keys(), self.key());
        let commit_ts = start_ts + self.rng.u64(1..30);
        match self.rng.u32(0..40) {
            0..12 => Body::CommitOneRange(self.commit()),
            12..20 => Body::Prewrite(self.prewrite()),
            20..25 => Body::CommitKeys(CommitKeys { start_ts, commit_ts, keys }),
            25..27 => Body::RollbackKeys(RollbackKeys { start_ts, keys }),
            27..29 => Body::CheckTransaction(CheckTransaction {
                start_ts,
                primary,
                now_ts: Timestamp::from_millis(self.rng.u64(1..4)).0,
                push_above_ts: self.timestamp(),
                met_alive_until_ms: self.rng.u64(0..3),
            }),
            29..31 => Body::CheckSecondaries(CheckSecondaries { start_ts, keys }),
            31..34 => Body::ResolveLocks(ResolveLocks {
                start_ts,
                commit_ts: if self.rng.bool() { 0 } else { commit_ts },
                keys: if self.rng.bool() { keys } else { Vec::new() },
                ..Default::default()
            }),
            34 => Body::HeartbeatLock(HeartbeatLock { start_ts, primary, alive_until_ms: 3 }),
            35..38 => Body::AcquireLocks(AcquireLocks {
                start_ts,
                primary,
                keys,
                for_update_ts: self.timestamp(),
                alive_until_ms: self.rng.u64(0..3),
            }),
            _ => Body::HeartbeatLock(HeartbeatLock { start_ts, primary, alive_until_ms: 0 }),
        }
    }

    /// Ends a transaction that has a lock, if there is one.
    fn end_one(&mut self, replica: &Replica) -> Body {
        let (locked, _) = locks(&replica.state, (b"", b""), 0, 0).unwrap();
        if locked.is_empty() {
            return self.command();
        }
        let lock = &locked[self.rng.usize(0..locked.len())];
        let (start_ts, commit_ts) = (lock.start_ts, lock.min_commit_ts + self.rng.u64(0..5));
        let keys = vec![lock.key.clone()];
        match self.rng.u32(0..4) {
            0 => Body::RollbackKeys(RollbackKeys { start_ts, keys }),
            1 => Body::CommitKeys(CommitKeys { start_ts, commit_ts, keys }),
            2 => Body::ResolveLocks(ResolveLocks { start_ts, ..Default::default() }),
            _ => Body::ResolveLocks(ResolveLocks { start_ts, commit_ts, ..Default::default() }),
        }
    }

    /// Raises the floors as the control plane does: no lock is left below collect_below.
    fn collect(&mut self, replica: &Replica) -> Body {
        let floor_ts = self.now.saturating_sub(self.rng.u64(0..10)).max(1);
        let (locked, _) = locks(&replica.state, (b"", b""), 0, 0).unwrap();
        let oldest = locked.iter().map(|lock| lock.start_ts).min().unwrap_or(u64::MAX);
        let before = floors(&replica.state, b"").unwrap();
        let collect_below_ts = oldest.min(floor_ts).max(before.collect_below_ts);
        let floor_ts = floor_ts.max(before.floor_ts);
        Body::CollectGarbage(CollectGarbage { floor_ts, collect_below_ts, ..Default::default() })
    }
}

/// Checks that every value that stands apart is there, in the length that its version or lock says.
fn check_values(replica: &Replica, seed: u64) {
    let value_at = |key: &[u8], start_ts: u64| {
        let stored = replica.state.get(ColumnFamily::Value, &keys::value(key, start_ts)).unwrap();
        stored.map(|value| value.len() as u64)
    };
    for (cf, stored_key, stored) in replica.records() {
        let (key, record) = match cf {
            ColumnFamily::Current => {
                (keys::parse_user_key(&stored_key).unwrap(), Record::decode(&stored).unwrap())
            }
            ColumnFamily::History => match keys::parse_history_key(&stored_key).unwrap() {
                HistoryKey::Version { user_key, .. } => {
                    (user_key, HistoryRecord::decode(&stored).unwrap().record)
                }
                HistoryKey::ByStart { .. } => continue,
            },
            _ => continue,
        };
        if let RecordValue::Reference { bytes } = record.value {
            let found = value_at(&key, record.start_ts);
            assert_eq!(found, Some(bytes), "seed {seed}: {key:?} at {}", record.mod_ts);
        }
    }
    for key in KEYS {
        let Some(stored) = replica.state.get(ColumnFamily::Lock, &keys::lock(key)).unwrap() else {
            continue;
        };
        // By the storage format of a lock: kind 2 is a put whose value stands apart.
        let start_ts = u64::from_be_bytes(stored[2..10].try_into().unwrap());
        if stored[1] == 2 {
            let bytes = u64::from_be_bytes(stored[stored.len() - 8..].try_into().unwrap());
            assert_eq!(value_at(key, start_ts), Some(bytes), "seed {seed}: lock of {start_ts}");
        }
    }
}

#[test]
fn whatever_clients_say_values_stay_whole_and_replicas_the_same() {
    let mut refused = 0;
    let mut committed = 0;
    for seed in 0..60 {
        let mut hostile = Hostile { rng: fastrand::Rng::with_seed(seed), now: 20 };
        let mut replicas = [Replica::new(b"", b""), Replica::new(b"", b"")];
        for _ in 0..600 {
            let command = match hostile.rng.u32(0..40) {
                0 => hostile.collect(&replicas[0]),
                1..20 => hostile.end_one(&replicas[0]),
                _ => hostile.command(),
            };
            let fence = hostile.now.saturating_sub(hostile.rng.u64(0..20));
            let entry = [Entry::of(command.clone(), fence)];
            let mut replies = replicas.each_mut().map(|replica| replica.apply(&entry).remove(0));
            replies.iter_mut().for_each(forget_dropped);
            assert_eq!(replies[0], replies[1], "seed {seed}: {command:?}");
            match replies[0].body.as_ref().unwrap() {
                Reply::Damaged(damaged) => {
                    panic!("seed {seed}: {damaged:?} after {command:?}")
                }
                Reply::Invalid(reason) => {
                    refused += usize::from(reason.contains("another command"))
                }
                Reply::Committed(_) => committed += 1,
                _ => {}
            }
            check_values(&replicas[0], seed);
            let rng = &mut hostile.rng;
            match rng.u32(0..10) {
                0 => replicas[1].restart(),
                1 => replicas[1].thin_out(|| rng.bool()),
                _ => {}
            }
        }
        let [whole, thin] = replicas.map(|replica| replica.records_above_garbage());
        assert_eq!(whole, thin, "seed {seed}");
    }
    assert!(refused > 100, "only {refused} commands met a start_ts that was used");
    assert!(committed > 5_000, "only {committed} commits");
}
