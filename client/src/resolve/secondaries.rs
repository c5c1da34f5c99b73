//! A transaction of an asynchronous commit whose client is silent: it is committed if all of its locks
//! stand, so they are looked at, range by range.
//!
//! A lock that is not there never comes once its range was asked, so the answer is the same for
//! everybody who asks. Even so the decision is carried out at the primary first, and what the primary
//! says then is what counts: its own client, which may be slow and not dead, decides there too.

use std::time::Duration;

use bytes::Bytes;
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{
    self, KeyLocked, RangeDescriptor, TransactionStatus, command, command_reply,
    transaction_status::State,
};

use super::{Fate, Resolver};
use crate::command::{self as commands, Reply, unexpected_reply};
use crate::error::{Error, Result};
use crate::retry::{Effect, Retry};
use crate::transaction::chunks::{Sent, send_all};

/// What the locks in one range say.
#[derive(Clone, Copy)]
enum Verdict {
    /// All stand; the transaction commits at this timestamp or above.
    Stand {
        min_commit_ts: u64,
    },
    Committed {
        commit_ts: u64,
    },
    RolledBack,
}

impl Resolver {
    /// `status` is what the primary said, whose lock has expired.
    pub(super) async fn settle(
        &self,
        lock: &KeyLocked,
        status: TransactionStatus,
        deadline: Duration,
    ) -> Result<Fate> {
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
        // One that is committed knows better than any sum.
        for verdict in verdicts {
            if let Verdict::Committed { commit_ts: decided } = verdict {
                commit_ts = Some(decided);
            }
        }
        let primary = KeyLocked { key: lock.primary.clone(), ..lock.clone() };
        self.finish_keys(&primary, &[], commit_ts.unwrap_or(0), deadline).await?;
        let (status, _) = self.check_transaction(lock, 0, deadline).await?;
        Ok(Fate::of(&status))
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
        let mut retry = Retry::new(&*self.sender.net, Effect::Read, deadline);
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
