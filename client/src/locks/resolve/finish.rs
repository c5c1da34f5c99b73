//! Finishing of locks whose transaction is decided: they are committed or removed.
//!
//! The first lock of a transaction is finished by key, together with those that the client would
//! meet next. If the client meets more, a dead client has left many locks, and the whole range is
//! cleared of them.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{self, KeyLocked, RangeDescriptor, command, command_reply};

use super::{Resolver, TransactionOutcome};
use crate::command::{self as commands, Reply, unexpected_reply};
use crate::error::Result;
use crate::routing::retry::{Retry, RetrySafety};

/// Commands in a row that clear one range. The rest is left for the next client that meets a lock:
/// no request should be delayed by all locks of a transaction of a million keys.
const COMMANDS_MAX: usize = 64;

impl Resolver {
    /// Finishes a lock, and the transaction's locks on `others` that lie in the same range.
    pub(super) async fn finish(
        &self,
        lock: &KeyLocked,
        others: &[Bytes],
        outcome: TransactionOutcome,
        deadline: Duration,
    ) -> Result<()> {
        let commit_ts = match outcome {
            TransactionOutcome::Committed { commit_ts } => commit_ts,
            TransactionOutcome::RolledBack => 0,
            TransactionOutcome::Alive { .. } => return Ok(()),
        };
        if self.note_finished(lock) > 1 && self.finish_range(lock, commit_ts, deadline).await? > 0 {
            return Ok(());
        }
        self.finish_keys(lock, others, commit_ts, deadline).await
    }

    /// Finishes locks by key; `commit_ts` 0: roll back.
    pub(super) async fn finish_keys(
        &self,
        lock: &KeyLocked,
        others: &[Bytes],
        commit_ts: u64,
        deadline: Duration,
    ) -> Result<()> {
        let keys: BTreeSet<&Bytes> = others.iter().chain([&lock.key]).collect();
        let build = |range: &RangeDescriptor| {
            let keys = keys.iter().filter(|key| range.contains(key)).map(|key| (*key).clone());
            Some(command::Body::ResolveLocks(v1::ResolveLocks {
                start_ts: lock.start_ts,
                commit_ts,
                keys: keys.collect(),
                primary: lock.primary.clone(),
                ..Default::default()
            }))
        };
        self.resolve(lock, &build, deadline).await.map(|_| ())
    }

    /// Finishes all locks of the transaction in the range of this lock. Returns their number.
    async fn finish_range(
        &self,
        lock: &KeyLocked,
        commit_ts: u64,
        deadline: Duration,
    ) -> Result<u64> {
        let mut from = Bytes::new();
        let mut finished = 0;
        for _ in 0..COMMANDS_MAX {
            let build = |range: &RangeDescriptor| {
                Some(command::Body::ResolveLocks(v1::ResolveLocks {
                    start_ts: lock.start_ts,
                    commit_ts,
                    keys: Vec::new(),
                    start_key: from.clone().max(range.start_key.clone()),
                    end_key: range.end_key.clone(),
                    primary: lock.primary.clone(),
                }))
            };
            let resolved = self.resolve(lock, &build, deadline).await?;
            finished += resolved.keys;
            if resolved.resume_key <= from {
                break;
            }
            from = resolved.resume_key;
        }
        Ok(finished)
    }

    async fn resolve(
        &self,
        lock: &KeyLocked,
        build: commands::BuildCommand<'_>,
        deadline: Duration,
    ) -> Result<v1::Resolved> {
        let mut retry = Retry::new(&*self.sender.net, RetrySafety::Repeatable, deadline);
        match commands::send(&self.sender, &lock.key, build, &mut retry).await? {
            Reply::From(_, command_reply::Body::Resolved(resolved)) => {
                self.sender.metrics.resolved_locks.add(resolved.keys);
                Ok(resolved)
            }
            _ => Err(unexpected_reply(&retry)),
        }
    }
}
