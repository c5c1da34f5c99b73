//! Coordinator that takes one step at a time, and gives up easily.

use bytes::Bytes;
use rangedb_proto::v1::command::Body as CommandBody;
use rangedb_proto::v1::command_reply::Body as Answer;
use rangedb_proto::v1::transaction_status::State;
use rangedb_proto::v1::{
    AcquireLocks, CheckTransaction, CommitKeys, CommitOneRange, HeartbeatLock, Prewrite, ReadCheck,
    RollbackKeys, Validate,
};
use rangedb_txn::ValidateOutcome;

use super::cluster::{Cluster, Obstacle, Refused, range_of};
use super::plan::{Kind, Plan};

/// Reads, writes and outcome of a transaction, for the check at the end.
#[derive(Debug)]
pub struct Record {
    pub start_ts: u64,
    pub plan: Plan,
    pub reads: Vec<Read>,
    /// No other transaction may commit a version of a written key between this timestamp and the
    /// transaction's own commit.
    pub conflicts_from: u64,
    pub told: ReportedOutcome,
}

#[derive(Debug)]
pub struct Read {
    pub start: Bytes,
    /// Exclusive; empty for just the key at `start`.
    pub end: Bytes,
    pub read_ts: u64,
    /// True for a read by a lock request, which shows the value while the lock stood.
    pub locked: bool,
    pub rows: Vec<(Bytes, Bytes)>,
}

/// Outcome that the client was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReportedOutcome {
    Committed(u64),
    Aborted,
    Undetermined,
}

/// Next step of the coordinator; the lists hold the ranges in which the step is not done yet.
#[derive(Clone, Debug)]
enum Stage {
    Lock {
        todo: Vec<usize>,
        for_update_ts: u64,
    },
    Read {
        done: usize,
    },
    CommitOneRange,
    Prewrite {
        todo: Vec<usize>,
        min_commit_ts: u64,
    },
    Validate {
        todo: Vec<usize>,
        commit_ts: u64,
    },
    CommitPrimary {
        commit_ts: u64,
    },
    AskPrimary {
        commit_ts: u64,
    },
    /// An asynchronous commit that the coordinator did not complete: others may complete it by now.
    GiveUp,
    CommitSecondaries {
        commit_ts: u64,
    },
    RollBack {
        todo: Vec<usize>,
    },
    Done,
}

pub struct Coordinator {
    record: Record,
    /// Transactions that are known to commit above this one's read timestamp.
    passed: Vec<u64>,
    stage: Stage,
}

impl Coordinator {
    pub fn begin(cluster: &mut Cluster) -> Self {
        let start_ts = cluster.timestamp();
        let plan = Plan::draw(&mut cluster.rng, start_ts);
        let stage = match plan.kind {
            Kind::Pessimistic => {
                Stage::Lock { todo: plan.ranges(), for_update_ts: cluster.timestamp() }
            }
            Kind::OneRange | Kind::TwoPhase => Stage::Read { done: 0 },
        };
        let told = ReportedOutcome::Aborted;
        let record = Record { start_ts, plan, reads: Vec::new(), conflicts_from: start_ts, told };
        Coordinator { record, passed: Vec::new(), stage }
    }

    pub fn into_record(self) -> Record {
        self.record
    }

    /// Takes the next step. True if nothing is left to do, or the coordinator died.
    pub fn step(&mut self, cluster: &mut Cluster) -> bool {
        self.stage = match self.stage.clone() {
            Stage::Lock { todo, for_update_ts } => self.lock(cluster, todo, for_update_ts),
            Stage::Read { done } => self.read(cluster, done),
            Stage::CommitOneRange => self.commit_one_range(cluster),
            Stage::Prewrite { todo, min_commit_ts } => self.prewrite(cluster, todo, min_commit_ts),
            Stage::Validate { todo, commit_ts } => self.validate(cluster, todo, commit_ts),
            Stage::CommitPrimary { commit_ts } => self.commit_primary(cluster, commit_ts),
            Stage::AskPrimary { commit_ts } => self.ask_primary(cluster, commit_ts),
            Stage::CommitSecondaries { commit_ts } => self.commit_secondaries(cluster, commit_ts),
            Stage::GiveUp => self.give_up(cluster),
            Stage::RollBack { todo } => self.roll_back(cluster, todo),
            Stage::Done => Stage::Done,
        };
        // A coordinator that dies with some of its locks in place leaves the most to resolve.
        let dies = if let Stage::Prewrite { .. } = self.stage { 5 } else { 1 };
        matches!(self.stage, Stage::Done) || cluster.rng.u32(0..100) < dies
    }

    fn lock(&mut self, cluster: &mut Cluster, mut todo: Vec<usize>, for_update_ts: u64) -> Stage {
        let Some(range) = todo.last().copied() else { return Stage::Read { done: 0 } };
        let keys = self.record.plan.keys(range);
        let ask = AcquireLocks {
            start_ts: self.record.start_ts,
            primary: self.record.plan.primary.clone(),
            keys,
            for_update_ts,
            alive_until_ms: cluster.alive_until_ms(),
        };
        self.record.conflicts_from = self.record.conflicts_from.max(for_update_ts);
        match cluster.send(range, CommandBody::AcquireLocks(ask)) {
            Some(Answer::LocksAcquired(acquired)) => {
                for kv in acquired.current {
                    let value = (kv.version > 0).then_some((kv.key.clone(), kv.value));
                    let rows = value.into_iter().collect();
                    let (start, end, read_ts) = (kv.key, Bytes::new(), for_update_ts);
                    self.record.reads.push(Read { start, end, read_ts, locked: true, rows });
                }
                todo.pop();
                Stage::Lock { todo, for_update_ts }
            }
            Some(Answer::WriteConflict(_)) => {
                Stage::Lock { todo, for_update_ts: cluster.timestamp() }
            }
            Some(Answer::Locked(locked)) => {
                cluster.resolve(&locked, 0);
                self.again_or_not(cluster, Stage::Lock { todo, for_update_ts })
            }
            None => self.again_or_not(cluster, Stage::Lock { todo, for_update_ts }),
            Some(Answer::Aborted(_) | Answer::TooOld(_)) => self.rolling_back(),
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self, cluster: &mut Cluster, done: usize) -> Stage {
        let plan = &self.record.plan;
        let Some((start, end)) = plan.reads.get(done).cloned() else {
            return match plan.kind {
                _ if plan.writes.is_empty() => Stage::Done,
                Kind::OneRange => Stage::CommitOneRange,
                Kind::TwoPhase | Kind::Pessimistic => {
                    Stage::Prewrite { todo: plan.ranges(), min_commit_ts: 0 }
                }
            };
        };
        let read_ts = self.record.start_ts;
        let until =
            if end.is_empty() { [&start[..], b"\x00"].concat().into() } else { end.clone() };
        // Its own pessimistic locks do not block it.
        match cluster.read((start.clone(), until), read_ts, &self.passed) {
            Ok(rows) => {
                self.record.reads.push(Read { start, end, read_ts, locked: false, rows });
                Stage::Read { done: done + 1 }
            }
            Err(Refused::TooOld) => self.rolling_back(),
            Err(Refused::Locked(locked)) => {
                if let Obstacle::Alive = cluster.resolve(&locked, read_ts) {
                    self.passed.push(locked.start_ts);
                }
                Stage::Read { done }
            }
        }
    }

    fn commit_one_range(&mut self, cluster: &mut Cluster) -> Stage {
        let Record { plan, start_ts, .. } = &self.record;
        let range = range_of(&plan.primary);
        let commit = CommitOneRange {
            start_ts: *start_ts,
            conditions: Vec::new(),
            operations: plan.operations(range),
            return_previous: cluster.rng.bool(),
            reads: match plan.serializable {
                true => self.checks(range),
                // Under snapshot isolation: no other transaction wrote the keys that this one
                // writes.
                false => self.write_checks(),
            },
        };
        // Whatever the answers say, a copy in flight may succeed where the others failed.
        self.record.told = ReportedOutcome::Undetermined;
        match cluster.send(range, CommandBody::CommitOneRange(commit)) {
            Some(Answer::Committed(committed)) => {
                self.record.told = ReportedOutcome::Committed(committed.commit_ts);
                Stage::Done
            }
            Some(Answer::Locked(locked)) => {
                cluster.resolve(&locked, 0);
                self.again_or(cluster, Stage::CommitOneRange, Stage::Done)
            }
            // If it was committed before, that was too long ago to tell.
            Some(Answer::WriteConflict(_) | Answer::TooOld(_)) => Stage::Done,
            None => self.again_or(cluster, Stage::CommitOneRange, Stage::Done),
            other => panic!("{other:?}"),
        }
    }

    fn prewrite(&mut self, cluster: &mut Cluster, mut todo: Vec<usize>, least: u64) -> Stage {
        let Some(place) = (!todo.is_empty()).then(|| cluster.rng.usize(0..todo.len())) else {
            if self.record.plan.asynchronous {
                // A transaction that begins after the client was told must see this one.
                cluster.timestamp_from(least);
                self.record.told = ReportedOutcome::Committed(least);
                return Stage::CommitPrimary { commit_ts: least };
            }
            return self.committing(cluster.timestamp_from(least));
        };
        let (plan, range) = (&self.record.plan, todo[place]);
        let is_pessimistic = plan.kind == Kind::Pessimistic;
        let asynchronous = plan.asynchronous;
        let has_primary = range == range_of(&plan.primary);
        let secondaries = if asynchronous && has_primary { plan.secondaries() } else { Vec::new() };
        let ask = Prewrite {
            async_commit: asynchronous,
            min_commit_ts: 0,
            secondaries,
            start_ts: self.record.start_ts,
            primary: plan.primary.clone(),
            conditions: Vec::new(),
            operations: plan.operations(range),
            alive_until_ms: cluster.alive_until_ms(),
            for_update_ts: if is_pessimistic { self.record.conflicts_from } else { 0 },
        };
        if asynchronous {
            // From here on, any client that finds its locks may commit it.
            self.record.told = ReportedOutcome::Undetermined;
        }
        let again = Stage::Prewrite { todo: todo.clone(), min_commit_ts: least };
        match cluster.send(range, CommandBody::Prewrite(ask)) {
            Some(Answer::Prewritten(prewritten)) => {
                assert_eq!(prewritten.async_commit, asynchronous);
                todo.remove(place);
                Stage::Prewrite { todo, min_commit_ts: least.max(prewritten.min_commit_ts) }
            }
            Some(Answer::Locked(locked)) => {
                cluster.resolve(&locked, 0);
                self.again_or_not(cluster, again)
            }
            // All of its locks stood, unknown to this coordinator, and a resolver committed them.
            Some(Answer::Committed(committed)) if asynchronous => self.decided(committed.commit_ts),
            Some(Answer::WriteConflict(_) | Answer::Aborted(_) | Answer::TooOld(_)) => {
                self.rolling_back()
            }
            None => self.again_or_not(cluster, again),
            other => panic!("{other:?}"),
        }
    }

    fn committing(&self, commit_ts: u64) -> Stage {
        match self.record.plan.serializable {
            true => Stage::Validate { todo: vec![0, 1], commit_ts },
            false => Stage::CommitPrimary { commit_ts },
        }
    }

    fn validate(&mut self, cluster: &mut Cluster, mut todo: Vec<usize>, commit_ts: u64) -> Stage {
        let Some(range) = todo.pop() else { return Stage::CommitPrimary { commit_ts } };
        let start_ts = self.record.start_ts;
        let reads = self.checks(range);
        let request = Validate { start_ts, commit_ts, reads, ..Default::default() };
        match cluster.validate(range, &request) {
            ValidateOutcome::Unchanged => Stage::Validate { todo, commit_ts },
            ValidateOutcome::Conflict(_) => self.rolling_back(),
            ValidateOutcome::Locked(locked) => {
                cluster.resolve(&locked, commit_ts);
                todo.push(range);
                self.again_or_not(cluster, Stage::Validate { todo, commit_ts })
            }
            ValidateOutcome::TooOld { .. } => self.rolling_back(),
            ValidateOutcome::Unfinished(_) => panic!("there are few keys"),
        }
    }

    fn commit_primary(&mut self, cluster: &mut Cluster, commit_ts: u64) -> Stage {
        let start_ts = self.record.start_ts;
        let primary = self.record.plan.primary.clone();
        let range = range_of(&primary);
        if cluster.rng.u32(0..4) == 0 {
            let alive_until_ms = cluster.alive_until_ms();
            let heartbeat = HeartbeatLock { primary, start_ts, alive_until_ms };
            cluster.send(range, CommandBody::HeartbeatLock(heartbeat));
        }
        // From here on it may be committed. An asynchronous commit already is.
        if !self.record.plan.asynchronous {
            self.record.told = ReportedOutcome::Undetermined;
        }
        let keys = self.record.plan.keys(range);
        match cluster.send(range, CommandBody::CommitKeys(CommitKeys { start_ts, commit_ts, keys }))
        {
            Some(Answer::Committed(committed)) => self.decided(committed.commit_ts),
            Some(Answer::CommitTooLow(_) | Answer::Aborted(_)) if self.record.plan.asynchronous => {
                panic!("{start_ts} was committed at {commit_ts} by its locks")
            }
            Some(Answer::CommitTooLow(_)) => self.committing(cluster.timestamp()),
            Some(Answer::Aborted(_)) => self.rolling_back(),
            Some(Answer::TooOld(_)) => Stage::Done,
            None => match cluster.rng.bool() {
                true => Stage::AskPrimary { commit_ts },
                false => Stage::CommitPrimary { commit_ts },
            },
            other => panic!("{other:?}"),
        }
    }

    fn ask_primary(&mut self, cluster: &mut Cluster, commit_ts: u64) -> Stage {
        let primary = self.record.plan.primary.clone();
        let range = range_of(&primary);
        let (start_ts, now_ts) = (self.record.start_ts, cluster.timestamp());
        let check =
            CheckTransaction { primary, start_ts, now_ts, push_above_ts: 0, met_alive_until_ms: 0 };
        match cluster.send(range, CommandBody::CheckTransaction(check)) {
            Some(Answer::TransactionStatus(status)) => match status.state() {
                State::Alive => Stage::CommitPrimary { commit_ts },
                State::Committed => self.decided(status.commit_ts),
                State::RolledBack => self.rolling_back(),
            },
            Some(Answer::TooOld(_)) => Stage::Done,
            None => self.again_or(cluster, Stage::AskPrimary { commit_ts }, Stage::Done),
            other => panic!("{other:?}"),
        }
    }

    fn decided(&mut self, commit_ts: u64) -> Stage {
        if let ReportedOutcome::Committed(told) = self.record.told {
            assert_eq!(told, commit_ts, "of {}", self.record.start_ts);
        }
        self.record.told = ReportedOutcome::Committed(commit_ts);
        Stage::CommitSecondaries { commit_ts }
    }

    fn commit_secondaries(&mut self, cluster: &mut Cluster, commit_ts: u64) -> Stage {
        let start_ts = self.record.start_ts;
        for range in self.record.plan.ranges().into_iter().skip(1) {
            let keys = self.record.plan.keys(range);
            match cluster
                .send(range, CommandBody::CommitKeys(CommitKeys { start_ts, commit_ts, keys }))
            {
                // Too old: a resolver committed the lock, and the version was superseded and
                // collected.
                None | Some(Answer::TooOld(_)) => {}
                Some(Answer::Committed(committed)) => assert_eq!(committed.commit_ts, commit_ts),
                other => panic!("{start_ts} was committed at {commit_ts}, not {other:?}"),
            }
        }
        Stage::Done
    }

    fn rolling_back(&mut self) -> Stage {
        if self.record.plan.asynchronous && self.record.told == ReportedOutcome::Undetermined {
            return Stage::GiveUp;
        }
        self.record.told = ReportedOutcome::Aborted;
        Stage::RollBack { todo: self.record.plan.ranges() }
    }

    /// Rolls back the primary first and alone. If that succeeds, the transaction is not committed
    /// and never will be.
    fn give_up(&mut self, cluster: &mut Cluster) -> Stage {
        let Record { start_ts, plan, .. } = &self.record;
        let rollback = RollbackKeys { start_ts: *start_ts, keys: vec![plan.primary.clone()] };
        match cluster.send(range_of(&plan.primary), CommandBody::RollbackKeys(rollback)) {
            Some(Answer::Resolved(_)) => {
                self.record.told = ReportedOutcome::Aborted;
                Stage::RollBack { todo: self.record.plan.ranges() }
            }
            Some(Answer::Committed(committed)) => self.decided(committed.commit_ts),
            Some(Answer::TooOld(_)) => Stage::Done,
            None => self.again_or(cluster, Stage::GiveUp, Stage::Done),
            other => panic!("{other:?}"),
        }
    }

    fn roll_back(&mut self, cluster: &mut Cluster, mut todo: Vec<usize>) -> Stage {
        let Some(range) = todo.pop() else { return Stage::Done };
        let (start_ts, keys) = (self.record.start_ts, self.record.plan.keys(range));
        match cluster.send(range, CommandBody::RollbackKeys(RollbackKeys { start_ts, keys })) {
            None | Some(Answer::Resolved(_) | Answer::TooOld(_)) => Stage::RollBack { todo },
            other => panic!("{start_ts} was given up, not {other:?}"),
        }
    }

    /// Returns the checks of what the transaction read in the range.
    fn checks(&self, range: usize) -> Vec<ReadCheck> {
        let own = self.record.reads.iter().filter(|read| range_of(&read.start) == range);
        let check = |read: &Read| ReadCheck {
            start_key: read.start.clone(),
            end_key: read.end.clone(),
            read_ts: read.read_ts,
        };
        own.map(check).collect()
    }

    fn write_checks(&self) -> Vec<ReadCheck> {
        let Record { plan, start_ts, .. } = &self.record;
        let check = |key: &Bytes| ReadCheck {
            start_key: key.clone(),
            end_key: Bytes::new(),
            read_ts: *start_ts,
        };
        plan.writes.keys().map(check).collect()
    }

    fn again_or_not(&mut self, cluster: &mut Cluster, again: Stage) -> Stage {
        let otherwise = self.rolling_back();
        self.again_or(cluster, again, otherwise)
    }

    fn again_or(&self, cluster: &mut Cluster, again: Stage, otherwise: Stage) -> Stage {
        if cluster.rng.u32(0..5) > 0 { again } else { otherwise }
    }
}
