//! Commands addressed to a range: checked here, decided by the range's log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message;
use rangedb_proto::Timestamp;
use rangedb_proto::v1::{
    self, Command, CommandReply, Committed, Conflict, RangeHeader, TransactionCommand,
    TransactionCommandReply, Write, WriteReply, command, command_reply, error::Kind,
};
use rangedb_txn::check_command;

use super::Node;
use super::reads::range_ref;

impl Node {
    pub(super) async fn write(
        self: &Arc<Self>,
        ask: Write,
        timeout: Duration,
    ) -> Result<WriteReply, v1::Error> {
        let commit = ask.commit.ok_or_else(|| v1::Error::invalid("commit", "it is missing"))?;
        let wait = wait_within(ask.lock_wait_ms, timeout);
        let body = command::Body::CommitOneRange(commit);
        let reply = self.command_or_wait(ask.range, body, wait).await?;
        committed(reply).map(|committed| WriteReply { committed: Some(committed) })
    }

    /// One range's part of a transaction; what the range answers is for the coordinator to judge.
    pub(super) async fn transaction_command(
        self: &Arc<Self>,
        ask: TransactionCommand,
        timeout: Duration,
    ) -> Result<TransactionCommandReply, v1::Error> {
        let body = ask.command.and_then(|command| command.body);
        let body = body.ok_or_else(|| v1::Error::invalid("command", "it is missing"))?;
        let wait = wait_within(ask.lock_wait_ms, timeout);
        let reply = self.command_or_wait(ask.range, body, wait).await?;
        Ok(TransactionCommandReply { reply: Some(reply) })
    }

    pub(super) async fn command(
        &self,
        range: Option<RangeHeader>,
        body: command::Body,
    ) -> Result<CommandReply, v1::Error> {
        let command = Command { body: Some(body) };
        check_command(&command)?;
        let command = self.admit(command).await?;
        let reply = self.stores.propose(range_ref(range)?, &command).await?;
        let reply = CommandReply::decode(reply)
            .map_err(|e| v1::Error::undetermined(format!("the range's reply: {e}")))?;
        match &reply.body {
            Some(command_reply::Body::Committed(committed)) => {
                self.acknowledge(committed.commit_ts).await?;
            }
            // Such a transaction may be acknowledged as soon as this is answered.
            Some(command_reply::Body::Prewritten(prewritten)) if prewritten.async_commit => {
                self.acknowledge(prewritten.min_commit_ts).await?;
            }
            Some(command_reply::Body::ConditionFailed(failed)) => {
                let found = failed.actual.as_ref().map_or(0, |kv| kv.mod_ts);
                self.let_oracle_pass(Timestamp(found)).await?;
            }
            _ => {}
        }
        Ok(reply)
    }

    async fn acknowledge(&self, commit_ts: u64) -> Result<(), v1::Error> {
        self.let_oracle_pass(Timestamp(commit_ts)).await.map_err(|error| {
            let message = format!("it is committed, and the oracle is silent: {}", error.message);
            v1::Error::undetermined(message)
        })
    }

    /// Waits until the oracle hands out timestamps above a commit that is going to be told of. A
    /// one-range commit can be pushed ahead of it by its neighbours in the log; a transaction that
    /// begins afterwards would miss it. The oracle's clock gets there within a millisecond.
    pub(super) async fn let_oracle_pass(&self, commit_ts: Timestamp) -> Result<(), v1::Error> {
        let named = self.highest_named.load(Ordering::Relaxed);
        let mut newest = self.highest_seen.load(Ordering::Relaxed).max(named);
        while newest < commit_ts.0 {
            let fresh = self.gateway.timestamp().await.map_err(v1::Error::from)?;
            self.saw(fresh.0);
            newest = fresh.0;
        }
        Ok(())
    }
}

/// How long a request may wait for a lock. Time is left for asking the range once more: cut off in
/// the middle of that, it would have an outcome that nobody knows.
fn wait_within(lock_wait_ms: u32, timeout: Duration) -> Duration {
    Duration::from_millis(lock_wait_ms.into()).min(timeout / 2)
}

fn committed(reply: CommandReply) -> Result<Committed, v1::Error> {
    use command_reply::Body;
    let (kind, message) = match reply.body {
        Some(Body::Committed(committed)) => return Ok(committed),
        Some(Body::ConditionFailed(failed)) => {
            let key = failed.actual.as_ref().map(|kv| kv.key.clone()).unwrap_or_default();
            let message = format!("condition {} does not hold", failed.index);
            let condition_index = failed.index;
            let conflict = Conflict { condition_index, key, actual: failed.actual };
            (Kind::Conflict(conflict), message)
        }
        Some(Body::WriteConflict(conflict)) => {
            let key = conflict.key.escape_ascii().to_string();
            (Kind::WriteConflict(conflict), format!("another transaction wrote {key} first"))
        }
        Some(Body::Locked(locked)) => {
            let message = format!("key {} is locked", locked.key.escape_ascii());
            (Kind::KeyLocked(locked), message)
        }
        Some(Body::TooOld(too_old)) => {
            (Kind::TooOld(too_old), "the command is older than what is remembered".to_owned())
        }
        Some(Body::EpochChanged(_)) => {
            return Err(v1::Error::too_busy(1, "the range changed its shape"));
        }
        Some(Body::Invalid(why)) => return Err(v1::Error::invalid("commit", why)),
        other => {
            let message = format!("the range answered a commit by {other:?}");
            return Err(v1::Error::undetermined(message));
        }
    };
    Err(v1::Error::new(kind, message))
}
