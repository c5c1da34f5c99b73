//! Resolution of another transaction's lock.
//!
//! A lock is an uncommitted write. The outcome of its transaction is decided at one key, the
//! primary. A client that meets a lock requests the outcome from the primary's range. The outcome
//! decides the next step (*finish*: commit or remove the lock):
//!
//! | outcome             | reader of newest | reader at a timestamp               | writer        |
//! |---------------------|------------------|-------------------------------------|---------------|
//! | committed           | finish, retry    | finish, retry                       | finish, retry |
//! | rolled back         | finish, retry    | finish, retry                       | finish, retry |
//! | alive               | pass (one key)   | push, pass                          | wait, retry   |
//! | alive, asynchronous | wait, retry      | pass if it commits later, else wait | wait, retry   |
//!
//! A transaction whose client is dead is rolled back by the next client that meets its lock, once
//! the lock has expired by the oracle's time. So nobody waits longer than a lock lives. A live
//! transaction that a reader at T meets is pushed: it may then only commit above T, so the read at
//! T can ignore it.
//!
//! A transaction with asynchronous commit is committed as soon as all of its locks stand. So it
//! cannot be pushed, and its primary alone does not tell a reader of the newest value that it is
//! uncommitted. Once its time is up, all of its locks are checked (`secondaries.rs`).
//!
//! A reader of the newest value of one key passes only locks that it met in the same request: those
//! were uncommitted after the request began, so the read may be ordered before them. That does not
//! suffice for a page of keys. Suppose a page meets a lock of transaction A, and the client decides
//! to pass A:
//!
//! 1. A commits, and another client learns of it.
//! 2. That client commits B on another key of the page.
//! 3. The repeated request passes A and reads the newest values: it shows B but hides A.
//!
//! Such a reader therefore takes a timestamp when it meets the first lock, and reads the page as of
//! that timestamp.
//!
//! Outcomes are cached, because one transaction leaves many locks. A cached outcome cannot become
//! wrong: commit and rollback are final, and the min_commit_ts of a live transaction only rises.

mod finish;
mod secondaries;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rangedb_proto::Timestamp;
use rangedb_proto::v1::{
    self, RangeDescriptor, TransactionStatus, command, command_reply, request, response,
    transaction_status::State,
};

use crate::client::Client;
use crate::command::{self as commands, Reply, unexpected_reply};
use crate::error::{Error, Result};
use crate::planted::planted;
use crate::routing::retry::{Retry, RetrySafety};
use crate::routing::router::RouteTarget;
use crate::routing::sender::{Reached, Sender};
use crate::timestamps::Timestamps;

/// Transactions whose outcome is cached: some tens of kilobytes, and more than the unfinished ones
/// that a client meets at one time. Beyond that the oldest is evicted, which costs a request later.
const OUTCOMES_MAX: usize = 1024;

/// Builds a request for the range that a descriptor describes, which reads at a timestamp (0: the
/// newest) and passes locks of these transactions.
type BuildRead<'a> = &'a (dyn Fn(&RangeDescriptor, u64, &[u64]) -> request::Body + Sync);

/// Extent of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Key,
    /// Several keys, which must be seen at one moment.
    Page,
}

/// Outcome of a transaction, as far as its primary has decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TransactionOutcome {
    Committed {
        commit_ts: u64,
    },
    RolledBack,
    /// Undecided at its primary. It can only commit at this timestamp or above; 0: not known.
    Alive {
        min_commit_ts: u64,
        /// True if its locks, taken together, may have committed it.
        is_async: bool,
    },
}

impl TransactionOutcome {
    fn of(status: &TransactionStatus) -> Self {
        match status.state() {
            State::Committed => Self::Committed { commit_ts: status.commit_ts },
            State::RolledBack => Self::RolledBack,
            State::Alive => {
                Self::Alive { min_commit_ts: status.min_commit_ts, is_async: status.async_commit }
            }
        }
    }
}

/// Entry of the cache of outcomes.
struct Known {
    outcome: TransactionOutcome,
    /// Number of times that locks of the transaction were met and had to be finished.
    finished: u32,
}

pub(crate) struct Resolver {
    sender: Arc<Sender>,
    timestamps: Timestamps,
    /// Keyed by start timestamp and primary. A decision at one primary says nothing about locks
    /// under another one, which a foreign client may have left.
    outcomes: Mutex<BTreeMap<(u64, Bytes), Known>>,
}

impl Client {
    /// Requests the outcome of a lock's transaction, and commits or removes the lock if the outcome
    /// is decided. False if the transaction is alive: its lock stays. For a caller that does not
    /// need the key, such as a node that clears old locks before garbage collection.
    pub async fn settle(&self, lock: v1::KeyLocked) -> Result<bool> {
        self.resolver.clear(&lock, &[], self.deadline()).await
    }
}

impl Resolver {
    pub fn new(sender: Arc<Sender>, timestamps: Timestamps) -> Self {
        Resolver { sender, timestamps, outcomes: Mutex::default() }
    }

    /// Sends a read to the range at a target, at `read_ts` (0: the newest), and resolves the locks
    /// in its way.
    pub async fn read(
        &self,
        target: RouteTarget<'_>,
        extent: Extent,
        mut read_ts: u64,
        deadline: Duration,
        build: BuildRead<'_>,
    ) -> Result<(Arc<RangeDescriptor>, response::Body)> {
        let mut retry = Retry::new(&*self.sender.net, RetrySafety::Repeatable, deadline);
        let mut passed = Vec::new();
        loop {
            let with_passed = |range: &RangeDescriptor| build(range, read_ts, &passed);
            let lock = match self.sender.to_range(target, &with_passed, &mut retry).await? {
                (range, Reached::Response(response)) => return Ok((range, response)),
                (_, Reached::Locked(lock)) => lock,
            };
            match self.outcome(&lock, read_ts, deadline).await? {
                TransactionOutcome::Alive { .. } if read_ts == 0 && extent == Extent::Page => {
                    let now = self.timestamps.next(deadline).await;
                    read_ts = now.map_err(|error| self.out_of_time(error, &lock, deadline))?.0;
                    retry.unblocked();
                }
                TransactionOutcome::Alive { min_commit_ts, is_async } => {
                    let passable = match read_ts {
                        0 => !is_async,
                        read_ts => min_commit_ts > read_ts,
                    };
                    if passable && !passed.contains(&lock.start_ts) {
                        passed.push(lock.start_ts);
                        retry.unblocked();
                    } else {
                        retry.blocked(lock.into()).await;
                    }
                }
                decided => {
                    self.finish(&lock, &[], decided, deadline).await?;
                    // The transaction was rolled back, so ignore its other locks too.
                    if decided == TransactionOutcome::RolledBack && !passed.contains(&lock.start_ts)
                    {
                        passed.push(lock.start_ts);
                    }
                    retry.unblocked();
                }
            }
        }
    }

    /// Resolves a lock for a writer. True if the lock is gone now, false if its transaction is
    /// alive. The transaction's locks on `keys`, which the writer would meet next, then are gone
    /// too.
    pub async fn clear(
        &self,
        lock: &v1::KeyLocked,
        keys: &[Bytes],
        deadline: Duration,
    ) -> Result<bool> {
        match self.outcome(lock, 0, deadline).await? {
            TransactionOutcome::Alive { .. } => Ok(false),
            decided => {
                self.finish(lock, keys, decided, deadline).await?;
                Ok(true)
            }
        }
    }

    /// Resolves a lock for a reader as of `above_ts`, and pushes its transaction above that. True
    /// if the reader may pass the lock, because the transaction commits later or never. False also
    /// if the lock has just been committed.
    pub async fn push(
        &self,
        lock: &v1::KeyLocked,
        above_ts: u64,
        deadline: Duration,
    ) -> Result<bool> {
        match self.outcome(lock, above_ts, deadline).await? {
            TransactionOutcome::Alive { min_commit_ts, .. } => Ok(min_commit_ts > above_ts),
            decided => {
                self.finish(lock, &[], decided, deadline).await?;
                Ok(decided == TransactionOutcome::RolledBack)
            }
        }
    }

    /// Returns the outcome of the transaction that holds the lock. A live one is pushed above
    /// `push_above_ts`, unless that is 0.
    async fn outcome(
        &self,
        lock: &v1::KeyLocked,
        push_above_ts: u64,
        deadline: Duration,
    ) -> Result<TransactionOutcome> {
        let outcome = self.fetch_outcome(lock, push_above_ts, deadline).await;
        outcome.map_err(|error| self.out_of_time(error, lock, deadline))
    }

    /// Replaces an error after the deadline by the lock, on which the time was spent.
    fn out_of_time(&self, error: Error, lock: &v1::KeyLocked, deadline: Duration) -> Error {
        match self.sender.net.now() >= deadline {
            true => lock.clone().into(),
            false => error,
        }
    }

    async fn fetch_outcome(
        &self,
        lock: &v1::KeyLocked,
        push_above_ts: u64,
        deadline: Duration,
    ) -> Result<TransactionOutcome> {
        match self.outcomes.lock().get(&cache_key(lock)).map(|known| known.outcome) {
            Some(TransactionOutcome::Alive { min_commit_ts, .. })
                if push_above_ts == 0 || min_commit_ts <= push_above_ts => {}
            Some(outcome) => return Ok(outcome),
            None => {}
        }
        if planted!(PrimaryNotAsked) {
            return Ok(TransactionOutcome::RolledBack);
        }
        let (status, now) = self.check_transaction(lock, push_above_ts, deadline).await?;
        let is_over = now.millis() > status.alive_until_ms;
        let outcome = match TransactionOutcome::of(&status) {
            TransactionOutcome::Alive { is_async: true, .. } if is_over => {
                self.decide_async_commit(lock, status, deadline).await?
            }
            outcome => outcome,
        };
        self.remember(lock, outcome);
        Ok(outcome)
    }

    /// Requests the transaction's status from its primary. Also returns the timestamp as of which
    /// the status is valid.
    async fn check_transaction(
        &self,
        lock: &v1::KeyLocked,
        push_above_ts: u64,
        deadline: Duration,
    ) -> Result<(TransactionStatus, Timestamp)> {
        let now = self.timestamps.next(deadline).await?;
        let check = v1::CheckTransaction {
            primary: lock.primary.clone(),
            start_ts: lock.start_ts,
            now_ts: now.0,
            push_above_ts,
            met_alive_until_ms: lock.alive_until_ms,
        };
        let build = |_: &RangeDescriptor| Some(command::Body::CheckTransaction(check.clone()));
        let mut retry = Retry::new(&*self.sender.net, RetrySafety::Repeatable, deadline);
        match commands::send(&self.sender, &lock.primary, &build, &mut retry).await? {
            Reply::From(_, command_reply::Body::TransactionStatus(status)) => Ok((status, now)),
            _ => Err(unexpected_reply(&retry)),
        }
    }

    fn remember(&self, lock: &v1::KeyLocked, outcome: TransactionOutcome) {
        let mut outcomes = self.outcomes.lock();
        outcomes.entry(cache_key(lock)).or_insert(Known { outcome, finished: 0 }).outcome = outcome;
        if outcomes.len() > OUTCOMES_MAX {
            outcomes.pop_first();
        }
    }

    /// Counts that locks of the transaction were finished. Returns the count.
    fn note_finished(&self, lock: &v1::KeyLocked) -> u32 {
        let mut outcomes = self.outcomes.lock();
        outcomes.get_mut(&cache_key(lock)).map_or(1, |known| {
            known.finished += 1;
            known.finished
        })
    }
}

/// Key of a lock's transaction in the cache of outcomes.
fn cache_key(lock: &v1::KeyLocked) -> (u64, Bytes) {
    (lock.start_ts, lock.primary.clone())
}
