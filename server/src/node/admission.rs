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
use rangedb_proto::v1::{
    self, AcquireLocks, CheckSecondaries, CheckTransaction, CollectGarbage, Command, CommitKeys,
    CommitOneRange, HeartbeatLock, Prewrite, ReadCheck, ResolveLocks, RollbackKeys, command,
};

use rangedb_proto::limits::LOCK_TTL_MAX;

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
        let Named { handed_out, commit_ts } = named(body);
        self.confirm_unless_near(handed_out, "start_ts").await?;
        if !self.oracle().is_near(commit_ts) {
            self.check_commit_ts(commit_ts).await?;
        }
        if let Some(alive_until_ms) = life(body) {
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
    /// The newest timestamp in the command. The oracle must pass it before the answer is returned.
    pub named: Timestamp,
}

/// The timestamps that a command names.
struct Named {
    /// The highest of those that the oracle handed out, according to the sender.
    handed_out: Timestamp,
    /// The transaction's commit timestamp, or 0 if the command has none. A range may have counted
    /// it up.
    commit_ts: Timestamp,
}

/// Returns the timestamps that a command names. Every field of every command is destructured, so
/// that a new field does not compile until its author has decided on it.
fn named(body: &command::Body) -> Named {
    use command::Body;
    let (handed_out, commit_ts) = match body {
        Body::CommitOneRange(CommitOneRange {
            start_ts,
            reads,
            // Conditions are compared with the stored state. They are not used as timestamps.
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
            // Cut off by `admit`.
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
            // While this is in the future, the transaction is left alone. That only makes the
            // sender wait.
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

/// The newest timestamp at which a transaction read.
pub(super) fn newest_read(reads: &[ReadCheck]) -> u64 {
    reads.iter().map(|read| read.read_ts).max().unwrap_or_default()
}

/// The time until which the command's locks are to live, if it sets one.
fn life(body: &mut command::Body) -> Option<&mut u64> {
    match body {
        command::Body::Prewrite(prewrite) => Some(&mut prewrite.alive_until_ms),
        command::Body::AcquireLocks(acquire) => Some(&mut acquire.alive_until_ms),
        command::Body::HeartbeatLock(heartbeat) => Some(&mut heartbeat.alive_until_ms),
        _ => None,
    }
}

fn longest_life(oracle_ms: u64) -> u64 {
    oracle_ms + LOCK_TTL_MAX.as_millis() as u64
}

#[cfg(test)]
mod tests;
