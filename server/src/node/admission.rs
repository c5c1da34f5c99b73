//! What a command may bring with it, looked at before it is proposed.
//!
//! `check_command` judges a command by itself, and every replica judges the same way. Here is what only
//! a node can judge, because it knows about what the oracle's time is and who asks:
//!
//! * Keys under `_/` belong to the control plane, which does not come this way. A lock may not point
//!   there either: whoever met it could not ask what became of its transaction, so it would stand for
//!   ever.
//! * Timestamps come from the oracle. One from the future would push up every later commit of the
//!   range. Where a transaction is to commit is never taken on trust: a commit that the oracle has not
//!   passed is missed by transactions that begin after it.
//! * Locks live for a bounded time, whatever their client says. What it asks for beyond is cut off
//!   rather than refused: it only estimates the oracle's time, and may be wrong in good faith.
//!
//! What is left out: other timestamps are believed for [`UNSEEN_MS_MAX`], so that a command costs no
//! round to the oracle.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rangedb_proto::v1::{self, Command, CommitOneRange, Operation, command, operation};
use rangedb_proto::{SYSTEM_PREFIX, Timestamp, prefix_end};
use rangedb_txn::is_system_key;

use super::Node;

/// A command's timestamps may be this far above the highest one that this node has seen; further up,
/// the oracle is asked. Nodes see a fresh one with every heartbeat.
const UNSEEN_MS_MAX: u64 = 3_000;

/// A commit timestamp may be this far ahead of the oracle; then the oracle is waited for. A busy range
/// counts up from its last commit, and what an asynchronous commit was promised there may be ahead by a
/// few; the oracle gets there within a millisecond.
const COMMIT_AHEAD_MS_MAX: u64 = 100;

/// Between two looks at an oracle that is behind.
const ORACLE_BEHIND_WAIT: Duration = Duration::from_millis(1);

/// A lock lives until this far above the oracle's time at most, unless there are heartbeats: how long
/// a client that died can hold others up. Clients of this project ask for ten seconds; others may have
/// their reasons for more.
const LOCK_LIFE_MS_MAX: u64 = 60_000;

impl Node {
    /// The command as it may be proposed.
    pub(super) async fn admit(&self, mut command: Command) -> Result<Command, v1::Error> {
        let body = command.body.as_mut().expect("check_command refuses a command without a body");
        refuse_system_keys(body)?;
        let newest = newest_timestamp(body);
        if newest.millis() > self.seen_millis() + UNSEEN_MS_MAX {
            self.check_handed_out(newest, "start_ts").await?;
        }
        self.check_commit_ts(commit_ts(body)).await?;
        if let Some(alive_until_ms) = life(body) {
            if *alive_until_ms > longest_life(self.seen_millis()) {
                // Perhaps it is only long ago that this node saw a timestamp.
                let fresh = self.gateway.timestamp().await.map_err(v1::Error::from)?;
                self.saw(fresh.0);
            }
            *alive_until_ms = longest_life(self.seen_millis()).min(*alive_until_ms);
        }
        self.highest_named.fetch_max(newest.0, Ordering::Relaxed);
        Ok(command)
    }

    /// Returns once the oracle has passed the timestamp.
    async fn check_commit_ts(&self, commit_ts: Timestamp) -> Result<(), v1::Error> {
        while commit_ts.0 > self.newest_timestamp() {
            let fresh = self.gateway.timestamp().await.map_err(v1::Error::from)?;
            self.saw(fresh.0);
            if commit_ts.millis() > fresh.millis() + COMMIT_AHEAD_MS_MAX {
                return self.check_handed_out(commit_ts, "commit_ts").await;
            }
            if commit_ts > fresh {
                self.net.sleep(ORACLE_BEHIND_WAIT).await;
            }
        }
        Ok(())
    }

    fn seen_millis(&self) -> u64 {
        Timestamp(self.newest_timestamp()).millis()
    }
}

/// The highest timestamp that a command brings with it, but for where it commits.
fn newest_timestamp(body: &command::Body) -> Timestamp {
    use command::Body;
    let newest = match body {
        Body::CommitOneRange(commit) => commit.start_ts,
        Body::Prewrite(prewrite) => {
            let read_ts = prewrite.min_commit_ts.saturating_sub(1);
            prewrite.start_ts.max(prewrite.for_update_ts).max(read_ts)
        }
        Body::CommitKeys(commit) => commit.start_ts,
        Body::RollbackKeys(rollback) => rollback.start_ts,
        Body::CheckTransaction(check) => check.start_ts.max(check.now_ts).max(check.push_above_ts),
        Body::ResolveLocks(resolve) => resolve.start_ts,
        Body::HeartbeatLock(heartbeat) => heartbeat.start_ts,
        Body::AcquireLocks(acquire) => acquire.start_ts.max(acquire.for_update_ts),
        Body::CheckSecondaries(check) => check.start_ts,
        Body::CollectGarbage(collect) => collect.floor_ts.max(collect.collect_below_ts),
    };
    Timestamp(newest)
}

/// Where the command says that a transaction commits; 0 if it does not say so.
fn commit_ts(body: &command::Body) -> Timestamp {
    Timestamp(match body {
        command::Body::CommitKeys(commit) => commit.commit_ts,
        command::Body::ResolveLocks(resolve) => resolve.commit_ts,
        _ => 0,
    })
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

/// Only the control plane writes under `_/`, and it does not come this way.
fn refuse_system_keys(body: &command::Body) -> Result<(), v1::Error> {
    use command::Body;
    let refused = match body {
        Body::CommitOneRange(CommitOneRange { operations, .. }) => {
            operations.iter().any(is_system_write)
        }
        Body::Prewrite(prewrite) => {
            prewrite.operations.iter().any(is_system_write)
                || is_system_key(&prewrite.primary)
                || any_system_key(&prewrite.secondaries)
        }
        Body::CommitKeys(commit) => any_system_key(&commit.keys),
        Body::RollbackKeys(rollback) => any_system_key(&rollback.keys),
        Body::CheckTransaction(check) => is_system_key(&check.primary),
        Body::ResolveLocks(resolve) => any_system_key(&resolve.keys),
        Body::HeartbeatLock(heartbeat) => is_system_key(&heartbeat.primary),
        Body::AcquireLocks(acquire) => {
            any_system_key(&acquire.keys) || is_system_key(&acquire.primary)
        }
        Body::CheckSecondaries(check) => any_system_key(&check.keys),
        // Only the node itself collects, and it does not come this way.
        Body::CollectGarbage(_) => true,
    };
    if refused {
        return Err(v1::Error::permission_denied("keys under `_/` belong to the system"));
    }
    Ok(())
}

fn any_system_key(keys: &[bytes::Bytes]) -> bool {
    keys.iter().any(|key| is_system_key(key))
}

fn is_system_write(operation: &Operation) -> bool {
    match &operation.body {
        Some(operation::Body::Put(put)) => is_system_key(&put.key),
        Some(operation::Body::Delete(delete)) => is_system_key(&delete.key),
        Some(operation::Body::DeleteRange(range)) => {
            let below = range.start_key < prefix_end(SYSTEM_PREFIX)[..];
            below && (range.end_key.is_empty() || range.end_key > *SYSTEM_PREFIX)
        }
        None => false,
    }
}

#[cfg(test)]
mod tests;
