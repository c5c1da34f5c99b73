//! Pessimistic locks: a key is locked before the transaction commits, so that nobody else writes it.
//!
//! The first key that is locked is the primary of these locks, kept alive by a task in the
//! background. A lock that is lost all the same (the client was cut off for longer than it lives) is
//! noticed at commit: a rollback record refuses the prewrite of the key, and keys that were locked
//! but not written are validated.
//!
//! A lock of another transaction is waited for by asking again with growing pauses.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use rangedb_proto::v1::{self, RangeDescriptor, command, command_reply};

use super::heartbeat::{HEARTBEAT_EVERY, beat};
use super::rollback::Rollback;
use super::Inner;
use crate::command::{self as commands, Reply, unexpected_reply};
use crate::error::{Error, Result};
use crate::key_value::KeyValue;
use crate::retry::{Effect, Retry};

/// What a transaction has locked before its commit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Locks {
    pub primary: Option<Bytes>,
    /// The timestamp up to which a key's versions were seen when it was locked. 0: the lock was asked
    /// for, and nobody knows whether it is there.
    pub keys: BTreeMap<Bytes, u64>,
}

impl Locks {
    /// For the rollback; none if nothing was ever locked.
    pub fn rollback(&self, inner: &Inner) -> Option<Rollback> {
        let primary = self.primary.clone()?;
        let keys = self.keys.keys().cloned().collect();
        Some(Rollback { client: inner.client.clone(), start_ts: inner.start_ts, primary, keys })
    }
}

impl Inner {
    /// Locks the key and returns its newest value.
    pub(super) async fn lock_key(self: &Arc<Self>, key: &Bytes) -> Result<Option<KeyValue>> {
        self.client.view.check_key(key)?;
        self.check_writable()?;
        let net = &*self.client.sender.net;
        let wait = self.options.lock_wait.unwrap_or(self.client.timeout);
        let deadline = net.now().saturating_add(wait);
        let primary = self.begin_lock(key)?;
        let mut retry = Retry::new(net, Effect::Read, deadline);
        loop {
            let for_update_ts = self.client.timestamps.next(deadline).await?.0;
            let acquire = v1::AcquireLocks {
                start_ts: self.start_ts,
                primary: primary.clone(),
                keys: vec![key.clone()],
                for_update_ts,
                alive_until_ms: self.clock.alive_until_ms(net),
            };
            let build = |_: &RangeDescriptor| Some(command::Body::AcquireLocks(acquire.clone()));
            match commands::send(&self.client.sender, key, &build, &mut retry).await? {
                Reply::From(_, command_reply::Body::LocksAcquired(acquired)) => {
                    let mut state = self.open()?;
                    // Of two timestamps the lower is right: nothing has changed since the first.
                    let seen = state.locks.keys.entry(key.clone()).or_insert(0);
                    *seen = if *seen == 0 { for_update_ts } else { *seen };
                    let current = acquired.current.into_iter().next();
                    return Ok(current.filter(|kv| kv.version > 0).map(KeyValue::from));
                }
                Reply::From(_, command_reply::Body::Locked(lock)) => {
                    match self.client.resolver.clear(&lock, deadline).await? {
                        true => retry.unblocked(),
                        false => retry.blocked(lock.into()).await,
                    }
                }
                // Committed since for_update_ts was taken.
                Reply::From(_, command_reply::Body::WriteConflict(conflict)) => {
                    retry.blocked(conflict.into()).await;
                }
                Reply::From(_, command_reply::Body::Aborted(aborted)) => {
                    return Err(Error::Aborted { key: aborted.key });
                }
                _ => return Err(unexpected_reply(&retry)),
            }
        }
    }

    /// Notes that the key may be locked from now on, and returns the primary.
    fn begin_lock(self: &Arc<Self>, key: &Bytes) -> Result<Bytes> {
        let mut state = self.open()?;
        state.locks.keys.entry(key.clone()).or_insert(0);
        if let Some(primary) = &state.locks.primary {
            return Ok(primary.clone());
        }
        state.locks.primary = Some(key.clone());
        let net = &self.client.sender.net;
        net.spawn(Box::pin(keep_locks(Arc::downgrade(self), net.clone())));
        Ok(key.clone())
    }
}

/// Heartbeats until the transaction is gone.
async fn keep_locks(transaction: Weak<Inner>, net: crate::net::SharedNet) {
    loop {
        net.sleep(HEARTBEAT_EVERY).await;
        // Held no longer than this: whoever drops the transaction must not have to wait.
        let Some((sender, primary, start_ts, clock)) = transaction.upgrade().and_then(|inner| {
            let primary = inner.state.lock().unwrap().locks.primary.clone()?;
            Some((inner.client.sender.clone(), primary, inner.start_ts, inner.clock))
        }) else {
            return;
        };
        beat(&sender, &primary, start_ts, clock).await;
    }
}
