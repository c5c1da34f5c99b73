//! Commands addressed to a range: this node checks them, and the range's log decides.

use std::sync::Arc;
use std::time::Duration;

use futures::future;
use futures::{FutureExt, TryFutureExt};
use prost::Message;
use rangedb_proto::VALUE_BYTES_MAX;
use rangedb_proto::v1::{
    self, Command, CommandReply, Committed, Conflict, RangeHeader, TransactionCommand,
    TransactionCommandReply, Write, WriteReply, command, command_reply, error::Kind,
};
use rangedb_raftstore::{RangeRef, ReadMode};
use rangedb_txn::{
    CommandOutcome, PREVIOUS_BYTES_MAX, check_command, check_spans, facts, names_spans,
    newest_commit,
};

use super::admission::Admitted;
use super::reads::range_ref;
use super::{Caller, Node};
use crate::memory::Taken;
use crate::surroundings::storage_error;

impl Node {
    pub(super) async fn write(
        self: &Arc<Self>,
        caller: &Caller,
        ask: Write,
        timeout: Duration,
        room: &mut Option<Taken>,
    ) -> Result<WriteReply, v1::Error> {
        let commit = ask.commit.ok_or_else(|| v1::Error::invalid("commit", "it is missing"))?;
        let wait = wait_within(ask.lock_wait_ms, timeout);
        let body = command::Body::CommitOneRange(commit);
        let reply = self.command_or_wait(caller, ask.range, body, wait, room).await?;
        committed(reply).map(|committed| WriteReply { committed: Some(committed) })
    }

    /// Runs one range's part of a transaction. The coordinator judges the range's reply.
    pub(super) async fn transaction_command(
        self: &Arc<Self>,
        caller: &Caller,
        ask: TransactionCommand,
        timeout: Duration,
        room: &mut Option<Taken>,
    ) -> Result<TransactionCommandReply, v1::Error> {
        let body = ask.command.and_then(|command| command.body);
        let body = body.ok_or_else(|| v1::Error::invalid("command", "it is missing"))?;
        let wait = wait_within(ask.lock_wait_ms, timeout);
        let reply = self.command_or_wait(caller, ask.range, body, wait, room).await?;
        Ok(TransactionCommandReply { reply: Some(reply) })
    }

    pub(super) async fn command(
        &self,
        caller: &Caller,
        range: Option<RangeHeader>,
        body: command::Body,
        room: &mut Option<Taken>,
    ) -> Result<CommandReply, v1::Error> {
        let reply_bytes = reply_bytes_max(&body);
        let command = Command { body: Some(body) };
        check_command(&command)?;
        let Admitted { command, named } = self.admit(command).await?;
        let range = range_ref(range)?;
        let command = self.check_spans(caller, range, command).await?;
        if reply_bytes > 0 {
            // Bytes of an earlier attempt are given back first.
            *room = None;
            *room = Some(caller.room(reply_bytes, &*self.around.net).await?);
        }
        // The proposal and the wait for the oracle run concurrently. If the proposal is refused,
        // the request does not wait for the oracle.
        let proposing = self.around.stores.propose(range, &command).map_err(v1::Error::from);
        let passing = self.until_passed(named).map(Ok);
        let (reply, passed) = future::try_join(proposing, passing).await?;
        let reply = CommandReply::decode(reply)
            .map_err(|e| v1::Error::undetermined(format!("the range's reply: {e}")))?;
        if let Some(room) = room {
            room.shrink_to(reply.encoded_len() as u64);
        }
        // The reply is returned only once the oracle is above its commits. Otherwise a transaction
        // that begins after this answer would miss a commit that a client already knows. The
        // oracle's clock gets there in a millisecond.
        let passed = match passed {
            Ok(()) => self.until_passed(newest_commit(&reply)).await,
            Err(error) => Err(error),
        };
        match passed {
            Ok(()) => Ok(reply),
            Err(error) if reply.body.is_some() && CommandOutcome::of(&reply).is_refusal() => {
                Err(error)
            }
            Err(error) => {
                let message = format!("it is applied, and the oracle is silent: {}", error.message);
                Err(v1::Error::undetermined(message))
            }
        }
    }
}

impl Node {
    /// Refuses a command whose spans hold more records than one command may walk over.
    async fn check_spans(
        &self,
        caller: &Caller,
        range: RangeRef,
        command: Command,
    ) -> Result<Command, v1::Error> {
        let body = command.body.as_ref().expect("checked before");
        if !names_spans(facts(body)) {
            return Ok(command);
        }
        let view = self.around.stores.read(range, ReadMode::Latest).await?;
        let checking = self.heavy(caller, move || {
            let body = command.body.as_ref().expect("checked before");
            let checked = check_spans(&*view.reader, &view.descriptor, facts(body));
            checked.map(|within| within.map(|()| command))
        });
        checking.await?.map_err(storage_error)?
    }
}

/// Bytes of keys and values in the command's reply at most. 0 if they are no more than the command
/// brought itself.
fn reply_bytes_max(body: &command::Body) -> usize {
    let values = facts(body).values_in_reply();
    PREVIOUS_BYTES_MAX.min(values.saturating_mul(VALUE_BYTES_MAX))
}

/// Time for which a request may wait for a lock. The rest is left for one more proposal: if the
/// request were cut off in the middle of that, its outcome would be undetermined.
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
        Some(Body::Damaged(damaged)) => {
            (Kind::Corruption(v1::Corruption::default()), format!("damaged data: {}", damaged.what))
        }
        Some(Body::TooLarge(large)) => {
            let message =
                format!("{} are over the limit of {} in one command", large.what, large.limit);
            (Kind::TooLarge(large), message)
        }
        Some(Body::Invalid(why)) => return Err(v1::Error::invalid("commit", why)),
        other => {
            let message = format!("the range answered a commit by {other:?}");
            return Err(v1::Error::undetermined(message));
        }
    };
    Err(v1::Error::new(kind, message))
}
