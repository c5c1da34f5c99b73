//! Pessimistic locks: a key is locked before the transaction commits, so that nobody else writes
//! it.
//!
//! The first locked key is the transaction's primary. All of its locks name the primary, and a
//! background task keeps it alive. The commit notices a lock that was lost because the client was
//! cut off for longer than the lock lives: a rollback record refuses the prewrite of the key, and
//! keys that were locked but not written are validated.
//!
//! A transaction locks one key after the other, so that its primary is settled before a second lock
//! names it. The transaction ends if it stays unknown whether the first lock stands, because
//! answers were lost or the caller gave up waiting. A request waits for another transaction's lock
//! in a queue on the node where the lock stands (`../locks/wait.rs`). If the wait closes a cycle of
//! transactions that wait for each other, this transaction is rolled back at once: nothing but its
//! end lets the others go on.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use rangedb_proto::v1::{self, RangeDescriptor, command, command_reply};

use super::heartbeat::{HEARTBEAT_EVERY, beat};
use super::phases::Phase;
use super::rollback::{Abandoned, Rollback};
use super::{Inner, Isolation};
use crate::command::{self as commands, Reply, unexpected_reply};
use crate::error::{Error, Result};
use crate::key_value::KeyValue;
use crate::locks::wait::{HOLD_MAX, LockWaiter};
use crate::net::SharedNet;
use crate::routing::retry::{Retry, RetrySafety};
use crate::trace::traced;

/// Locks that a transaction has taken before its commit.
#[derive(Debug, Default)]
pub(crate) struct PessimisticLocks {
    /// None: no lock was confirmed yet, and none is being requested.
    pub primary: Option<Bytes>,
    /// Locked keys, each with the timestamp up to which none of its versions is a conflict. 0: the
    /// lock was requested, and it is not known whether it stands.
    pub keys: BTreeMap<Bytes, u64>,
    /// True if a task sends heartbeats for the primary.
    beating: bool,
}

impl PessimisticLocks {
    /// Rollback of all locks; none if nothing was ever locked.
    pub fn rollback(&self, inner: &Inner) -> Option<Rollback> {
        let keys: Vec<Bytes> = self.keys.keys().cloned().collect();
        let primary = self.primary.clone().or_else(|| keys.first().cloned())?;
        Some(Rollback { client: inner.client.clone(), start_ts: inner.start_ts(), primary, keys })
    }

    /// Locks of a transaction that is resumed.
    pub fn resumed(primary: Option<Bytes>, keys: BTreeMap<Bytes, u64>) -> Self {
        let beating = primary.is_some();
        PessimisticLocks { primary, keys, beating }
    }

    /// The part of the locks that the heartbeats need while the transaction ends.
    pub fn for_heartbeats(&self) -> Self {
        let (primary, beating) = (self.primary.clone(), self.beating);
        PessimisticLocks { primary, keys: BTreeMap::new(), beating }
    }
}

impl Inner {
    /// Locks a key that is written. Under snapshot isolation, a version committed since the start
    /// is a conflict: the transaction may have read the state before that commit, and no other
    /// check finds out.
    pub(super) async fn lock_written(self: &Arc<Self>, key: &Bytes) -> Result<()> {
        let is_snapshot = self.options.isolation == Isolation::Snapshot;
        self.lock(key, is_snapshot.then_some(self.start_ts())).await.map(drop)
    }

    /// Locks the key and returns its newest value.
    pub(super) async fn lock_key(self: &Arc<Self>, key: &Bytes) -> Result<Option<KeyValue>> {
        self.lock(key, None).await
    }

    /// Locks the key. A version above `unchanged_since` is a conflict, unless the key is locked
    /// already.
    async fn lock(
        self: &Arc<Self>,
        key: &Bytes,
        unchanged_since: Option<u64>,
    ) -> Result<Option<KeyValue>> {
        self.client.view.check_key(key)?;
        self.check_writable()?;
        let _one_at_a_time = self.locking.lock().await;
        let primary = self.begin_lock(key)?;
        let is_first = primary == *key && self.open()?.locks.keys.get(key) == Some(&0);
        let mut dropped = Dropped { inner: self, is_first };
        let net = &*self.client.sender.net;
        let longest = self.options.lock_wait.unwrap_or(self.client.timeout);
        let mut retry = Retry::new(net, RetrySafety::Repeatable, net.now().saturating_add(longest));
        let acquire = self.acquire(key, &primary, unchanged_since, &mut retry);
        let acquired = self.phases.time(Phase::Locks, net, traced(net, "lock", acquire)).await;
        dropped.is_first = false;
        if let Err(error @ Error::Deadlock { .. }) = acquired {
            self.client.sender.metrics.deadlocks.add(1);
            self.fail(error.clone()).await;
            return Err(error);
        }
        if let (Err(error), true, true) = (&acquired, is_first, retry.has_lost_responses()) {
            // The key may be locked. A decision at this lock would say nothing about locks under
            // another primary, so there must be none: a client that meets this lock first could
            // take its rollback for that of the whole transaction.
            self.fail(error.clone()).await;
            return Err(error.clone());
        }
        let mut state = self.open()?;
        match acquired {
            Ok((current, for_update_ts)) => {
                // The first of two timestamps is right: nothing has changed since.
                let seen = state.locks.keys.entry(key.clone()).or_insert(0);
                *seen = if *seen == 0 { for_update_ts } else { *seen };
                Ok(current)
            }
            Err(error) => {
                // The key is certainly not locked, so another key can become the primary.
                if is_first {
                    state.locks.primary = None;
                    state.locks.keys.remove(key);
                }
                Err(error)
            }
        }
    }

    /// Notes that the key may be locked from now on, and returns the primary.
    fn begin_lock(self: &Arc<Self>, key: &Bytes) -> Result<Bytes> {
        let mut state = self.open()?;
        state.locks.keys.entry(key.clone()).or_insert(0);
        if !state.locks.beating {
            state.locks.beating = true;
            let net = &self.client.sender.net;
            net.spawn(Box::pin(keep_locks(Arc::downgrade(self), net.clone(), HEARTBEAT_EVERY)));
        }
        Ok(state.locks.primary.get_or_insert_with(|| key.clone()).clone())
    }

    /// Ends the transaction and rolls it back, so that the transactions that wait for it go on.
    async fn fail(&self, error: Error) {
        let abandoned = self.fail_at_once(error);
        if let Some(abandoned) = abandoned {
            // The result is of no interest: nobody has called `commit`.
            let _ = abandoned.clean_up().await;
        }
    }

    /// Ends the transaction. The returned guard rolls it back in the background when it is dropped.
    fn fail_at_once(&self, error: Error) -> Option<Abandoned> {
        let state = self.end().ok()?;
        let mut left = self.state.lock();
        left.failed = Some(error);
        left.locks = PessimisticLocks::default();
        drop(left);
        state.locks.rollback(self).map(Abandoned::new)
    }

    /// Starts heartbeats for the locks of a resumed transaction, the first one at once: nobody
    /// knows how long the transaction was suspended.
    pub(super) fn keep_resumed_locks(self: &Arc<Self>) {
        if self.state.lock().locks.beating {
            let net = &self.client.sender.net;
            net.spawn(Box::pin(keep_locks(Arc::downgrade(self), net.clone(), Duration::ZERO)));
        }
    }

    /// Returns the key's newest value, and the timestamp up to which that is known.
    async fn acquire(
        &self,
        key: &Bytes,
        primary: &Bytes,
        unchanged_since: Option<u64>,
        retry: &mut Retry<'_>,
    ) -> Result<(Option<KeyValue>, u64)> {
        let net = &*self.client.sender.net;
        let deadline = retry.deadline();
        let mut waiter = LockWaiter::new(&self.client.sender, self.clock);
        loop {
            retry.check_time()?;
            let for_update_ts = match unchanged_since {
                Some(timestamp) => timestamp,
                None => match self.client.timestamps.next(deadline).await {
                    Ok(timestamp) => timestamp.0,
                    Err(error) => {
                        // Once the time is up, report the lock on which it was spent.
                        retry.check_time()?;
                        return Err(error);
                    }
                },
            };
            let acquire = v1::AcquireLocks {
                start_ts: self.start_ts(),
                primary: primary.clone(),
                keys: vec![key.clone()],
                for_update_ts,
                alive_until_ms: self.clock.alive_until_ms(net),
            };
            let build = |_: &RangeDescriptor| Some(command::Body::AcquireLocks(acquire.clone()));
            // A request that is held back ends with a fresh for_update_ts, which would hide a
            // version newer than `unchanged_since`.
            let most = if unchanged_since.is_some() { Duration::ZERO } else { HOLD_MAX };
            let until = waiter.hold_until(most, retry);
            let sender = &self.client.sender;
            match commands::send_held(sender, key, until, &build, retry).await? {
                Reply::From(_, command_reply::Body::LocksAcquired(acquired)) => {
                    let for_update_ts = for_update_ts.max(acquired.for_update_ts);
                    let current = acquired.current.into_iter().next();
                    let current = current.filter(|kv| kv.version > 0).map(KeyValue::from);
                    return Ok((current, for_update_ts));
                }
                Reply::From(_, command_reply::Body::Locked(lock)) => {
                    waiter.meet(&lock);
                    match self.client.resolver.clear(&lock, &[], deadline).await? {
                        true => retry.unblocked(),
                        false => waiter.blocked(lock, retry).await,
                    }
                }
                Reply::From(_, command_reply::Body::WriteConflict(conflict))
                    if unchanged_since.is_some() =>
                {
                    return Err(conflict.into());
                }
                // A version was committed after the timestamp was taken, perhaps by the transaction
                // that was waited for. Send again at once with a fresh timestamp, before the next
                // in the queue commits too.
                Reply::From(_, command_reply::Body::WriteConflict(conflict)) => {
                    retry.held(conflict.into());
                }
                Reply::From(_, command_reply::Body::Aborted(aborted)) => {
                    return Err(Error::Aborted { key: aborted.key });
                }
                _ => return Err(unexpected_reply(retry)),
            }
        }
    }
}

/// Fails the transaction when its first lock is given up before its answer. It is then unknown
/// whether the lock stands, and a decision at it would say nothing about locks under another
/// primary.
struct Dropped<'a> {
    inner: &'a Inner,
    is_first: bool,
}

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        if self.is_first {
            let reason =
                "its first lock was given up before it was answered, so the transaction is over";
            drop(self.inner.fail_at_once(Error::Unavailable(reason.to_owned())));
        }
    }
}

/// Sends heartbeats until the transaction is gone.
async fn keep_locks(transaction: Weak<Inner>, net: SharedNet, mut wait: Duration) {
    loop {
        net.sleep(wait).await;
        wait = HEARTBEAT_EVERY;
        // The strong reference is dropped before the heartbeat, so that dropping the transaction
        // takes effect at once.
        let Some(inner) = transaction.upgrade() else { return };
        let (sender, start_ts, clock) =
            (inner.client.sender.clone(), inner.start_ts(), inner.clock);
        let primary = inner.state.lock().locks.primary.clone();
        drop(inner);
        if let Some(primary) = primary {
            beat(&sender, &primary, start_ts, clock).await;
        }
    }
}
