//! Resolution of an asynchronous commit whose client is silent. The transaction is committed if all
//! of its locks stand, so they are checked range by range.
//!
//! A lock that is missing when its range is checked can never be placed later, so every client that
//! checks gets the same result. Even so the decision is carried out at the primary first, and the
//! primary's reply counts: the transaction's own client, which may be slow and not dead, decides
//! there too.

use std::time::Duration;

use bytes::Bytes;
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{
    self, KeyLocked, RangeDescriptor, TransactionStatus, command, command_reply,
    transaction_status::State,
};

use super::{Resolver, TransactionOutcome};
use crate::command::{self as commands, Reply, unexpected_reply};
use crate::error::{Error, Result};
use crate::routing::retry::{Retry, RetrySafety};
use crate::transaction::chunks::{Sent, send_all};

/// Result of checking the locks in one range.
#[derive(Clone, Copy)]
enum Verdict {
    /// All locks stand; the transaction commits at this timestamp or above.
    Stand {
        min_commit_ts: u64,
    },
    Committed {
        commit_ts: u64,
    },
    RolledBack,
}

impl Resolver {
    /// Decides an asynchronous commit whose primary lock has expired; `status` is the primary's
    /// reply.
    pub(super) async fn decide_async_commit(
        &self,
        lock: &KeyLocked,
        status: TransactionStatus,
        deadline: Duration,
    ) -> Result<TransactionOutcome> {
        let mut secondaries = status.secondaries;
        secondaries.sort();
        let check = |chunk| self.check_secondaries(lock.start_ts, chunk, deadline);
        let verdicts = send_all(&self.sender, secondaries, deadline, check).await?;
        let mut commit_ts = Some(status.min_commit_ts);
        for verdict in &verdicts {
            commit_ts = match *verdict {
                Verdict::Stand { min_commit_ts } => commit_ts.map(|ts| ts.max(min_commit_ts)),
                Verdict::Committed { .. } => commit_ts,
                Verdict::RolledBack => None,
            };
        }
        // A lock that is already committed overrides the result of the others.
        for verdict in verdicts {
            if let Verdict::Committed { commit_ts: decided } = verdict {
                commit_ts = Some(decided);
            }
        }
        let primary = KeyLocked { key: lock.primary.clone(), ..lock.clone() };
        self.finish_keys(&primary, &[], commit_ts.unwrap_or(0), deadline).await?;
        let (status, _) = self.check_transaction(lock, 0, deadline).await?;
        Ok(TransactionOutcome::of(&status))
    }

    async fn check_secondaries(
        &self,
        start_ts: u64,
        chunk: Vec<Bytes>,
        deadline: Duration,
    ) -> Result<Sent<Bytes, Verdict>> {
        let build = |range: &RangeDescriptor| {
            let fits = chunk.iter().all(|key| range.contains(key));
            let keys = chunk.clone();
            fits.then(|| command::Body::CheckSecondaries(v1::CheckSecondaries { start_ts, keys }))
        };
        let mut retry = Retry::new(&*self.sender.net, RetrySafety::Repeatable, deadline);
        let verdict = match commands::send(&self.sender, &chunk[0], &build, &mut retry).await? {
            Reply::Regroup => return Ok(Sent::Regroup(chunk)),
            Reply::From(_, command_reply::Body::TransactionStatus(status)) => {
                match status.state() {
                    State::Alive => Verdict::Stand { min_commit_ts: status.min_commit_ts },
                    State::Committed => Verdict::Committed { commit_ts: status.commit_ts },
                    State::RolledBack => Verdict::RolledBack,
                }
            }
            Reply::From(..) => return Err(unexpected_reply(&retry)),
        };
        if matches!(verdict, Verdict::Stand { min_commit_ts: 0 }) {
            return Err(Error::protocol("locks stand without a time to commit at"));
        }
        Ok(Sent::Done(verdict))
    }
}
