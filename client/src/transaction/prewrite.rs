//! Prewrite, the first phase: every range locks the keys that are written in it and checks
//! conditions.

use bytes::Bytes;
use rangedb_proto::v1::{self, RangeDescriptor, command, command_reply};

use super::buffer::Mutation;
use super::chunks::{Item, Sent, send_all};
use super::two_phase::{TwoPhase, WAIT_FOR_OLDER_MAX};
use crate::command::{self as commands, Reply, unexpected_reply};
use crate::error::{Error, Result};
use crate::locks::wait::{HOLD_MAX, LockWaiter};
use crate::planted::planted;
use crate::routing::retry::{Retry, RetrySafety};

/// Part of a prewrite for one key.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Write(Mutation),
    Condition {
        /// Index among the caller's conditions.
        index: usize,
        condition: v1::Condition,
    },
}

impl Item for Part {
    fn key(&self) -> &Bytes {
        match self {
            Part::Write(mutation) => &mutation.key,
            Part::Condition { condition, .. } => &condition.key,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Part::Write(mutation) => mutation.bytes(),
            Part::Condition { condition, .. } => {
                let value = match &condition.test {
                    Some(v1::condition::Test::Value(value)) => value.len(),
                    _ => 0,
                };
                condition.key.len() + value
            }
        }
    }
}

/// Outcome of the first phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prewrote {
    /// All locks stand, and the transaction may commit at this timestamp or above.
    Locks {
        min_commit_ts: u64,
        /// All of them are of an asynchronous commit: committed, with `min_commit_ts` as the commit
        /// timestamp.
        is_async: bool,
    },
    /// Another client took this one for dead, found all locks, and finished the commit.
    Committed { commit_ts: u64 },
}

impl Prewrote {
    fn and(self, other: Prewrote) -> Prewrote {
        match (self, other) {
            (Prewrote::Committed { .. }, _) => self,
            (_, Prewrote::Committed { .. }) => other,
            (
                Prewrote::Locks { min_commit_ts: one, is_async: first },
                Prewrote::Locks { min_commit_ts: two, is_async: second },
            ) => Prewrote::Locks { min_commit_ts: one.max(two), is_async: first && second },
        }
    }
}

impl TwoPhase {
    pub(super) async fn prewrite(&self) -> Result<Prewrote> {
        let parts = self.parts.clone();
        let parts =
            if planted!(PrimaryBeforePrewrites) { self.prewrite_late(parts) } else { parts };
        let send = |chunk| self.prewrite_chunk(chunk);
        let chunks = send_all(&self.client.sender, parts, self.deadline, send).await?;
        let all = chunks.into_iter().reduce(Prewrote::and);
        // A transaction that only locked has nothing to prewrite.
        Ok(all.unwrap_or(Prewrote::Locks { min_commit_ts: self.start_ts, is_async: false }))
    }

    /// Planted bug: sends all parts but those of the primary's key in the background.
    fn prewrite_late(&self, parts: Vec<Part>) -> Vec<Part> {
        let (now, late) = parts.into_iter().partition(|part| *part.key() == self.primary);
        let this = self.clone();
        self.client.background.spawn(Box::pin(async move {
            let send = |chunk| this.prewrite_chunk(chunk);
            let _ = send_all(&this.client.sender, late, this.deadline, send).await;
        }));
        now
    }

    /// Prewrites one chunk.
    ///
    /// # Errors
    ///
    /// For an asynchronous commit, `Undetermined` if the locks may stand all the same.
    async fn prewrite_chunk(&self, chunk: Vec<Part>) -> Result<Sent<Part, Prewrote>> {
        let sender = &*self.client.sender;
        let build = |range: &RangeDescriptor| {
            let fits = chunk.iter().all(|part| part.is_in(range));
            fits.then(|| command::Body::Prewrite(self.prewrite_of(&chunk)))
        };
        // Prewrites decide nothing, except those of an asynchronous commit.
        let effect =
            if self.wants_async { RetrySafety::Recognised } else { RetrySafety::Repeatable };
        let mut retry = Retry::new(&*sender.net, effect, self.deadline);
        let mut waiter = LockWaiter::new(sender, self.clock);
        loop {
            let most = match waiter.holder_is_younger_than(self.start_ts) {
                true => HOLD_MAX,
                false => WAIT_FOR_OLDER_MAX,
            };
            let until = waiter.hold_until(most, &mut retry);
            let sent = commands::send_held(sender, chunk[0].key(), until, &build, &mut retry);
            match sent.await? {
                Reply::Regroup => return Ok(Sent::Regroup(chunk)),
                Reply::From(range, command_reply::Body::Prewritten(prewritten)) => {
                    self.phases.writes_in(range.range_id);
                    let is_async = self.wants_async && prewritten.async_commit;
                    let min_commit_ts = prewritten.min_commit_ts;
                    return Ok(Sent::Done(Prewrote::Locks { min_commit_ts, is_async }));
                }
                Reply::From(_, command_reply::Body::Committed(committed)) if self.wants_async => {
                    let commit_ts = committed.commit_ts;
                    return Ok(Sent::Done(Prewrote::Committed { commit_ts }));
                }
                Reply::From(_, command_reply::Body::Locked(lock)) => {
                    let keys: Vec<Bytes> = chunk.iter().map(|part| part.key().clone()).collect();
                    self.give_way(lock, &keys, &mut waiter, &mut retry).await?;
                }
                Reply::From(_, command_reply::Body::ConditionFailed(failed)) => {
                    return Err(condition_failed(&chunk, failed));
                }
                Reply::From(_, command_reply::Body::WriteConflict(conflict)) => {
                    return Err(conflict.into());
                }
                // Final, also after a lost answer: nothing commits after a rollback record.
                Reply::From(_, command_reply::Body::Aborted(aborted)) => {
                    return Err(Error::Aborted { key: aborted.key });
                }
                Reply::From(..) => return Err(unexpected_reply(&retry)),
            }
        }
    }

    fn prewrite_of(&self, chunk: &[Part]) -> v1::Prewrite {
        let mut conditions = Vec::new();
        let mut operations = Vec::new();
        for part in chunk {
            match part {
                Part::Write(mutation) => operations.push(mutation.operation()),
                Part::Condition { condition, .. } => conditions.push(condition.clone()),
            }
        }
        v1::Prewrite {
            start_ts: self.start_ts,
            primary: self.primary.clone(),
            conditions,
            operations,
            alive_until_ms: self.clock.alive_until_ms(&*self.client.sender.net),
            // A key that is locked already needs no for_update_ts. For any other key it would hide
            // a version that the transaction has not seen.
            for_update_ts: 0,
            async_commit: self.wants_async,
            secondaries: self.secondaries_at(chunk),
            min_commit_ts: self.min_commit_ts,
        }
    }

    /// The keys that the primary lock names, if the chunk holds the primary of an asynchronous
    /// commit.
    fn secondaries_at(&self, chunk: &[Part]) -> Vec<Bytes> {
        if !self.wants_async || chunk.iter().all(|part| *part.key() != self.primary) {
            return Vec::new();
        }
        self.written().filter(|key| **key != self.primary).cloned().collect()
    }
}

/// Converts a failed condition: the command counts the conditions of one range, the caller counts
/// all.
fn condition_failed(chunk: &[Part], failed: v1::ConditionFailed) -> Error {
    let mut conditions = chunk.iter().filter_map(|part| match part {
        Part::Condition { index, condition } => Some((*index, &condition.key)),
        Part::Write(_) => None,
    });
    match conditions.nth(failed.index as usize) {
        Some((condition_index, key)) => Error::Conflict {
            key: key.clone(),
            condition_index,
            actual: failed.actual.map(|kv| Box::new(kv.into())),
        },
        None => Error::protocol("a condition failed that was not asked for"),
    }
}
