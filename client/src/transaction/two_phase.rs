//! Two-phase commit over several ranges, as in Percolator, with a validation of the reads between
//! the phases.
//!
//! ```text
//! prewrite every range ── commit timestamp ── validate reads ── commit the primary ── the rest
//!    (in parallel)        (above all locks)    (in parallel)    (decided, answered)  (background)
//! ```
//!
//! The primary lock decides. The transaction is committed from the moment at which that lock has
//! become a version, whatever happens to its coordinator. Until then anybody can roll it back.
//!
//! *Asynchronous commit*: where no read has to be validated, and the keys are few, the locks decide
//! by themselves. The transaction is committed once all of them stand, and is answered after one
//! round of the log. Its commit timestamp is the largest of the timestamps that the ranges allow,
//! and of one that is taken before the first request. The primary lock names all others, so that a
//! client that finds it can decide (`../locks/resolve/secondaries.rs`). A range that does not take
//! part says so, and the commit goes on as above.
//!
//! Invariants:
//!
//! * The commit timestamp is taken when every lock is held. A reader at a later timestamp therefore
//!   meets the locks; a reader at an earlier one need not.
//! * Once the primary's commit was sent, no other lock is rolled back before the primary's rollback
//!   is confirmed. After a lost response the same command is sent again, until the outcome is known
//!   or the time is up; then the outcome is `Undetermined`.
//! * An asynchronous commit is answered as committed when every range has confirmed its locks. It
//!   is answered as failed when one refused for certain, or its primary is rolled back. In both
//!   cases nobody can come to another result: the set of locks is complete, or never will be.
//! * If the commit's future is dropped at any point, its locks are still cleared: by the background
//!   task that the drop spawns, or by the next client that meets them.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use rangedb_proto::v1::{self, RangeDescriptor, command, command_reply};
use rangedb_proto::{RangeDescriptorExt, Timestamp};

use super::chunks::{Item, Sent, first_chunk, send_all, time_for};
use super::heartbeat::{OracleClock, keep_alive};
use super::phases::{Phase, Phases};
use super::prewrite::{Part, Prewrote};
use super::read_set::Check;
use super::rollback::{Abandoned, Rollback, RollbackOutcome};
use crate::client::Client;
use crate::command::{self as commands, Reply, unexpected_reply};
use crate::error::{Error, Result};
use crate::locks::wait::LockWaiter;
use crate::planted::planted;
use crate::routing::retry::{Retry, RetrySafety};

/// Time for which a transaction that holds locks waits for a lock of an older transaction. The
/// older one waits for the younger until its own deadline. So of two that wait for each other, one
/// goes on.
pub(super) const WAIT_FOR_OLDER_MAX: Duration = Duration::from_millis(100);

/// Wait between two timestamps while the oracle is behind a timestamp that a range has promised: a
/// busy range counts up from its last commit and may be ahead by a few.
const ORACLE_BEHIND_WAIT: Duration = Duration::from_millis(1);

/// Extra time beyond the deadline to get the outcome of a commit from its primary, after responses
/// were lost.
const PRIMARY_WAIT: Duration = Duration::from_secs(1);

/// Time for each chunk of locks that are left after the decision. If a chunk does not get through,
/// the rest are left too: the next client that meets one of them finishes it.
const REST_TIMEOUT: Duration = Duration::from_secs(10);

/// State of a transaction when it begins to commit.
#[derive(Clone)]
pub(crate) struct TwoPhase {
    pub client: Client,
    pub start_ts: u64,
    pub clock: OracleClock,
    pub deadline: Duration,
    /// The first key that was locked before the commit, which those locks name; otherwise one of
    /// the written keys.
    pub primary: Bytes,
    /// Writes and conditions, in key order.
    pub parts: Vec<Part>,
    /// Reads that must be unchanged at the commit timestamp, in key order.
    pub checks: Vec<Check>,
    /// Keys that are locked but not written, in key order.
    pub locked_only: Vec<Bytes>,
    /// Lower bound of the commit timestamp: above all reads under locks; 0: no such reads.
    pub min_commit_ts: u64,
    /// Nothing has to be validated once the locks stand, so they may decide by themselves. A range
    /// may still refuse to take part.
    pub wants_async: bool,
    pub phases: Arc<Phases>,
}

impl TwoPhase {
    /// Commits. Returns the commit timestamp, and true if the commit was asynchronous.
    ///
    /// # Errors
    ///
    /// `Undetermined` if the outcome at the primary did not become known in time. After any other
    /// error the transaction is not committed and never will be.
    pub async fn commit(mut self) -> Result<(Timestamp, bool)> {
        let mut abandoned = Abandoned::new(self.rollback());
        if self.wants_async {
            // The ranges alone could allow a timestamp from before the call of `commit`. A reader
            // as of a later timestamp would then see the past change.
            let called_at = self.commit_timestamp(0).await?;
            self.min_commit_ts = self.min_commit_ts.max(called_at);
        }
        let outcome = {
            let decide = pin!(self.decide());
            let sender = &self.client.sender;
            let beats = pin!(keep_alive(sender, &self.primary, self.start_ts, self.clock));
            match select(decide, beats).await {
                Either::Left((outcome, _)) => outcome,
                Either::Right((never, _)) => match never {},
            }
        };
        match outcome {
            Ok(Decided { commit_ts, committed, was_async }) => {
                abandoned.forget();
                self.finish_in_background(commit_ts, committed);
                Ok((Timestamp(commit_ts), was_async))
            }
            Err(error @ Error::Undetermined(_)) => {
                abandoned.forget();
                Err(error)
            }
            Err(error) => {
                if let Error::Deadlock { .. } = error {
                    self.client.sender.metrics.deadlocks.add(1);
                }
                let Some(commit_ts) = abandoned.clean_up().await else { return Err(error) };
                // The primary is committed; the other locks are not yet.
                self.finish_in_background(commit_ts, 0);
                Ok((Timestamp(commit_ts), false))
            }
        }
    }

    async fn decide(&self) -> Result<Decided> {
        let early = match planted!(CommitTsBeforePrewrite) {
            true => Some(self.commit_timestamp(0).await?),
            false => None,
        };
        let net = &*self.client.sender.net;
        let mut least = match self.phases.time(Phase::Prewrite, net, self.prewrite()).await {
            Ok(Prewrote::Locks { min_commit_ts, is_async: false }) => min_commit_ts,
            Ok(Prewrote::Locks { min_commit_ts: commit_ts, is_async: true })
            | Ok(Prewrote::Committed { commit_ts }) => {
                return Ok(Decided { commit_ts, committed: 0, was_async: true });
            }
            Err(Error::Undetermined(lost)) if self.wants_async => {
                return self.decide_at_primary(lost).await;
            }
            Err(error) => return Err(error),
        };
        let mut may_push = true;
        loop {
            let timestamp = self.commit_timestamp(least);
            let commit_ts = self.phases.time(Phase::Timestamp, net, timestamp).await?;
            let commit_ts = early.unwrap_or(commit_ts);
            let validate = self.validate(commit_ts, may_push);
            self.phases.time(Phase::Validate, net, validate).await?;
            let primary = self.commit_primary(commit_ts);
            match self.phases.time(Phase::Primary, net, primary).await? {
                Primary::Committed { commit_ts, keys } => {
                    return Ok(Decided { commit_ts, committed: keys, was_async: false });
                }
                Primary::TooLow { min_commit_ts } => least = min_commit_ts,
            }
            may_push = false;
        }
    }

    /// Decides an asynchronous commit after a response of its first phase was lost. All of its
    /// locks may stand, and another client that finds them would commit it. The primary has the
    /// last word: if it is rolled back, the transaction never commits; if it answers that it is
    /// committed, it is.
    async fn decide_at_primary(&self, lost: String) -> Result<Decided> {
        let rollback = self.rollback();
        let at_primary = pin!(rollback.roll_back_primary());
        match select(at_primary, self.client.sender.net.sleep(PRIMARY_WAIT)).await {
            Either::Left((Ok(RollbackOutcome::RolledBack), _)) => {
                Err(Error::Unavailable(format!("rolled back in the end: {lost}")))
            }
            Either::Left((Ok(RollbackOutcome::Committed { commit_ts }), _)) => {
                Ok(Decided { commit_ts, committed: 0, was_async: true })
            }
            Either::Left((Err(_), _)) | Either::Right(_) => {
                // Whatever the outcome, the locks should not stand until they expire.
                self.rollback().in_background();
                Err(Error::Undetermined(lost))
            }
        }
    }

    async fn commit_timestamp(&self, least: u64) -> Result<u64> {
        loop {
            let commit_ts = self.client.timestamps.next(self.deadline).await?.0;
            if commit_ts >= least {
                return Ok(commit_ts);
            }
            self.client.sender.net.sleep(ORACLE_BEHIND_WAIT).await;
        }
    }

    /// Handles another transaction's lock that is in the way while this one holds locks of its own:
    /// clears it, waits, or gives up. The same transaction may have locked `keys`.
    pub(super) async fn give_way(
        &self,
        lock: v1::KeyLocked,
        keys: &[Bytes],
        waiter: &mut LockWaiter<'_>,
        retry: &mut Retry<'_>,
    ) -> Result<()> {
        waiter.meet(&lock);
        let cleared = self.client.resolver.clear(&lock, keys, self.deadline).await;
        if cleared.map_err(|error| retry.end(error))? {
            retry.unblocked();
            return Ok(());
        }
        let is_older = lock.start_ts < self.start_ts;
        if is_older && waiter.waited() > WAIT_FOR_OLDER_MAX {
            return Err(retry.end(lock.into()));
        }
        waiter.blocked(lock, retry).await;
        Ok(())
    }

    /// Commits the primary, which decides the transaction.
    async fn commit_primary(&self, commit_ts: u64) -> Result<Primary> {
        let keys = self.keys_from_primary();
        let build = |range: &RangeDescriptor| {
            let keys = first_chunk(&keys, range).to_vec();
            let commit = v1::CommitKeys { start_ts: self.start_ts, commit_ts, keys };
            Some(command::Body::CommitKeys(commit))
        };
        let sender = &self.client.sender;
        let mut retry = Retry::new(&*sender.net, RetrySafety::Recognised, self.deadline);
        match commands::send(sender, &self.primary, &build, &mut retry).await? {
            Reply::From(range, command_reply::Body::Committed(committed)) => {
                // Another client that found the locks of an asynchronous commit may have been
                // faster.
                let keys = match committed.commit_ts == commit_ts {
                    true => first_chunk(&keys, &range).len(),
                    false => 0,
                };
                Ok(Primary::Committed { commit_ts: committed.commit_ts, keys })
            }
            Reply::From(_, command_reply::Body::CommitTooLow(low)) => {
                Ok(Primary::TooLow { min_commit_ts: low.min_commit_ts })
            }
            // Final, also after a lost answer: a rollback record stands there, and nothing commits
            // after it.
            Reply::From(_, command_reply::Body::Aborted(aborted)) => {
                Err(Error::Aborted { key: aborted.key })
            }
            _ => Err(Error::Undetermined(unexpected_reply(&retry).to_string())),
        }
    }

    /// The primary first, then the written keys after it, and last those before it.
    fn keys_from_primary(&self) -> Vec<Bytes> {
        let mut keys: Vec<Bytes> = self.written().cloned().collect();
        if let Err(at) = keys.binary_search(&self.primary) {
            keys.insert(at, self.primary.clone());
        }
        let at = keys.binary_search(&self.primary).expect("it is among them");
        keys.rotate_left(at);
        keys
    }

    pub(super) fn written(&self) -> impl Iterator<Item = &Bytes> {
        self.parts.iter().filter_map(|part| match part {
            Part::Write(mutation) => Some(&mutation.key),
            Part::Condition { .. } => None,
        })
    }

    /// Commits the remaining locks in the background; `committed` keys from the primary on are
    /// done.
    fn finish_in_background(self, commit_ts: u64, committed: usize) {
        let mut keys = self.keys_from_primary().split_off(committed);
        keys.sort();
        let locked_only = self.locked_only.iter().filter(|key| **key != self.primary);
        let locked_only: Vec<Bytes> = locked_only.cloned().collect();
        if keys.is_empty() && locked_only.is_empty() {
            return;
        }
        let background = self.client.background.clone();
        background.spawn(Box::pin(async move {
            // Committed in two batches: if another client already rolled back a lock-only key, that
            // error must not stop the writes.
            for keys in [keys, locked_only] {
                let net = &self.client.sender.net;
                let deadline = net.now() + time_for(keys.len(), REST_TIMEOUT);
                let send = |chunk| self.commit_chunk(chunk, commit_ts);
                let sent = send_all(&self.client.sender, keys, deadline, send).await;
                if let Err(error) = sent {
                    let start_ts = self.start_ts;
                    tracing::debug!(start_ts, %error, "locks of a committed transaction are left");
                }
            }
        }));
    }

    async fn commit_chunk(&self, chunk: Vec<Bytes>, commit_ts: u64) -> Result<Sent<Bytes, ()>> {
        let build = |range: &RangeDescriptor| {
            let fits = chunk.iter().all(|key| range.contains(key));
            let (start_ts, keys) = (self.start_ts, chunk.clone());
            fits.then(|| command::Body::CommitKeys(v1::CommitKeys { start_ts, commit_ts, keys }))
        };
        let sender = &self.client.sender;
        let deadline = sender.net.now() + REST_TIMEOUT;
        let mut retry = Retry::new(&*sender.net, RetrySafety::Repeatable, deadline);
        match commands::send(sender, &chunk[0], &build, &mut retry).await? {
            Reply::Regroup => Ok(Sent::Regroup(chunk)),
            Reply::From(_, command_reply::Body::Committed(_)) => Ok(Sent::Done(())),
            // A key that was only locked, whose lock another client has rolled back.
            Reply::From(_, command_reply::Body::Aborted(_)) => Ok(Sent::Done(())),
            Reply::From(..) => Err(unexpected_reply(&retry)),
        }
    }

    fn rollback(&self) -> Rollback {
        let mut keys: Vec<Bytes> =
            self.written().cloned().chain(self.locked_only.iter().cloned()).collect();
        keys.sort();
        Rollback {
            client: self.client.clone(),
            start_ts: self.start_ts,
            primary: self.primary.clone(),
            keys,
        }
    }
}

struct Decided {
    commit_ts: u64,
    /// Keys from the primary on that are committed already.
    committed: usize,
    was_async: bool,
}

enum Primary {
    Committed {
        commit_ts: u64,
        /// Number of committed keys, from the primary on.
        keys: usize,
    },
    TooLow {
        min_commit_ts: u64,
    },
}

/// Sorts writes and conditions by key.
pub(crate) fn parts_in_order(parts: Vec<Part>) -> Vec<Part> {
    let mut by_key: BTreeMap<Bytes, Vec<Part>> = BTreeMap::new();
    for part in parts {
        by_key.entry(part.key().clone()).or_default().push(part);
    }
    by_key.into_values().flatten().collect()
}
