//! A commit over several ranges: Percolator's two phases, and between them a validation of what was
//! read.
//!
//! ```text
//! prewrite every range ── commit timestamp ── validate reads ── commit the primary ── the rest
//!    (in parallel)         (above all locks)    (in parallel)      decided, answered   (background)
//! ```
//!
//! The primary's lock decides: the transaction is committed from the moment that lock has become a
//! version, whatever happens to its coordinator, and can be rolled back by anybody until then.
//!
//! Invariants:
//!
//! * The commit timestamp is taken when every lock is held. A reader at a later timestamp therefore
//!   meets the locks, a reader at an earlier one need not.
//! * Once the primary's commit was sent, no other lock is rolled back before the primary's rollback
//!   is confirmed. A lost answer is asked for again, with the same command, until it is known or the
//!   time is up; then the outcome is `Undetermined`.
//! * Dropping the commit's future at any point leaves locks that somebody clears: the background
//!   task that it spawns, or whoever meets them.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use rangedb_proto::v1::{
    self, RangeDescriptor, RangeHeader, command, command_reply, request, response,
};
use rangedb_proto::{RangeDescriptorExt, Timestamp};

use super::chunks::{Item, Sent, first_chunk, send_all, time_for};
use super::heartbeat::{OracleClock, keep_alive};
use super::prewrite::Part;
use super::read_set::Check;
use super::rollback::{Abandoned, Rollback};
use crate::client::{Client, header};
use crate::command::{self as commands, Reply, unexpected_reply};
use crate::error::{Error, Result};
use crate::retry::{Effect, Retry};
use crate::router::Place;
use crate::sender::{Reached, unexpected_answer};

/// How long a transaction that holds locks waits for one of an older transaction. The older one waits
/// on for the younger until its deadline: so of two that wait for each other one goes on.
const WAIT_FOR_OLDER_MAX: Duration = Duration::from_millis(100);

/// Between two timestamps when the oracle is behind what a range has promised: a busy range counts
/// up from its last commit and may be ahead by a few.
const ORACLE_BEHIND_WAIT: Duration = Duration::from_millis(1);

/// Time for each chunk of locks that are left when the transaction is decided. If one does not get
/// through, the rest are left too: whoever meets one of them later finishes it.
const REST_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that is known when a transaction begins to commit.
#[derive(Clone)]
pub(crate) struct TwoPhase {
    pub client: Client,
    pub start_ts: u64,
    pub clock: OracleClock,
    pub deadline: Duration,
    /// The first key that was locked before the commit, which those locks name; else one of the
    /// written keys.
    pub primary: Bytes,
    /// Writes and conditions, in key order.
    pub parts: Vec<Part>,
    /// What must not have changed at the commit timestamp, in key order.
    pub checks: Vec<Check>,
    /// Keys that are locked but not written, in key order.
    pub locked_only: Vec<Bytes>,
}

impl TwoPhase {
    /// # Errors
    ///
    /// `Undetermined` if the primary's fate did not become known in time; after any other error the
    /// transaction is not committed and never will be.
    pub async fn commit(self) -> Result<Timestamp> {
        let mut abandoned = Abandoned::new(self.rollback());
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
            Ok((commit_ts, committed)) => {
                abandoned.forget();
                self.finish_in_background(commit_ts, committed);
                Ok(Timestamp(commit_ts))
            }
            Err(error @ Error::Undetermined(_)) => {
                abandoned.forget();
                Err(error)
            }
            Err(error) => {
                abandoned.clean_up().await;
                Err(error)
            }
        }
    }

    /// Returns the commit timestamp, and how many keys from the primary on are committed.
    async fn decide(&self) -> Result<(u64, usize)> {
        #[cfg(feature = "planted")]
        let early = self.commit_timestamp(0).await?;
        let mut least = self.prewrite().await?;
        loop {
            let commit_ts = self.commit_timestamp(least).await?;
            #[cfg(feature = "planted")]
            let commit_ts = match rangedb_planted::Bug::CommitTsBeforePrewrite.is_planted() {
                true => early,
                false => commit_ts,
            };
            self.validate(commit_ts).await?;
            match self.commit_primary(commit_ts).await? {
                Primary::Committed(keys) => return Ok((commit_ts, keys)),
                Primary::TooLow { min_commit_ts } => least = min_commit_ts,
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

    async fn validate(&self, commit_ts: u64) -> Result<()> {
        let send = |chunk| self.validate_chunk(chunk, commit_ts);
        let checks = self.checks.clone();
        send_all(&self.client.sender, checks, self.deadline, send).await.map(|_| ())
    }

    async fn validate_chunk(&self, chunk: Vec<Check>, commit_ts: u64) -> Result<Sent<Check, ()>> {
        let net = &*self.client.sender.net;
        let reads: Vec<v1::ReadCheck> = chunk.iter().map(Check::to_wire).collect();
        let of_range = |range: Option<RangeHeader>| v1::Validate {
            range,
            start_ts: self.start_ts,
            commit_ts,
            reads: reads.clone(),
            pass_locks_of: Vec::new(),
        };
        let fits = |range: &RangeDescriptor| chunk.iter().all(|check| check.is_in(range));
        let build = |range: &RangeDescriptor| match fits(range) {
            true => Ok(request::Body::Validate(of_range(Some(header(range))))),
            false => Err(Error::Unavailable("the range split on the way".to_owned())),
        };
        let mut retry = Retry::new(net, Effect::Read, self.deadline);
        let since = net.now();
        let place = Place::Key(chunk[0].key());
        loop {
            let answer = self.client.sender.to_range(place, &build, &mut retry).await;
            match answer {
                Ok((_, Reached::Answer(response::Body::Validate(reply)))) => {
                    return match reply.conflict {
                        None => Ok(Sent::Done(())),
                        Some(conflict) => Err(conflict.into()),
                    };
                }
                Ok((_, Reached::Locked(lock))) => {
                    self.give_way(lock, &[], since, &mut retry).await?
                }
                Ok((_, Reached::Answer(_))) => {
                    return Err(unexpected_answer("the range's leader"));
                }
                Err(error) => {
                    let range = self.client.sender.locate(place, self.deadline).await?;
                    if fits(&range) {
                        return Err(error);
                    }
                    return Ok(Sent::Regroup(chunk));
                }
            }
        }
    }

    /// Another transaction's lock is in the way while this one holds locks of its own. `keys` may be
    /// locked by the same one.
    pub(super) async fn give_way(
        &self,
        lock: v1::KeyLocked,
        keys: &[Bytes],
        since: Duration,
        retry: &mut Retry<'_>,
    ) -> Result<()> {
        if self.client.resolver.clear(&lock, keys, self.deadline).await? {
            retry.unblocked();
            return Ok(());
        }
        let waited = self.client.sender.net.now().saturating_sub(since);
        let is_older = lock.start_ts < self.start_ts;
        if is_older && waited > WAIT_FOR_OLDER_MAX {
            return Err(lock.into());
        }
        retry.blocked(lock.into()).await;
        Ok(())
    }

    /// The decision.
    async fn commit_primary(&self, commit_ts: u64) -> Result<Primary> {
        let keys = self.keys_from_primary();
        let build = |range: &RangeDescriptor| {
            let keys = first_chunk(&keys, range).to_vec();
            let commit = v1::CommitKeys { start_ts: self.start_ts, commit_ts, keys };
            Some(command::Body::CommitKeys(commit))
        };
        let sender = &self.client.sender;
        let mut retry = Retry::new(&*sender.net, Effect::Recognised, self.deadline);
        match commands::send(sender, &self.primary, &build, &mut retry).await? {
            Reply::From(range, command_reply::Body::Committed(_)) => {
                Ok(Primary::Committed(first_chunk(&keys, &range).len()))
            }
            Reply::From(_, command_reply::Body::CommitTooLow(low)) => {
                Ok(Primary::TooLow { min_commit_ts: low.min_commit_ts })
            }
            // Final, also after a lost answer: nothing commits behind a rollback record.
            Reply::From(_, command_reply::Body::Aborted(aborted)) => {
                Err(Error::Aborted { key: aborted.key })
            }
            _ => Err(Error::Undetermined(unexpected_reply(&retry).to_string())),
        }
    }

    /// The primary first, then the written keys behind it and at last those before it.
    fn keys_from_primary(&self) -> Vec<Bytes> {
        let mut keys: Vec<Bytes> = self.written().cloned().collect();
        if let Err(at) = keys.binary_search(&self.primary) {
            keys.insert(at, self.primary.clone());
        }
        let at = keys.binary_search(&self.primary).expect("it is among them");
        keys.rotate_left(at);
        keys
    }

    fn written(&self) -> impl Iterator<Item = &Bytes> {
        self.parts.iter().filter_map(|part| match part {
            Part::Write(mutation) => Some(&mutation.key),
            Part::Condition { .. } => None,
        })
    }

    /// `committed` keys from the primary on are done already.
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
            // Apart from each other: a lock that somebody took for dead must not keep the writes.
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
        let mut retry = Retry::new(&*sender.net, Effect::Read, deadline);
        match commands::send(sender, &chunk[0], &build, &mut retry).await? {
            Reply::Regroup => Ok(Sent::Regroup(chunk)),
            Reply::From(_, command_reply::Body::Committed(_)) => Ok(Sent::Done(())),
            // Of a key that was only locked.
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

enum Primary {
    /// So many keys, from the primary on.
    Committed(usize),
    TooLow {
        min_commit_ts: u64,
    },
}

/// Writes and conditions in key order.
pub(crate) fn parts_in_order(parts: Vec<Part>) -> Vec<Part> {
    let mut by_key: BTreeMap<Bytes, Vec<Part>> = BTreeMap::new();
    for part in parts {
        by_key.entry(part.key().clone()).or_default().push(part);
    }
    by_key.into_values().flatten().collect()
}
