//! Ends of a transaction: the choice of a commit's path, and the rollback of a transaction without
//! one.

use std::sync::Arc;

use bytes::Bytes;
use rangedb_proto::v1::{self, condition};
use rangedb_proto::{COMMAND_BYTES_MAX, Timestamp};

use super::Isolation;
use super::buffer::Mutation;
use super::chunks::Item;
use super::locking::PessimisticLocks;
use super::phases::Phase;
use super::prewrite::Part;
use super::read_set::Check;
use super::rollback::Abandoned;
use super::two_phase::{TwoPhase, parts_in_order};
use super::{Inner, State};
use rangedb_proto::limits::{ASYNC_COMMIT_BYTES_MAX, ASYNC_COMMIT_KEYS_MAX};

use crate::error::{Error, Result};
use crate::keys::Span;
use crate::metrics::Path;
use crate::one_range;
use crate::trace::traced;

impl Inner {
    pub(super) async fn commit(self: &Arc<Self>) -> Result<Timestamp> {
        let sender = &self.client.sender;
        let mut path = Path::ReadOnly;
        let mut keys = 0;
        let commit = self.commit_by(&mut path, &mut keys);
        let outcome = traced(&*sender.net, "commit", commit).await;
        sender.metrics.ended(&outcome, path);
        if let Err(Error::WriteConflict { key, .. }) = &outcome {
            self.client.turns.met_conflict(key);
        }
        if self.phases.total() >= sender.slow_transaction {
            let isolation = match self.options.isolation {
                Isolation::Serializable => "serializable",
                Isolation::Snapshot => "snapshot",
            };
            let end = outcome.as_ref().err().map(ToString::to_string);
            let end = end.as_deref().unwrap_or("committed");
            self.phases.warn(self.start_ts(), isolation, path.name(), end, keys);
        }
        outcome
    }

    /// Commits. Leaves `path` at the path that was tried last, and `keys` at the number of written
    /// keys.
    async fn commit_by(self: &Arc<Self>, path: &mut Path, keys: &mut usize) -> Result<Timestamp> {
        let State { buffer, reads, locks, conditions, .. } = self.end()?;
        let writes = buffer.into_mutations();
        *keys = writes.len();
        if writes.is_empty() && locks.primary.is_none() {
            // No lock was confirmed. A lock that was requested in vain may still stand.
            if let Some(rollback) = locks.rollback(self) {
                Abandoned::new(rollback).clean_up().await;
            }
            return Ok(Timestamp(self.start_ts()));
        }
        let isolation = self.options.isolation;
        let mut checks = isolation.validated(reads, self.start_ts());
        if locks.keys.is_empty() {
            *path = Path::OneRange;
            let checked = isolation.checked_in_one_range(&checks, &writes, self.start_ts());
            if let Some(commit_ts) = self.commit_one_range(&writes, &conditions, &checked).await? {
                return Ok(commit_ts);
            }
        }
        // A condition must still hold at the commit timestamp, so its key is validated like a read.
        checks.extend(conditions.iter().map(|condition| Check {
            span: Span::of_key(&condition.key),
            read_ts: self.start_ts(),
        }));
        *path = Path::TwoPhase;
        let commit = self.two_phase(writes, conditions, checks, locks);
        let (commit_ts, was_async) = commit.commit().await?;
        if was_async {
            *path = Path::Async;
        }
        Ok(commit_ts)
    }

    /// Commits in one range. None: the keys lie in several ranges, or are too many for one command.
    async fn commit_one_range(
        &self,
        writes: &[Mutation],
        conditions: &[v1::Condition],
        checks: &[Check],
    ) -> Result<Option<Timestamp>> {
        let bytes = writes.iter().map(Item::bytes).sum::<usize>()
            + conditions.iter().map(condition_bytes).sum::<usize>()
            + checks.iter().map(Item::bytes).sum::<usize>();
        if bytes > COMMAND_BYTES_MAX {
            return Ok(None);
        }
        let written = writes.iter().map(|write| Span::of_key(&write.key));
        let conditioned = conditions.iter().map(|condition| Span::of_key(&condition.key));
        let checked = checks.iter().map(|check| check.span.clone());
        let spans = written.chain(conditioned).chain(checked);
        let hull = spans.reduce(Span::hull).expect("a transaction that writes has a key");
        let command = v1::CommitOneRange {
            start_ts: 0,
            conditions: conditions.to_vec(),
            operations: writes.iter().map(Mutation::operation).collect(),
            return_previous: false,
            reads: checks.iter().map(Check::to_wire).collect(),
        };
        let deadline = self.client.deadline();
        let commit = one_range::commit(&self.client, command, &hull, deadline);
        let net = &*self.client.sender.net;
        let committed = self.phases.time(Phase::OneRange, net, commit).await?;
        Ok(committed.map(|committed| Timestamp(committed.commit_ts)))
    }

    fn two_phase(
        &self,
        writes: Vec<Mutation>,
        conditions: Vec<v1::Condition>,
        mut checks: Vec<Check>,
        locks: PessimisticLocks,
    ) -> TwoPhase {
        let is_written = |key: &Bytes| writes.binary_search_by(|w| w.key.cmp(key)).is_ok();
        let mut locked_only = Vec::new();
        for (key, seen) in &locks.keys {
            if !is_written(key) {
                locked_only.push(key.clone());
                if *seen > 0 {
                    checks.push(Check { span: Span::of_key(key), read_ts: *seen });
                }
            }
        }
        checks.sort_by(|a, b| a.span.start.cmp(&b.span.start));
        let first_written = writes.first().map(|write| write.key.clone());
        let primary = locks.primary.or(first_written);
        let conditions = conditions.into_iter().enumerate();
        let conditions = conditions.map(|(index, condition)| Part::Condition { index, condition });
        let is_small = is_small(&writes);
        let parts = parts_in_order(writes.into_iter().map(Part::Write).chain(conditions).collect());
        let wants_async = checks.is_empty() && locked_only.is_empty() && is_small;
        TwoPhase {
            client: self.client.clone(),
            start_ts: self.start_ts(),
            clock: self.clock,
            deadline: self.client.deadline(),
            primary: primary.expect("a transaction that wrote or locked has a key"),
            parts,
            checks,
            locked_only,
            min_commit_ts: locks.keys.values().max().map_or(0, |seen| seen + 1),
            wants_async,
            phases: self.phases.clone(),
        }
    }

    pub(super) async fn roll_back(self: &Arc<Self>) -> Result<()> {
        // Rolled back already.
        if self.state.lock().failed.is_some() {
            return Ok(());
        }
        let locks = self.end()?.locks;
        if let Some(rollback) = locks.rollback(self) {
            Abandoned::new(rollback).clean_up().await;
        }
        Ok(())
    }

    /// Ends the transaction and returns its state. From here on only the caller knows the locks;
    /// the heartbeats of the primary go on until the caller is done.
    pub(super) fn end(&self) -> Result<State> {
        let mut state = self.open()?;
        let locks = state.locks.for_heartbeats();
        let left = State { ended: true, locks, ..State::default() };
        Ok(std::mem::replace(&mut *state, left))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if state.ended {
            return;
        }
        let locks = std::mem::take(&mut state.locks);
        if let Some(rollback) = locks.rollback(self) {
            rollback.in_background();
        }
    }
}

/// True if an asynchronous commit may name all of its keys in one lock.
fn is_small(writes: &[Mutation]) -> bool {
    let key_bytes: usize = writes.iter().map(|write| write.key.len()).sum();
    writes.len() <= ASYNC_COMMIT_KEYS_MAX && key_bytes <= ASYNC_COMMIT_BYTES_MAX
}

fn condition_bytes(condition: &v1::Condition) -> usize {
    let value = match &condition.test {
        Some(condition::Test::Value(value)) => value.len(),
        _ => 0,
    };
    condition.key.len() + value
}
