//! Sending of one command of a multi-range transaction to one range. Every such command is
//! idempotent: the range recognises it by its start timestamp.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rangedb_proto::v1::{self, RangeDescriptor, command, command_reply, request, response};

use crate::client::header;
use crate::error::{Error, Result};
use crate::lock_wait::millis_until;
use crate::retry::Retry;
use crate::router::Place;
use crate::sender::{Reached, Sender, unexpected_answer};

/// Builds the command for the range that a descriptor describes; none if its keys do not fit that
/// range.
pub(crate) type BuildCommand<'a> = &'a (dyn Fn(&RangeDescriptor) -> Option<command::Body> + Sync);

pub(crate) enum Reply {
    /// The range's reply, with its descriptor at that time.
    From(Arc<RangeDescriptor>, command_reply::Body),
    /// The keys no longer lie in one range; nothing was sent under the new shape.
    Regroup,
}

/// Sends the command to the range that holds `key` until the range gives a definite reply.
///
/// # Errors
///
/// As for every request, and if the range refuses the command as such. If `retry` has
/// [`crate::retry::RetrySafety::Recognised`], `Undetermined` once an answer was lost.
pub(crate) async fn send(
    sender: &Sender,
    key: &[u8],
    build: BuildCommand<'_>,
    retry: &mut Retry<'_>,
) -> Result<Reply> {
    send_held(sender, key, Duration::ZERO, build, retry).await
}

/// As [`send`], for a command that the node may hold back until `hold_until` to wait for a lock.
pub(crate) async fn send_held(
    sender: &Sender,
    key: &[u8],
    hold_until: Duration,
    build: BuildCommand<'_>,
    retry: &mut Retry<'_>,
) -> Result<Reply> {
    let outgrown = AtomicBool::new(false);
    let build = |descriptor: &RangeDescriptor| match build(descriptor) {
        Some(body) => Ok(request::Body::TransactionCommand(v1::TransactionCommand {
            range: Some(header(descriptor)),
            command: Some(v1::Command { body: Some(body) }),
            lock_wait_ms: millis_until(hold_until, &*sender.net),
        })),
        None => {
            outgrown.store(true, Ordering::Relaxed);
            Err(Error::Unavailable("the range changed its shape".to_owned()))
        }
    };
    loop {
        let (descriptor, reply) = match sender.to_range(Place::Key(key), &build, retry).await {
            Err(_) if outgrown.load(Ordering::Relaxed) && !retry.may_have_happened() => {
                return Ok(Reply::Regroup);
            }
            Err(error) => return Err(error),
            Ok((descriptor, Reached::Locked(lock))) => {
                (descriptor, Some(command_reply::Body::Locked(lock)))
            }
            Ok((descriptor, Reached::Answer(response::Body::TransactionCommand(reply)))) => {
                (descriptor, reply.reply.and_then(|reply| reply.body))
            }
            Ok((_, Reached::Answer(_))) => return Err(unexpected_reply(retry)),
        };
        match reply {
            Some(command_reply::Body::EpochChanged(_)) => {
                let reason = "the range changed its shape while the command was in its log";
                retry.blocked(Error::Unavailable(reason.to_owned())).await;
            }
            Some(command_reply::Body::TooOld(old)) => {
                let message = "the range no longer remembers commands of that time".to_owned();
                return Err(retry.end(Error::TooOld { message, floor_ts: old.floor_ts }));
            }
            Some(command_reply::Body::Invalid(reason)) => {
                return Err(retry.end(Error::invalid("transaction", reason)));
            }
            Some(command_reply::Body::Damaged(damaged)) => {
                let (message, file) = (damaged.what, String::new());
                return Err(retry.end(Error::Corruption { message, file }));
            }
            Some(command_reply::Body::TooLarge(v1::TooLarge { what, limit })) => {
                return Err(retry.end(Error::TooLarge { what, limit }));
            }
            Some(body) => return Ok(Reply::From(descriptor, body)),
            None => return Err(unexpected_reply(retry)),
        }
    }
}

/// Error for a reply that does not belong to its command. The effect of the command is not known.
pub(crate) fn unexpected_reply(retry: &Retry<'_>) -> Error {
    retry.end(unexpected_answer("the range's leader"))
}
