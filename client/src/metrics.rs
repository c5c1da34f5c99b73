//! Counters of a client's requests.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Path of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    ReadOnly,
    OneRange,
    TwoPhase,
    Async,
}

impl Path {
    pub fn name(self) -> &'static str {
        match self {
            Path::ReadOnly => "read-only",
            Path::OneRange => "one-range",
            Path::TwoPhase => "two-phase",
            Path::Async => "async",
        }
    }
}

/// Counts since the client was made, over all of its clones. See [`crate::Client::metrics`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Transactions that wrote nothing and ended well.
    pub commits_read_only: u64,
    /// Commits of one command: puts, deletes, batches and transactions whose keys lie in one range.
    pub commits_one_range: u64,
    /// Commits over ranges that were decided at their primary.
    pub commits_two_phase: u64,
    /// Commits over ranges that were decided by their first phase (asynchronous commit).
    pub commits_async: u64,
    /// Commits that failed because of another transaction. A transaction that begins again counts
    /// again.
    pub conflicts: u64,
    /// Transactions that failed with a deadlock.
    pub deadlocks: u64,
    /// Requests that were answered with another transaction's lock, which stood for as long as the
    /// node held the request back.
    pub lock_waits: u64,
    /// Locks of other transactions that this client finished in place of their owners.
    pub resolved_locks: u64,
    /// Attempts to reach a node after the first one of a request.
    pub retries: u64,
    /// Transactions and batches that the client itself began again.
    pub restarts: u64,
    /// Commits that ended with an unknown outcome.
    pub undetermined: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    commits: [Counter; 4],
    conflicts: Counter,
    pub deadlocks: Counter,
    pub lock_waits: Counter,
    pub resolved_locks: Counter,
    pub retries: Counter,
    pub restarts: Counter,
    undetermined: Counter,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// Counts a commit that ended on this path.
    pub fn ended<T>(&self, outcome: &Result<T>, path: Path) {
        match outcome {
            Ok(_) => self.commits[path as usize].add(1),
            Err(Error::Undetermined(_)) => self.undetermined.add(1),
            Err(error) if error.is_transaction_conflict() => self.conflicts.add(1),
            Err(_) => {}
        }
    }

    pub fn snapshot(&self) -> Metrics {
        let commits = |path: Path| self.commits[path as usize].get();
        Metrics {
            commits_read_only: commits(Path::ReadOnly),
            commits_one_range: commits(Path::OneRange),
            commits_two_phase: commits(Path::TwoPhase),
            commits_async: commits(Path::Async),
            conflicts: self.conflicts.get(),
            deadlocks: self.deadlocks.get(),
            lock_waits: self.lock_waits.get(),
            resolved_locks: self.resolved_locks.get(),
            retries: self.retries.get(),
            restarts: self.restarts.get(),
            undetermined: self.undetermined.get(),
        }
    }
}
