//! Two ranges, an oracle, and a network that loses, repeats and delays.

use std::collections::BTreeMap;

use bytes::Bytes;
use rangedb_proto::Timestamp;
use rangedb_proto::v1::transaction_status::State;
use rangedb_proto::v1::{
    AcquireLocks, CheckTransaction, CollectGarbage, KeyLocked, ResolveLocks, RollbackKeys,
    Validate, command, command_reply,
};
use rangedb_storage::Direction;
use rangedb_txn::{
    Locks, Page, ReadAt, ReadOutcome, ScanRequest, ValidateOutcome, locks, scan, validate,
};

use super::history::{Version, stored_versions};
use super::plan::KEYS;
use super::resolver::Resolver;
use crate::support::logged::Logged;

/// Lifetime of a lock, in the oracle's milliseconds. Now and then a transaction takes longer.
pub const ALIVE_MS: u64 = 400;

/// Start key of the second range.
const BOUND: &[u8] = b"m";

/// Resolvers of asynchronous commits at once, at most.
const RESOLVERS_MAX: usize = 6;

/// Requests that are kept for late delivery.
const LATE_MAX: usize = 20;

pub struct Cluster {
    pub rng: fastrand::Rng,
    pub ranges: [Logged; 2],
    oracle: Timestamp,
    is_faulty: bool,
    late: Vec<(usize, command::Body)>,
    /// True if floors rise in this run. In some runs they do not, so that no transaction is too
    /// old.
    collects: bool,
    resolvers: Vec<Resolver>,
    /// Versions that existed before garbage was collected, by key and commit timestamp.
    pub archive: BTreeMap<(Bytes, u64), Version>,
}

/// State of a transaction whose lock blocked a request.
pub enum Obstacle {
    /// It cannot commit at or below the timestamp at which the client reads.
    Alive,
    Gone,
    Unknown,
}

/// Reason why a read was not answered.
pub enum Refused {
    Locked(KeyLocked),
    TooOld,
}

pub fn range_of(key: &[u8]) -> usize {
    usize::from(key >= BOUND)
}

impl Cluster {
    pub fn new(seed: u64) -> Self {
        Cluster {
            rng: fastrand::Rng::with_seed(seed),
            ranges: [Logged::new(seed, b"", BOUND), Logged::new(seed, BOUND, b"")],
            oracle: Timestamp::from_millis(10_000),
            is_faulty: true,
            late: Vec::new(),
            collects: !seed.is_multiple_of(3),
            resolvers: Vec::new(),
            archive: BTreeMap::new(),
        }
    }

    /// Returns a new timestamp.
    pub fn timestamp(&mut self) -> u64 {
        self.oracle = self.oracle.next();
        self.oracle.0
    }

    /// Returns a new timestamp at or above `least`: a range's min_commit_ts may be ahead of the
    /// oracle.
    pub fn timestamp_from(&mut self, least: u64) -> u64 {
        self.oracle = self.oracle.max(Timestamp(least - 1));
        self.timestamp()
    }

    pub fn alive_until_ms(&self) -> u64 {
        self.oracle.millis() + ALIVE_MS
    }

    /// Does what happens between the steps of transactions.
    pub fn pass_time(&mut self) {
        if self.rng.u32(0..10) == 0 {
            self.oracle = Timestamp::from_millis(self.oracle.millis() + self.rng.u64(1..100));
        }
        if self.rng.u32(0..20) == 0 {
            let range = self.rng.usize(0..2);
            self.ranges[range].disturb(&mut self.rng);
        }
        if self.rng.u32(0..4) == 0 && !self.resolvers.is_empty() {
            let resolver = self.resolvers.swap_remove(self.rng.usize(0..self.resolvers.len()));
            // Now and then a resolver dies on the way.
            if self.rng.u32(0..20) > 0 {
                let next = resolver.step(self);
                self.resolvers.extend(next);
            }
        }
        if self.collects && self.rng.u32(0..30) == 0 {
            self.raise_floor();
        }
        if self.rng.u32(0..10) == 0 && !self.late.is_empty() {
            let (range, command) = self.late.swap_remove(self.rng.usize(0..self.late.len()));
            self.ranges[range].apply(command);
        }
    }

    /// Raises the floor of one range. Collects garbage below both floors if no range has a lock
    /// from there.
    fn raise_floor(&mut self) {
        let millis = self.oracle.millis() - self.rng.u64(0..5 * ALIVE_MS);
        let floor_ts = Timestamp::from_millis(millis).0;
        let range = self.rng.usize(0..2);
        let collect = CollectGarbage { floor_ts, ..Default::default() };
        self.ranges[range].apply(command::Body::CollectGarbage(collect));
        let floor_ts = self.ranges.each_ref().map(|range| range.floors().floor_ts);
        let below = floor_ts[0].min(floor_ts[1]);
        let is_locked = |range: &Logged| {
            below == 0 || !locks(&range.replica.state, (b"", b""), 1, below).unwrap().0.is_empty()
        };
        if self.ranges.iter().any(is_locked) {
            return;
        }
        // Keep the versions that will be dropped, for the check at the end.
        self.archive.extend(stored_versions(&self.ranges));
        for (range, floor_ts) in self.ranges.iter_mut().zip(floor_ts) {
            let collect =
                CollectGarbage { floor_ts, collect_below_ts: below, ..Default::default() };
            range.apply(command::Body::CollectGarbage(collect));
        }
    }

    /// Sends a command to a range. `None`: no answer came; the command may have been applied, or
    /// may still be.
    pub fn send(&mut self, range: usize, command: command::Body) -> Option<command_reply::Body> {
        let fault = if self.is_faulty { self.rng.u32(0..100) } else { 0 };
        if (70..82).contains(&fault) && self.late.len() < LATE_MAX {
            self.late.push((range, command.clone()));
        }
        if (76..86).contains(&fault) {
            return None;
        }
        let reply = match fault {
            86..92 => {
                self.ranges[range].apply(command.clone());
                self.ranges[range].apply(command)
            }
            _ => self.ranges[range].apply(command),
        };
        (fault < 94).then(|| reply.body.unwrap())
    }

    /// Reads all rows of a span of one range at a timestamp, unless a lock is in the way.
    pub fn read(
        &mut self,
        (start, end): (Bytes, Bytes),
        read_ts: u64,
        passed: &[u64],
    ) -> Result<Vec<(Bytes, Bytes)>, Refused> {
        let range = &mut self.ranges[range_of(&start)];
        range.fence = range.fence.max(read_ts);
        let mut request = ScanRequest {
            start,
            end,
            limit: self.rng.u64(0..3),
            bytes_max: 0,
            direction: Direction::Forward,
            keys_only: false,
            at: ReadAt::Timestamp(Timestamp(read_ts)),
            locks: Locks::InTheWay { but_of: passed.to_vec() },
        };
        let mut rows = Vec::new();
        loop {
            match scan(&range.replica.state, range.replica.start_key(), &request).unwrap() {
                ReadOutcome::Locked(locked) => return Err(Refused::Locked(locked)),
                ReadOutcome::TooOld { .. } => return Err(Refused::TooOld),
                ReadOutcome::Value(Page { kvs, next, .. }) => {
                    rows.extend(kvs.into_iter().map(|kv| (kv.key, kv.value)));
                    match next {
                        None => return Ok(rows),
                        Some(next) => request.start = next,
                    }
                }
            }
        }
    }

    pub fn validate(&mut self, range: usize, request: &Validate) -> ValidateOutcome {
        let range = &mut self.ranges[range];
        range.fence = range.fence.max(request.commit_ts);
        validate(&range.replica.state, range.replica.start_key(), request).unwrap()
    }

    /// Asks the primary about the transaction in the way, and resolves its lock if it has ended.
    pub fn resolve(&mut self, locked: &KeyLocked, push_above_ts: u64) -> Obstacle {
        let now_ts = self.timestamp();
        let check = CheckTransaction {
            primary: locked.primary.clone(),
            start_ts: locked.start_ts,
            now_ts,
            push_above_ts,
            met_alive_until_ms: if self.rng.bool() { locked.alive_until_ms } else { 0 },
        };
        let primary = range_of(&locked.primary);
        let commit_ts = match self.send(primary, command::Body::CheckTransaction(check)) {
            None => return Obstacle::Unknown,
            Some(command_reply::Body::TransactionStatus(status)) if status.async_commit => {
                // It may be committed, whatever the time. If it has expired, all of its locks
                // decide.
                let is_over = Timestamp(now_ts).millis() > status.alive_until_ms;
                if is_over && self.resolvers.len() < RESOLVERS_MAX {
                    let (start_ts, primary) = (locked.start_ts, locked.primary.clone());
                    self.resolvers.push(Resolver::new(start_ts, primary, status));
                }
                return Obstacle::Unknown;
            }
            Some(command_reply::Body::TransactionStatus(status)) => match status.state() {
                State::Alive if status.min_commit_ts > push_above_ts => return Obstacle::Alive,
                State::Alive => return Obstacle::Unknown,
                State::Committed => status.commit_ts,
                State::RolledBack => 0,
            },
            // The transaction ended long ago, and its lock is gone.
            Some(command_reply::Body::TooOld(_)) => return Obstacle::Unknown,
            other => panic!("{other:?}"),
        };
        let mut resolve =
            ResolveLocks { start_ts: locked.start_ts, commit_ts, ..Default::default() };
        // Resolve the lock that was met, or all locks of the transaction in the range.
        if self.rng.bool() {
            resolve.keys.push(locked.key.clone());
        }
        match self.send(range_of(&locked.key), command::Body::ResolveLocks(resolve)) {
            None => Obstacle::Unknown,
            Some(command_reply::Body::Resolved(_)) => Obstacle::Gone,
            other => panic!("{other:?}"),
        }
    }

    /// Delivers everything in flight, and decides everything undecided: a client that wants to
    /// write every key resolves all locks.
    pub fn settle(&mut self) {
        for (range, command) in std::mem::take(&mut self.late) {
            self.ranges[range].apply(command);
        }
        self.is_faulty = false;
        self.oracle = Timestamp::from_millis(self.oracle.millis() + 2 * ALIVE_MS);
        for key in KEYS.map(Bytes::from_static) {
            let (start_ts, range, keys) = (self.timestamp(), range_of(&key), vec![key.clone()]);
            let acquire = AcquireLocks {
                start_ts,
                primary: key,
                keys: keys.clone(),
                for_update_ts: start_ts,
                alive_until_ms: 0,
            };
            while let Some(command_reply::Body::Locked(locked)) =
                self.send(range, command::Body::AcquireLocks(acquire.clone()))
            {
                self.resolve(&locked, 0);
                while let Some(resolver) = self.resolvers.pop() {
                    let next = resolver.step(self);
                    self.resolvers.extend(next);
                }
            }
            self.send(range, command::Body::RollbackKeys(RollbackKeys { start_ts, keys }));
        }
    }

    pub fn check_replicas(&mut self) {
        for range in &self.ranges {
            range.check_second_replica(&mut self.rng);
        }
    }
}
