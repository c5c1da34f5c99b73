//! Admission of commands, before they are proposed.
//!
//! `check_command` judges a command by itself, and every replica judges the same way. Here is what only
//! a node can judge, because it knows about what the oracle's time is:
//!
//! * Timestamps come from the oracle. One from the future would push up every later commit of the
//!   range, and a commit that the oracle has not passed is missed by transactions that begin after it.
//!   So each timestamp that a command names, above what this node has seen, is confirmed with the
//!   oracle (`oracle_view.rs`) and refused if it is ahead. A near one is proposed at once, and the
//!   answer waits until the oracle has passed it.
//! * Locks live for a bounded time, whatever their client says. What it asks for beyond is cut off
//!   rather than refused: it only estimates the oracle's time, and may be wrong in good faith.

use rangedb_proto::Timestamp;
use rangedb_proto::v1::{
    self, AcquireLocks, CheckSecondaries, CheckTransaction, CollectGarbage, Command, CommitKeys,
    CommitOneRange, HeartbeatLock, Prewrite, ReadCheck, ResolveLocks, RollbackKeys, command,
};

use super::Node;
use super::oracle_view::ORACLE_BEHIND_WAIT;

/// A commit timestamp may be this far ahead of the oracle; then the oracle is waited for. A busy range
/// counts up from its last commit, and what an asynchronous commit was promised there may be ahead by a
/// few; the oracle gets there within a millisecond.
const COMMIT_AHEAD_MS_MAX: u64 = 100;

/// A lock lives until this far above the oracle's time at most, unless there are heartbeats: how long
/// a client that died can hold others up. Clients of this project ask for ten seconds; others may have
/// their reasons for more.
const LOCK_LIFE_MS_MAX: u64 = 60_000;

impl Node {
    /// The command as it may be proposed.
    pub(super) async fn admit(&self, mut command: Command) -> Result<Admitted, v1::Error> {
        let body = command.body.as_mut().expect("check_command refuses a command without a body");
        let Named { handed_out, commit_ts } = named(body);
        self.confirm_unless_near(handed_out, "start_ts").await?;
        if !self.oracle().is_near(commit_ts) {
            self.check_commit_ts(commit_ts).await?;
        }
        if let Some(alive_until_ms) = life(body) {
            if *alive_until_ms > longest_life(self.seen_millis()) {
                // Perhaps it is only long ago that this node saw a timestamp.
                self.oracle().look(Timestamp::MAX).await?;
            }
            *alive_until_ms = longest_life(self.seen_millis()).min(*alive_until_ms);
        }
        Ok(Admitted { command, named: handed_out.max(commit_ts) })
    }

    /// Returns once the oracle has passed the timestamp.
    async fn check_commit_ts(&self, commit_ts: Timestamp) -> Result<(), v1::Error> {
        loop {
            let newest = self.oracle().look(commit_ts).await?;
            if commit_ts <= newest {
                return Ok(());
            }
            if commit_ts.millis() > newest.millis() + COMMIT_AHEAD_MS_MAX {
                return self.confirm(commit_ts, "commit_ts").await;
            }
            self.net.sleep(ORACLE_BEHIND_WAIT).await;
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
    /// The newest timestamp that it names, which the oracle must have passed before the answer is told.
    pub named: Timestamp,
}

/// The timestamps that a command names.
struct Named {
    /// The highest of those that its sender says the oracle gave to somebody.
    handed_out: Timestamp,
    /// Where its transaction commits; 0 if it does not say so. A range may have counted it up.
    commit_ts: Timestamp,
}

/// Every field of every command is taken apart here, so that a new one does not compile without a
/// decision.
fn named(body: &command::Body) -> Named {
    use command::Body;
    let (handed_out, commit_ts) = match body {
        Body::CommitOneRange(CommitOneRange {
            start_ts,
            reads,
            // They are compared with what stands, and believed in nothing.
            conditions: _,
            operations: _,
            return_previous: _,
        }) => (newest_read(reads).max(*start_ts), 0),
        Body::Prewrite(Prewrite {
            start_ts,
            for_update_ts,
            min_commit_ts,
            primary: _,
            conditions: _,
            operations: _,
            // Cut off, see `life`.
            alive_until_ms: _,
            async_commit: _,
            secondaries: _,
        }) => {
            // The transaction commits above what it read.
            let read_ts = min_commit_ts.saturating_sub(1);
            (read_ts.max(*start_ts).max(*for_update_ts), 0)
        }
        Body::CommitKeys(CommitKeys { start_ts, commit_ts, keys: _ }) => (*start_ts, *commit_ts),
        Body::RollbackKeys(RollbackKeys { start_ts, keys: _ }) => (*start_ts, 0),
        Body::CheckTransaction(CheckTransaction {
            start_ts,
            now_ts,
            push_above_ts,
            primary: _,
            // As long as it says, a transaction is left alone: it does no more than wait.
            met_alive_until_ms: _,
        }) => ((*start_ts).max(*now_ts).max(*push_above_ts), 0),
        Body::ResolveLocks(ResolveLocks {
            start_ts,
            commit_ts,
            keys: _,
            start_key: _,
            end_key: _,
            primary: _,
        }) => (*start_ts, *commit_ts),
        Body::HeartbeatLock(HeartbeatLock { start_ts, primary: _, alive_until_ms: _ }) => {
            (*start_ts, 0)
        }
        Body::AcquireLocks(AcquireLocks {
            start_ts,
            for_update_ts,
            primary: _,
            keys: _,
            alive_until_ms: _,
        }) => ((*start_ts).max(*for_update_ts), 0),
        Body::CheckSecondaries(CheckSecondaries { start_ts, keys: _ }) => (*start_ts, 0),
        Body::CollectGarbage(CollectGarbage {
            floor_ts,
            collect_below_ts,
            start_key: _,
            end_key: _,
        }) => ((*floor_ts).max(*collect_below_ts), 0),
    };
    Named { handed_out: Timestamp(handed_out), commit_ts: Timestamp(commit_ts) }
}

/// The newest timestamp that something was read at.
pub(super) fn newest_read(reads: &[ReadCheck]) -> u64 {
    reads.iter().map(|read| read.read_ts).max().unwrap_or_default()
}

/// Until when the command wants locks to live.
fn life(body: &mut command::Body) -> Option<&mut u64> {
    match body {
        command::Body::Prewrite(prewrite) => Some(&mut prewrite.alive_until_ms),
        command::Body::AcquireLocks(acquire) => Some(&mut acquire.alive_until_ms),
        command::Body::HeartbeatLock(heartbeat) => Some(&mut heartbeat.alive_until_ms),
        _ => None,
    }
}

fn longest_life(oracle_ms: u64) -> u64 {
    oracle_ms + LOCK_LIFE_MS_MAX
}

#[cfg(test)]
mod tests;
