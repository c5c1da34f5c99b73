//! Rollback of an uncommitted transaction in the ranges.
//!
//! The primary is rolled back first, and the other keys only once that is confirmed. If the
//! primary's commit was in flight when the coordinator gave up, the primary may answer that it is
//! committed. Then nothing may be undone.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{self, RangeDescriptor, command, command_reply};

use super::chunks::{Sent, send_all, time_for};
use crate::client::Client;
use crate::command::{self as commands, Reply, unexpected_reply};
use crate::error::{Error, Result};
use crate::routing::retry::{Retry, RetrySafety};

/// Time for each chunk of a rollback. If a chunk does not get through, the locks behind it expire.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for which the caller of a failed commit waits for its rollback: enough for a healthy
/// cluster. A longer rollback goes on in the background.
const CLEAN_UP_WAIT: Duration = Duration::from_millis(500);

/// A rollback of one transaction in all of its ranges.
#[derive(Clone)]
pub(crate) struct Rollback {
    pub client: Client,
    pub start_ts: u64,
    pub primary: Bytes,
    /// Every key that may carry a lock, in key order.
    pub keys: Vec<Bytes>,
}

impl Rollback {
    pub async fn run(&self) -> Result<RollbackOutcome> {
        if let committed @ RollbackOutcome::Committed { .. } = self.roll_back_primary().await? {
            return Ok(committed);
        }
        let keys = self.keys.iter().filter(|key| **key != self.primary).cloned();
        let keys: Vec<Bytes> = keys.collect();
        let deadline = self.client.sender.net.now() + time_for(keys.len(), ROLLBACK_TIMEOUT);
        let send = |chunk| self.roll_back(chunk);
        send_all(&self.client.sender, keys, deadline, send).await?;
        Ok(RollbackOutcome::RolledBack)
    }

    /// Rolls the primary back. Afterwards the transaction is rolled back for good, or was committed
    /// before.
    pub async fn roll_back_primary(&self) -> Result<RollbackOutcome> {
        match self.roll_back(vec![self.primary.clone()]).await? {
            Sent::Done(outcome) => Ok(outcome),
            Sent::Regroup(_) => {
                Err(Error::protocol("a range does not hold the key it was found by"))
            }
        }
    }

    async fn roll_back(&self, chunk: Vec<Bytes>) -> Result<Sent<Bytes, RollbackOutcome>> {
        let build = |range: &RangeDescriptor| {
            let fits = chunk.iter().all(|key| range.contains(key));
            let (start_ts, keys) = (self.start_ts, chunk.clone());
            fits.then(|| command::Body::RollbackKeys(v1::RollbackKeys { start_ts, keys }))
        };
        let sender = &self.client.sender;
        let deadline = sender.net.now() + ROLLBACK_TIMEOUT;
        let mut retry = Retry::new(&*sender.net, RetrySafety::Repeatable, deadline);
        match commands::send(sender, &chunk[0], &build, &mut retry).await? {
            Reply::Regroup => Ok(Sent::Regroup(chunk)),
            Reply::From(_, command_reply::Body::Resolved(_)) => {
                Ok(Sent::Done(RollbackOutcome::RolledBack))
            }
            Reply::From(_, command_reply::Body::Committed(committed)) => {
                Ok(Sent::Done(RollbackOutcome::Committed { commit_ts: committed.commit_ts }))
            }
            Reply::From(..) => Err(unexpected_reply(&retry)),
        }
    }

    pub fn in_background(self) {
        let background = self.client.background.clone();
        background.spawn(Box::pin(async move {
            if let Err(error) = self.run().await {
                tracing::debug!(start_ts = self.start_ts, %error, "locks are left to expire");
            }
        }));
    }
}

/// Outcome of a rollback.
pub(crate) enum RollbackOutcome {
    RolledBack,
    /// The transaction was committed before.
    Committed {
        commit_ts: u64,
    },
}

/// Guard that rolls back in the background when it is dropped, unless `forget` was called.
pub(crate) struct Abandoned {
    rollback: Option<Rollback>,
}

impl Abandoned {
    pub fn new(rollback: Rollback) -> Self {
        Abandoned { rollback: Some(rollback) }
    }

    /// Disarms the guard: the locks are handled elsewhere, or left to expire.
    pub fn forget(&mut self) {
        self.rollback = None;
    }

    /// Rolls back now, and in the background if that takes long. Returns the commit timestamp if
    /// the transaction turns out to be committed.
    pub async fn clean_up(mut self) -> Option<u64> {
        let rollback = self.rollback.clone()?;
        let net = rollback.client.sender.net.clone();
        let run = pin!(rollback.run());
        match select(run, net.sleep(CLEAN_UP_WAIT)).await {
            Either::Left((Ok(outcome), _)) => {
                self.forget();
                if let RollbackOutcome::Committed { commit_ts } = outcome {
                    return Some(commit_ts);
                }
            }
            Either::Left((Err(error), _)) => {
                tracing::debug!(start_ts = rollback.start_ts, %error, "locks are left to expire");
                self.forget();
            }
            Either::Right(_) => {}
        }
        None
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some(rollback) = self.rollback.take() {
            rollback.in_background();
        }
    }
}
