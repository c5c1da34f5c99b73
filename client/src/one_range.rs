//! A commit whose keys lie in one range: one command, one round.

use std::time::Duration;

use bytes::Bytes;
use rangedb_proto::limits::COMMAND_ITEMS_MAX;
use rangedb_proto::v1::{self, operation, request, response};
use rangedb_proto::{RangeDescriptorExt, Timestamp};

use crate::client::{Client, header};
use crate::error::{Error, Result};
use crate::keys::Span;
use crate::locks::turns::{self, Entered, Taker, Turn};
use crate::locks::wait::{HOLD_MAX, LockWaiter, millis_until};
use crate::routing::retry::{Retry, RetrySafety};
use crate::routing::router::RouteTarget;
use crate::routing::sender::{Reached, unexpected_response};
use crate::transaction::heartbeat::OracleClock;

/// Commits if all of `hull`, the least span that holds every key of the command, lies in one range.
/// None if it does not, or if the command is too much for one range; then certainly nothing was
/// done. The command's timestamp is taken here, after all waits.
///
/// Waits until the deadline for a lock in the way. The command holds no lock itself, so no
/// transaction can wait for it in turn.
pub(crate) async fn commit(
    client: &Client,
    command: v1::CommitOneRange,
    hull: &Span,
    deadline: Duration,
) -> Result<Option<v1::Committed>> {
    commit_with(client, command, hull, deadline, None).await
}

/// As [`commit`], for a command that takes turns with other writers of its key.
pub(crate) async fn commit_in_turn(
    client: &Client,
    command: v1::CommitOneRange,
    hull: &Span,
    deadline: Duration,
) -> Result<Option<v1::Committed>> {
    let turn = match turns::key_of(&command) {
        Some(key) => Some(take_turn(client, key, &command.conditions, deadline).await?),
        None => None,
    };
    commit_with(client, command, hull, deadline, turn).await
}

/// Waits for the turn of a conditional write at its key.
///
/// # Errors
///
/// [`Error::Conflict`] if another write left a row that breaks a condition.
async fn take_turn(
    client: &Client,
    key: &Bytes,
    conditions: &[v1::Condition],
    deadline: Duration,
) -> Result<Turn> {
    loop {
        match client.turns.enter(key, Taker::Write, deadline).await {
            Entered::Turn { turn, .. } => return Ok(turn),
            Entered::Found(row) => {
                if let Some(condition_index) = turns::first_broken(conditions, row.as_ref()) {
                    let actual = row.map(|row| Box::new(row.into()));
                    return Err(Error::Conflict { key: key.clone(), condition_index, actual });
                }
            }
            Entered::TimeUp => {
                let reason =
                    "others of this client have had the key all the time, and nothing was sent";
                return Err(Error::Unavailable(reason.to_owned()));
            }
        }
    }
}

/// As [`commit`]; a command with a turn passes it on when it is done.
async fn commit_with(
    client: &Client,
    command: v1::CommitOneRange,
    hull: &Span,
    deadline: Duration,
    turn: Option<Turn>,
) -> Result<Option<v1::Committed>> {
    if command.operations.len() + command.conditions.len() + command.reads.len() > COMMAND_ITEMS_MAX
    {
        return Ok(None);
    }
    let range = client.sender.locate(RouteTarget::Key(&hull.start), deadline).await?;
    if !range.covers(&hull.start, &hull.end) {
        return Ok(None);
    }
    let start_ts = client.timestamps.next(deadline).await?.0;
    let wants_previous = command.return_previous;
    let return_previous = wants_previous || turn.as_ref().is_some_and(Turn::sending);
    let command = v1::CommitOneRange { start_ts, return_previous, ..command };
    let mut committed = Commit { client, command, hull, deadline }.run(turn).await?;
    if let Some(committed) = committed.as_mut().filter(|_| !wants_previous) {
        committed.results.iter_mut().for_each(|result| result.previous = None);
    }
    Ok(committed)
}

/// A command with its timestamp, on its way to one range.
struct Commit<'a> {
    client: &'a Client,
    command: v1::CommitOneRange,
    hull: &'a Span,
    deadline: Duration,
}

impl Commit<'_> {
    /// Sends the command until its range responds, and waits for locks in its way. None as for
    /// [`commit`].
    async fn run(self, turn: Option<Turn>) -> Result<Option<v1::Committed>> {
        let sender = &*self.client.sender;
        let clock = OracleClock::new(Timestamp(self.command.start_ts), &*sender.net);
        let mut retry = Retry::new(&*sender.net, RetrySafety::Recognised, self.deadline);
        let mut waiter = LockWaiter::new(sender, clock);
        loop {
            let hold_until = waiter.hold_until(HOLD_MAX, &mut retry);
            let lock = match self.send(hold_until, &mut retry).await {
                Ok(Some(Reached::Locked(lock))) => lock,
                Ok(Some(Reached::Response(response))) => {
                    return self.on_response(response, turn).await.map(Some);
                }
                Ok(None) => return Ok(None),
                // The spans hold more records than one command may read. The caller can commit in
                // steps.
                Err(Error::TooLarge { .. }) if has_spans(&self.command) => return Ok(None),
                Err(error) => return Err(self.on_error(error, turn)),
            };
            waiter.meet(&lock);
            let written = written(&self.command);
            let cleared = self.client.resolver.clear(&lock, &written, self.deadline).await;
            if cleared.map_err(|error| retry.end(error))? {
                retry.unblocked();
            } else {
                waiter.blocked(lock, &mut retry).await;
            }
        }
    }

    /// Sends the command until its range responds. None if its keys no longer lie in one range.
    async fn send(&self, hold_until: Duration, retry: &mut Retry<'_>) -> Result<Option<Reached>> {
        let Commit { client, command, hull, .. } = self;
        loop {
            let to = client.sender.route(RouteTarget::Key(&hull.start), retry).await?;
            if !to.range.covers(&hull.start, &hull.end) {
                retry.check_not_executed("the range split on the way")?;
                return Ok(None);
            }
            let body = request::Body::Write(v1::Write {
                range: Some(header(&to.range)),
                commit: Some(command.clone()),
                lock_wait_ms: millis_until(hold_until, &*client.sender.net),
            });
            let reached = client.sender.send(&to, body, retry).await?;
            if reached.is_some() {
                return Ok(reached);
            }
        }
    }

    /// Takes the result out of the response, and answers the writers that waited for this one.
    async fn on_response(
        &self,
        response: response::Body,
        turn: Option<Turn>,
    ) -> Result<v1::Committed> {
        let committed = committed(response, self.command.operations.len())?;
        if let (Some(row), Some(turn)) = (turns::left_by(&self.command, &committed), turn) {
            turn.found(row.as_ref());
            // A caller that writes the same key again at once goes behind the waiters that were
            // answered.
            turns::step_back().await;
        }
        Ok(committed)
    }

    /// Explains a refusal, and answers the writers that waited for this one.
    fn on_error(&self, error: Error, turn: Option<Turn>) -> Error {
        if let (Error::Conflict { actual, .. }, Some(turn)) = (&error, turn) {
            let row = actual.as_deref().cloned().map(v1::KeyValue::from);
            turn.found(row.as_ref());
        }
        explained(error, &self.command)
    }
}

fn has_spans(command: &v1::CommitOneRange) -> bool {
    let deletes_span =
        |operation: &v1::Operation| matches!(operation.body, Some(operation::Body::DeleteRange(_)));
    command.operations.iter().any(deletes_span)
        || command.reads.iter().any(|read| !read.end_key.is_empty())
}

/// Keys that the command writes: they may hold more locks of the transaction whose lock was met.
fn written(command: &v1::CommitOneRange) -> Vec<Bytes> {
    let key = |operation: &v1::Operation| match &operation.body {
        Some(operation::Body::Put(put)) => Some(put.key.clone()),
        Some(operation::Body::Delete(delete)) => Some(delete.key.clone()),
        _ => None,
    };
    command.operations.iter().filter_map(key).collect()
}

/// Adds to a refusal the details that only the sender of the command knows.
fn explained(error: Error, command: &v1::CommitOneRange) -> Error {
    match error {
        // The range reports the index of the failed condition, and its key only if a value stands
        // there.
        Error::Conflict { condition_index, actual, .. }
            if condition_index < command.conditions.len() =>
        {
            let key = command.conditions[condition_index].key.clone();
            Error::Conflict { key, condition_index, actual }
        }
        // The command's own timestamp was fresh. If no read is from below the floor, the same
        // command can succeed with another timestamp.
        Error::TooOld { message, floor_ts }
            if command.reads.iter().all(|read| read.read_ts >= floor_ts) =>
        {
            Error::Unavailable(message)
        }
        error => error,
    }
}

fn committed(response: response::Body, operations: usize) -> Result<v1::Committed> {
    match response {
        response::Body::Write(v1::WriteReply { committed: Some(committed) })
            if committed.results.len() == operations =>
        {
            Ok(committed)
        }
        _ => Err(Error::Undetermined(unexpected_response("the range's leader").to_string())),
    }
}
