//! Admission control for commands, before they are proposed.
//!
//! `check_command` judges a command by itself, with the same result on every replica. The rules
//! here need the oracle's approximate time, which only a node knows:
//!
//! * Timestamps come from the oracle. A timestamp from the future would push up every later commit
//!   of the range. A commit that the oracle has not passed is missed by transactions that begin
//!   after it. So each timestamp of a command above the newest one seen here is confirmed with the
//!   oracle (`oracle_view.rs`), and refused if it is ahead. A near timestamp is proposed at once,
//!   and the answer waits until the oracle has passed it.
//! * Locks live for a bounded time, whatever their client requests. A longer life is cut off rather
//!   than refused: the client only estimates the oracle's time, and may be wrong in good faith.

use rangedb_proto::Timestamp;
use rangedb_proto::limits::LOCK_TTL_MAX;
use rangedb_proto::v1::{self, Command};
use rangedb_txn::{NamedTimestamps, facts, facts_mut};

use super::Node;
use super::oracle_view::ORACLE_BEHIND_WAIT;

/// Lead of a commit timestamp over the oracle, in milliseconds, up to which the node waits for the
/// oracle. A busy range counts up from its last commit, and the `min_commit_ts` of an asynchronous
/// commit there may be a few counts ahead. The oracle passes that within a millisecond.
const COMMIT_AHEAD_MS_MAX: u64 = 100;

impl Node {
    /// Returns the command as it may be proposed, or refuses it.
    pub(super) async fn admit(&self, mut command: Command) -> Result<Admitted, v1::Error> {
        let body = command.body.as_mut().expect("check_command refuses a command without a body");
        let NamedTimestamps { handed_out, commit_ts } = facts(body).timestamps();
        self.confirm_unless_near(handed_out, "start_ts").await?;
        if !self.oracle().is_near(commit_ts) {
            self.check_commit_ts(commit_ts).await?;
        }
        if let Some(alive_until_ms) = facts_mut(body).alive_until_ms() {
            if *alive_until_ms > longest_life(self.seen_millis()) {
                // This node may not have seen a timestamp for long: the oracle is asked for a fresh
                // one.
                self.oracle().look(Timestamp::MAX).await?;
            }
            *alive_until_ms = longest_life(self.seen_millis()).min(*alive_until_ms);
        }
        Ok(Admitted { command, named: handed_out.max(commit_ts) })
    }

    /// Waits until the oracle has passed the timestamp. Refuses one that is too far ahead.
    async fn check_commit_ts(&self, commit_ts: Timestamp) -> Result<(), v1::Error> {
        loop {
            let newest = self.oracle().look(commit_ts).await?;
            if commit_ts <= newest {
                return Ok(());
            }
            if commit_ts.millis() > newest.millis() + COMMIT_AHEAD_MS_MAX {
                return self.confirm(commit_ts, "commit_ts").await;
            }
            self.around.net.sleep(ORACLE_BEHIND_WAIT).await;
        }
    }

    fn seen_millis(&self) -> u64 {
        Timestamp(self.newest_timestamp()).millis()
    }
}

/// A command that may be proposed.
#[derive(Debug)]
pub(super) struct Admitted {
    pub command: Command,
    /// The newest timestamp in the command. The oracle must pass it before the answer is returned.
    pub named: Timestamp,
}

fn longest_life(oracle_ms: u64) -> u64 {
    oracle_ms + LOCK_TTL_MAX.as_millis() as u64
}

#[cfg(test)]
mod tests;
