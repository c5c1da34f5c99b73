//! Random commands and scans over few keys, so that they meet often.

use bytes::Bytes;
use rangedb_proto::v1::condition::Test;
use rangedb_proto::v1::{
    CollectGarbage, CommitOneRange, Condition, Delete, DeleteRange, Operation, Put, operation::Body,
};
use rangedb_storage::Direction;
use rangedb_txn::{Locks, ReadAt, ScanRequest};

use crate::support::operation;

/// Keys next to the escape bytes, keys that are prefixes of each other, and two outside the range.
const KEYS: [&[u8]; 12] = [
    b"a",
    b"b",
    b"b\x00",
    b"b\x00\x01",
    b"b\x00\xff",
    b"bb",
    b"c",
    b"c\xff",
    b"d",
    b"m",
    b"x\xff",
    b"y",
];

/// Number of sent commands from which a repeated one is drawn.
const SENT_MAX: usize = 40;

pub struct Draw {
    pub rng: fastrand::Rng,
    oracle: u64,
    /// Commands that were sent before.
    sent: Vec<CommitOneRange>,
    /// Commands that took their start_ts and are still in flight.
    delayed: Vec<CommitOneRange>,
}

impl Draw {
    pub fn new(seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Draw { rng, oracle: 10, sent: Vec::new(), delayed: Vec::new() }
    }

    /// Returns the newest timestamp of the oracle.
    pub fn now(&self) -> u64 {
        self.oracle
    }

    /// Returns a new command, a delayed one, a repeated one, or one that no client should send:
    /// with the start_ts of another command, or with one from the future.
    pub fn command(&mut self) -> CommitOneRange {
        if self.rng.u32(0..8) == 0 && !self.sent.is_empty() {
            return self.reused();
        }
        let command = match self.rng.u32(0..10) {
            0..2 if !self.sent.is_empty() => {
                return self.sent[self.rng.usize(0..self.sent.len())].clone();
            }
            2..4 if !self.delayed.is_empty() => {
                self.delayed.swap_remove(self.rng.usize(0..self.delayed.len()))
            }
            4 => {
                let held_up = self.new_command();
                self.delayed.push(held_up);
                self.new_command()
            }
            _ => self.new_command(),
        };
        if self.sent.len() < SENT_MAX {
            self.sent.push(command.clone());
        } else {
            let place = self.rng.usize(0..SENT_MAX);
            self.sent[place] = command.clone();
        }
        command
    }

    fn reused(&mut self) -> CommitOneRange {
        let mut sent = self.sent[self.rng.usize(0..self.sent.len())].clone();
        match self.rng.u32(0..5) {
            0 => sent.operations.push(self.operation()),
            1 => _ = sent.operations.pop(),
            2 => sent.operations = vec![self.operation()],
            3 => sent.return_previous = !sent.return_previous,
            _ => sent.start_ts = self.oracle + self.rng.u64(0..30),
        }
        sent
    }

    fn new_command(&mut self) -> CommitOneRange {
        self.oracle += self.rng.u64(1..5);
        let conditions = if self.rng.u32(0..3) == 0 { self.rng.usize(1..3) } else { 0 };
        let operations = if self.rng.u32(0..20) == 0 { 0 } else { self.rng.usize(1..5) };
        CommitOneRange {
            start_ts: self.oracle,
            conditions: (0..conditions).map(|_| self.condition()).collect(),
            operations: (0..operations).map(|_| self.operation()).collect(),
            return_previous: self.rng.bool(),
            reads: Vec::new(),
        }
    }

    /// Draws floors of some commands ago, and a part of the range or all of it.
    pub fn collect(&mut self) -> CollectGarbage {
        let floor_ts = self.oracle.saturating_sub(self.rng.u64(0..100)).max(1);
        let below = match self.rng.u32(0..4) {
            0 => 0,
            1 => self.rng.u64(0..=floor_ts),
            _ => floor_ts,
        };
        let inside = |place: usize| Bytes::from_static(KEYS[place]);
        let (start, end) = (self.rng.usize(1..KEYS.len() - 1), self.rng.usize(1..KEYS.len()));
        let (start_key, end_key) = match start < end && self.rng.bool() {
            true => (inside(start), inside(end)),
            false => Default::default(),
        };
        CollectGarbage { floor_ts, collect_below_ts: below, start_key, end_key }
    }

    /// Draws a key, rarely one outside the range.
    pub fn key(&mut self) -> Bytes {
        let inside = 1..KEYS.len() - 1;
        let place = match self.rng.u32(0..60) {
            0 => self.rng.usize(0..KEYS.len()),
            _ => self.rng.usize(inside),
        };
        Bytes::from_static(KEYS[place])
    }

    /// Draws one of few values, so that conditions hold now and then. Some stand apart from their
    /// records.
    fn value(&mut self) -> Bytes {
        let length = [0, 1, 1, 1, 512, 513][self.rng.usize(0..6)];
        vec![if self.rng.bool() { b'x' } else { b'y' }; length].into()
    }

    fn condition(&mut self) -> Condition {
        let test = match self.rng.u32(0..4) {
            0 => Test::Exists(self.rng.bool()),
            1 => Test::Version(self.rng.u64(0..4)),
            2 => Test::ModTs(if self.rng.bool() { 0 } else { self.rng.u64(0..=self.oracle) }),
            _ => Test::Value(self.value()),
        };
        Condition { key: self.key(), test: Some(test) }
    }

    fn operation(&mut self) -> Operation {
        let key = self.key();
        operation(match self.rng.u32(0..10) {
            0..6 => Body::Put(Put { key, value: self.value(), lease_id: 0 }),
            6..9 => Body::Delete(Delete { key }),
            _ => Body::DeleteRange(DeleteRange { start_key: key, end_key: self.end_key() }),
        })
    }

    fn end_key(&mut self) -> Bytes {
        if self.rng.u32(0..4) == 0 { Bytes::new() } else { self.key() }
    }

    pub fn scan(&mut self, at: ReadAt) -> ScanRequest {
        ScanRequest {
            start: self.end_key(),
            end: self.end_key(),
            limit: self.rng.u64(0..4),
            bytes_max: if self.rng.bool() { 0 } else { self.rng.u64(1..1500) },
            direction: if self.rng.bool() { Direction::Forward } else { Direction::Reverse },
            keys_only: self.rng.u32(0..4) == 0,
            at,
            locks: Locks::Ignored,
        }
    }
}
