//! A commit whose keys lie in one range: one command, one round.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rangedb_proto::v1::{self, RangeDescriptor, operation, request, response};
use rangedb_proto::{RangeDescriptorExt, Timestamp};

use rangedb_proto::limits::COMMAND_ITEMS_MAX;

use crate::client::{Client, header};
use crate::error::{Error, Result};
use crate::keys::Span;
use crate::lock_wait::{HOLD_MAX, Waiting, millis_until};
use crate::retry::{Retry, RetrySafety};
use crate::router::Place;
use crate::sender::{Reached, unexpected_answer};
use crate::transaction::heartbeat::OracleClock;
use crate::turns::{self, Entered, Taker, Turn};

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
    send(client, command, hull, deadline, None).await
}

/// As [`commit`], for a command that takes turns with other writers of its key.
pub(crate) async fn commit_in_turn(
    client: &Client,
    command: v1::CommitOneRange,
    hull: &Span,
    deadline: Duration,
) -> Result<Option<v1::Committed>> {
    let Some(key) = turns::key_of(&command) else {
        return send(client, command, hull, deadline, None).await;
    };
    let turn = loop {
        match client.turns.enter(key, Taker::Write, deadline).await {
            Entered::Turn { turn, .. } => break turn,
            Entered::Found(row) => {
                if let Some(condition_index) =
                    turns::first_broken(&command.conditions, row.as_ref())
                {
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
    };
    send(client, command, hull, deadline, Some(turn)).await
}

async fn send(
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
    let place = Place::Key(&hull.start);
    let descriptor = client.sender.locate(place, deadline).await?;
    if !descriptor.covers(&hull.start, &hull.end) {
        return Ok(None);
    }
    let operations = command.operations.len();
    let start_ts = client.timestamps.next(deadline).await?.0;
    let wants_previous = command.return_previous;
    let return_previous = wants_previous || turn.as_ref().is_some_and(Turn::sending);
    let command = v1::CommitOneRange { start_ts, return_previous, ..command };
    let sender = &*client.sender;
    let outgrown = AtomicBool::new(false);
    let mut retry = Retry::new(&*sender.net, RetrySafety::Recognised, deadline);
    let mut waiting = Waiting::new(sender, OracleClock::new(Timestamp(start_ts), &*sender.net));
    loop {
        let hold_until = waiting.hold_until(HOLD_MAX, &mut retry);
        let build = |descriptor: &RangeDescriptor| {
            if !descriptor.covers(&hull.start, &hull.end) {
                outgrown.store(true, Ordering::Relaxed);
                return Err(Error::Unavailable("the range split on the way".to_owned()));
            }
            Ok(request::Body::Write(v1::Write {
                range: Some(header(descriptor)),
                commit: Some(command.clone()),
                lock_wait_ms: millis_until(hold_until, &*sender.net),
            }))
        };
        let lock = match sender.to_range(place, &build, &mut retry).await {
            Err(_) if outgrown.load(Ordering::Relaxed) && !retry.may_have_happened() => {
                return Ok(None);
            }
            // The spans hold more records than one command may read. The caller can commit in
            // steps.
            Err(Error::TooLarge { .. }) if has_spans(&command) => return Ok(None),
            Err(error) => {
                if let (Error::Conflict { actual, .. }, Some(turn)) = (&error, turn) {
                    let row = actual.as_deref().cloned().map(v1::KeyValue::from);
                    turn.found(row.as_ref());
                }
                return Err(explained(error, &command));
            }
            Ok((_, Reached::Locked(lock))) => lock,
            Ok((_, Reached::Answer(answer))) => {
                let mut committed = committed(answer, operations)?;
                if let (Some(row), Some(turn)) = (turns::left_by(&command, &committed), turn) {
                    turn.found(row.as_ref());
                    // A caller that writes the same key again at once goes behind the waiters that
                    // were answered.
                    turns::step_back().await;
                }
                if !wants_previous {
                    committed.results.iter_mut().for_each(|result| result.previous = None);
                }
                return Ok(Some(committed));
            }
        };
        waiting.meet(&lock);
        let cleared = client.resolver.clear(&lock, &written(&command), deadline).await;
        if cleared.map_err(|error| retry.end(error))? {
            retry.unblocked();
        } else {
            waiting.blocked(lock, &mut retry).await;
        }
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

fn committed(answer: response::Body, operations: usize) -> Result<v1::Committed> {
    match answer {
        response::Body::Write(v1::WriteReply { committed: Some(committed) })
            if committed.results.len() == operations =>
        {
            Ok(committed)
        }
        _ => Err(Error::Undetermined(unexpected_answer("the range's leader").to_string())),
    }
}
