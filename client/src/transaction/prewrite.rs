//! The first phase: every range locks what is written in it and checks the conditions on its keys.

use bytes::Bytes;
use rangedb_proto::v1::{self, RangeDescriptor, command, command_reply};

use super::buffer::Mutation;
use super::chunks::{Item, Sent, send_all};
use super::two_phase::TwoPhase;
use crate::command::{self as commands, Reply, unexpected_reply};
use crate::error::{Error, Result};
use crate::retry::{Effect, Retry};

/// What a prewrite carries about one key.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Write(Mutation),
    Condition {
        /// Its place among the caller's.
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

impl TwoPhase {
    /// Returns the least timestamp that all ranges allow the transaction to commit at.
    pub(super) async fn prewrite(&self) -> Result<u64> {
        let parts = self.parts.clone();
        #[cfg(feature = "planted")]
        let parts = self.prewrite_late(parts);
        let send = |chunk| self.prewrite_chunk(chunk);
        let least = send_all(&self.client.sender, parts, self.deadline, send).await?;
        Ok(least.into_iter().max().unwrap_or(self.start_ts))
    }

    /// Sends all but the primary's neighbours behind the caller's back.
    #[cfg(feature = "planted")]
    fn prewrite_late(&self, parts: Vec<Part>) -> Vec<Part> {
        if !rangedb_planted::Bug::PrimaryBeforePrewrites.is_planted() {
            return parts;
        }
        let (now, late) = parts.into_iter().partition(|part| *part.key() == self.primary);
        let this = self.clone();
        self.client.background.spawn(Box::pin(async move {
            let send = |chunk| this.prewrite_chunk(chunk);
            let _ = send_all(&this.client.sender, late, this.deadline, send).await;
        }));
        now
    }

    async fn prewrite_chunk(&self, chunk: Vec<Part>) -> Result<Sent<Part, u64>> {
        let net = &*self.client.sender.net;
        let build = |range: &RangeDescriptor| {
            let fits = chunk.iter().all(|part| part.is_in(range));
            fits.then(|| command::Body::Prewrite(self.prewrite_of(&chunk)))
        };
        let mut retry = Retry::new(net, Effect::Read, self.deadline);
        let since = net.now();
        loop {
            let sent = commands::send(&self.client.sender, chunk[0].key(), &build, &mut retry);
            match sent.await? {
                Reply::Regroup => return Ok(Sent::Regroup(chunk)),
                Reply::From(_, command_reply::Body::Prewritten(prewritten)) => {
                    return Ok(Sent::Done(prewritten.min_commit_ts));
                }
                Reply::From(_, command_reply::Body::Locked(lock)) => {
                    let keys: Vec<Bytes> = chunk.iter().map(|part| part.key().clone()).collect();
                    self.give_way(lock, &keys, since, &mut retry).await?;
                }
                Reply::From(_, command_reply::Body::ConditionFailed(failed)) => {
                    return Err(condition_failed(&chunk, failed));
                }
                Reply::From(_, command_reply::Body::WriteConflict(conflict)) => {
                    return Err(conflict.into());
                }
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
            // A key that is locked already needs none, and for any other it would hide a version that
            // the transaction has not seen.
            for_update_ts: 0,
            ..Default::default()
        }
    }
}

/// The command counted the conditions of one range; the caller knows them by their place in all.
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
