//! Requests that no client of this project sends: reused, stale and future timestamps, foreign
//! primaries, wrong epochs and ranges, reserved keys, inverted and oversize spans, requests that
//! only nodes send.
//!
//! All of it is well-formed on the wire. The effect on the hostile clients' own keys does not
//! matter. The requests must end no process, cost no other client an answer, and leave replicas
//! equal. Writes name only keys below one prefix, because a client has the right to delete any
//! user's keys.

use std::collections::VecDeque;

use bytes::Bytes;
use rangedb_proto::v1::{
    AcquireLocks, CheckSecondaries, CheckTransaction, CollectGarbage, Command, CommitKeys,
    CommitOneRange, Condition, Delete, DeleteRange, Epoch, Heartbeat, HeartbeatLock, HoldFloor,
    JoinCluster, ListLocks, Locate, LockWait, LockWaits, MetaRead, NodeDescriptor, Operation,
    PointRead, Prewrite, Put, RangeDescriptor, RangeHeader, RangeReport, ReadCheck, Replica,
    Request, ResolveLocks, RollbackKeys, Scan, Timestamps, TransactionCommand, Validate, Write,
    command, condition, operation, request, response,
};

/// Number of keys that are written, of those that are locked at times and of the others. Few, so that
/// requests meet each other.
const KEYS: u32 = 6;

/// Maximum number of remembered timestamps, which later requests name again.
const TIMESTAMPS_MAX: usize = 32;

/// Maximum number of remembered commits, which later requests repeat in part.
const COMMITS_MAX: usize = 8;

/// One draw of a field in so many is odd, for each kind of odd value. Otherwise a node would refuse
/// most requests for one field before it looks at another.
const ODD_ONE_IN: u32 = 60;

/// Lengths of values above the inline limit, which stand apart from their records.
const LONG_VALUES: [usize; 2] = [700, 900];

/// One hostile client.
pub struct Hostile {
    rng: fastrand::Rng,
    prefix: String,
    /// Range of the prefix with its epoch, once a node has reported it.
    home: RangeHeader,
    /// Timestamps from the oracle, the newest first.
    timestamps: VecDeque<u64>,
    /// True while keys are drawn that no transaction of several ranges locks.
    unlocked_keys: bool,
    /// Commits that were sent, the newest first.
    commits: VecDeque<CommitOneRange>,
}

impl Hostile {
    /// Creates a client. The keys that it writes begin with `prefix`; no other client's keys may.
    pub fn new(seed: u64, prefix: &str) -> Self {
        Hostile {
            rng: fastrand::Rng::with_seed(seed),
            prefix: prefix.to_owned(),
            home: RangeHeader::default(),
            timestamps: VecDeque::new(),
            unlocked_keys: false,
            commits: VecDeque::new(),
        }
    }

    /// Remembers what later requests can use: timestamps, and the range of the prefix.
    pub fn hear(&mut self, answer: &response::Body) {
        match answer {
            response::Body::Timestamps(reply) => {
                self.timestamps.push_front(reply.last);
                self.timestamps.truncate(TIMESTAMPS_MAX);
            }
            response::Body::Locate(reply) => {
                let range = reply.ranges.first().and_then(|location| location.descriptor.as_ref());
                if let Some(range) = range.filter(|range| holds(range, self.prefix.as_bytes())) {
                    self.home = RangeHeader { range_id: range.range_id, epoch: range.epoch };
                }
            }
            _ => {}
        }
    }

    /// Draws the next request.
    pub fn request(&mut self) -> request::Body {
        use request::Body;
        match self.rng.u32(0..24) {
            0 | 1 => Body::Timestamps(Timestamps { count: self.few_or_many() }),
            2 | 3 => Body::Locate(Locate {
                key: self.prefix.clone().into(),
                count: self.few_or_many(),
                reverse: self.rng.bool() && self.rng.bool(),
            }),
            4 => Body::PointRead(PointRead {
                range: self.range(),
                key: self.any_key(),
                read_ts: self.timestamp(),
                pass_locks_of: self.few(|hostile| hostile.timestamp()),
            }),
            5 => Body::Scan(Scan {
                range: self.range(),
                start_key: self.any_key(),
                end_key: self.any_key(),
                limit: self.large(),
                bytes_max: self.large(),
                reverse: self.rng.bool(),
                keys_only: self.rng.bool(),
                read_ts: self.timestamp(),
                pass_locks_of: self.few(|hostile| hostile.timestamp()),
            }),
            6 => Body::Validate(Validate {
                range: self.range(),
                start_ts: self.timestamp(),
                commit_ts: self.timestamp(),
                reads: self.few(|hostile| hostile.read_check()),
                ..Default::default()
            }),
            7 => Body::ListLocks(ListLocks {
                range: self.range(),
                start_key: self.any_key(),
                end_key: self.any_key(),
                limit: self.large(),
                started_below_ts: self.timestamp(),
            }),
            8..=12 => Body::Write(Write {
                range: self.range(),
                commit: Some(self.commit()),
                lock_wait_ms: self.few_or_many() % 50,
            }),
            13..=19 => Body::TransactionCommand(TransactionCommand {
                range: self.range(),
                command: Some(Command { body: Some(self.command()) }),
                lock_wait_ms: self.few_or_many() % 50,
            }),
            20 => Body::HoldFloor(HoldFloor {
                name: self.prefix.clone(),
                timestamp: self.timestamp(),
                ttl_ms: 1 + self.few_or_many() % 1000,
                released_ts: self.timestamp(),
            }),
            21 => Body::MetaRead(MetaRead {
                prefix: self.any_key(),
                exact: self.rng.bool(),
                limit: self.large(),
                after: self.any_key(),
            }),
            _ => self.as_if_a_node(),
        }
    }

    /// Draws a request that only nodes send.
    fn as_if_a_node(&mut self) -> request::Body {
        use request::Body;
        let descriptor = RangeDescriptor {
            range_id: self.rng.u64(0..8),
            epoch: Some(Epoch { version: 1, conf_ver: 1 << 40 }),
            replicas: self.few(|hostile| Replica {
                replica_id: hostile.rng.u64(0..9),
                node_id: hostile.rng.u64(0..9),
                role: hostile.rng.i32(-1..9),
            }),
            next_replica_id: 1 << 40,
            ..Default::default()
        };
        let node = NodeDescriptor {
            node_id: self.rng.u64(0..9),
            peer_address: "127.0.0.1:1".to_owned(),
            client_address: "127.0.0.1:1".to_owned(),
            directory_id: self.rng.u64(..),
            ..Default::default()
        };
        match self.rng.u32(0..4) {
            0 => Body::Heartbeat(Heartbeat {
                ranges: vec![RangeReport {
                    term: u64::MAX >> self.rng.u32(1..40),
                    leader_node_id: node.node_id,
                    descriptor: Some(descriptor),
                    ..Default::default()
                }],
                node: Some(node),
                ..Default::default()
            }),
            1 => Body::Join(JoinCluster { node: Some(node) }),
            2 => Body::LockWaits(LockWaits {
                node_id: node.node_id,
                begun: self.few(|hostile| LockWait {
                    waiter_start_ts: hostile.timestamp(),
                    holder_start_ts: hostile.timestamp(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            _ => {
                let body = Some(self.request());
                Body::Forwarded(Box::new(Request { body, ..Default::default() }))
            }
        }
    }

    /// Draws a commit: a new one, or an earlier one once more, maybe with a part changed.
    fn commit(&mut self) -> CommitOneRange {
        self.unlocked_keys = self.rng.bool();
        let earlier = self.rng.usize(0..2 * COMMITS_MAX);
        let commit = match self.commits.get(earlier).cloned() {
            Some(mut commit) => {
                // Its conditions would refuse it for what it wrote itself.
                (commit.conditions, commit.reads) = (Vec::new(), Vec::new());
                match self.rng.u32(0..4) {
                    0 => commit.return_previous = true,
                    1 => commit.operations.insert(0, self.operation()),
                    2 => commit.operations = self.few(Self::operation),
                    _ => commit.conditions = self.few(Self::condition),
                }
                commit
            }
            None => CommitOneRange {
                start_ts: self.timestamp(),
                conditions: if self.rng.bool() { self.few(Self::condition) } else { Vec::new() },
                operations: self.few(Self::operation),
                return_previous: self.rng.bool(),
                reads: self.few(|hostile| hostile.read_check()),
            },
        };
        self.unlocked_keys = false;
        self.commits.push_front(commit.clone());
        self.commits.truncate(COMMITS_MAX);
        commit
    }

    fn command(&mut self) -> command::Body {
        use command::Body;
        match self.rng.u32(0..11) {
            0 => Body::CommitOneRange(self.commit()),
            1 | 2 => Body::Prewrite(Prewrite {
                start_ts: self.timestamp(),
                primary: self.key(),
                conditions: self.few(Self::condition),
                operations: self.few(Self::operation),
                alive_until_ms: self.large(),
                for_update_ts: self.timestamp(),
                async_commit: self.rng.bool(),
                secondaries: self.few(Self::key),
                min_commit_ts: self.timestamp(),
            }),
            3 => Body::CommitKeys(CommitKeys {
                start_ts: self.timestamp(),
                commit_ts: self.timestamp(),
                keys: self.few(Self::key),
            }),
            4 => Body::RollbackKeys(RollbackKeys {
                start_ts: self.timestamp(),
                keys: self.few(Self::key),
            }),
            5 => Body::CheckTransaction(CheckTransaction {
                primary: self.key(),
                start_ts: self.timestamp(),
                now_ts: self.timestamp(),
                push_above_ts: self.timestamp(),
                met_alive_until_ms: self.large(),
            }),
            6 => Body::CheckSecondaries(CheckSecondaries {
                start_ts: self.timestamp(),
                keys: self.few(Self::key),
            }),
            7 => Body::ResolveLocks(ResolveLocks {
                start_ts: self.timestamp(),
                commit_ts: self.timestamp(),
                keys: self.few(Self::key),
                start_key: self.key(),
                end_key: self.key(),
                primary: self.key(),
            }),
            8 => Body::CollectGarbage(CollectGarbage {
                floor_ts: self.timestamp(),
                collect_below_ts: self.timestamp(),
                start_key: self.any_key(),
                end_key: self.any_key(),
            }),
            9 => Body::HeartbeatLock(HeartbeatLock {
                primary: self.key(),
                start_ts: self.timestamp(),
                alive_until_ms: self.large(),
            }),
            _ => Body::AcquireLocks(AcquireLocks {
                start_ts: self.timestamp(),
                primary: self.key(),
                keys: self.few(Self::key),
                for_update_ts: self.timestamp(),
                alive_until_ms: self.large(),
            }),
        }
    }

    fn condition(&mut self) -> Condition {
        use condition::Test;
        let test = match self.rng.u32(0..ODD_ONE_IN) {
            0 => Some(Test::Exists(self.rng.bool())),
            1 => Some(Test::Version(self.rng.u64(0..3))),
            2 => Some(Test::ModTs(self.timestamp())),
            3 => Some(Test::Value(self.value())),
            4 => None,
            _ => Some(Test::Exists(self.rng.u32(0..4) > 0)),
        };
        Condition { key: self.key(), test }
    }

    fn operation(&mut self) -> Operation {
        use operation::Body;
        let body = match self.rng.u32(0..ODD_ONE_IN) {
            3.. => Some(Body::Put(Put {
                key: self.key(),
                value: self.value(),
                lease_id: u64::from(self.rng.u32(0..ODD_ONE_IN) == 0),
            })),
            2 => Some(Body::Delete(Delete { key: self.key() })),
            1 => {
                Some(Body::DeleteRange(DeleteRange { start_key: self.key(), end_key: self.key() }))
            }
            0 => None,
        };
        Operation { body }
    }

    fn read_check(&mut self) -> ReadCheck {
        let (start_key, end_key) = (self.any_key(), self.any_key());
        ReadCheck { start_key, end_key, read_ts: self.timestamp() }
    }

    fn range(&mut self) -> Option<RangeHeader> {
        match self.rng.u32(0..ODD_ONE_IN) {
            0 => None,
            1 => Some(RangeHeader { range_id: self.rng.u64(0..9), epoch: self.home.epoch }),
            2 => Some(RangeHeader { range_id: u64::MAX, epoch: None }),
            3 => {
                let epoch = Some(Epoch { version: self.large(), conf_ver: self.large() });
                Some(RangeHeader { epoch, ..self.home })
            }
            _ => Some(self.home),
        }
    }

    /// Draws one of the keys that this client writes.
    fn key(&mut self) -> Bytes {
        let from = if self.unlocked_keys { KEYS } else { 0 };
        format!("{}{}", self.prefix, self.rng.u32(from..from + KEYS)).into()
    }

    fn any_key(&mut self) -> Bytes {
        match self.rng.u32(0..ODD_ONE_IN) {
            0 => Bytes::new(),
            1 => Bytes::from_static(b"_/cluster/id"),
            2 => Bytes::from_static(b"_/"),
            3 => vec![0xff; self.rng.usize(1..9000)].into(),
            4 => vec![0].into(),
            _ => self.key(),
        }
    }

    fn value(&mut self) -> Bytes {
        vec![self.rng.u8(..); *self.one_of(&[0, 9, LONG_VALUES[0], LONG_VALUES[1]])].into()
    }

    /// Draws a timestamp that was handed out, one near it, or one that nobody handed out.
    fn timestamp(&mut self) -> u64 {
        let known = match self.timestamps.len() {
            0 => 0,
            count => self.timestamps[self.rng.usize(0..count)],
        };
        match self.rng.u32(0..ODD_ONE_IN) {
            0 => 0,
            1 => 1,
            2 => u64::MAX,
            3 => i64::MAX as u64,
            4 => known.saturating_add(1 << self.rng.u32(0..40)),
            5 => known.saturating_sub(1 << self.rng.u32(0..40)),
            _ => known,
        }
    }

    fn large(&mut self) -> u64 {
        let draw = self.rng.u64(..);
        *self.one_of(&[0, 1, 1 << 20, u64::MAX, draw])
    }

    fn few_or_many(&mut self) -> u32 {
        let draw = self.rng.u32(..);
        *self.one_of(&[0, 1, 1, 1, 1, 2, 2, 2, u32::MAX, draw])
    }

    fn few<T>(&mut self, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = *self.one_of(&[0, 1, 1, 2, 3]);
        (0..count).map(|_| one(self)).collect()
    }

    fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.rng.usize(0..choices.len())]
    }
}

fn holds(range: &RangeDescriptor, key: &[u8]) -> bool {
    range.start_key <= key && (range.end_key.is_empty() || key < range.end_key)
}
