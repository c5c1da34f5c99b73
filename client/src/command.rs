//! Sending of one command of a multi-range transaction to one range. Every such command is
//! idempotent: the range recognises it by its start timestamp.

use std::sync::Arc;
use std::time::Duration;

use rangedb_proto::v1::{self, RangeDescriptor, command, command_reply, request, response};

use crate::client::header;
use crate::error::{Error, Result};
use crate::locks::wait::millis_until;
use crate::routing::retry::Retry;
use crate::routing::router::RouteTarget;
use crate::routing::sender::{Reached, Sender, unexpected_response};

/// Builds the command for the range that a descriptor describes; none if its keys do not all lie in
/// that range.
pub(crate) type BuildCommand<'a> = &'a (dyn Fn(&RangeDescriptor) -> Option<command::Body> + Sync);

/// Result of a command that was sent to a range.
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
/// [`crate::routing::retry::RetrySafety::Recognised`], `Undetermined` once a response was lost.
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
    let (range, reached) = loop {
        let to = sender.route(RouteTarget::Key(key), retry).await?;
        let Some(command) = build(&to.range) else {
            retry.check_not_executed("the range changed its shape")?;
            return Ok(Reply::Regroup);
        };
        let body = request::Body::TransactionCommand(v1::TransactionCommand {
            range: Some(header(&to.range)),
            command: Some(v1::Command { body: Some(command) }),
            lock_wait_ms: millis_until(hold_until, &*sender.net),
        });
        if let Some(reached) = sender.send(&to, body, retry).await? {
            break (to.range, reached);
        }
    };
    match reached {
        Reached::Locked(lock) => Ok(Reply::From(range, command_reply::Body::Locked(lock))),
        Reached::Response(response::Body::TransactionCommand(reply)) => {
            definite(reply, retry).map(|reply| Reply::From(range, reply))
        }
        Reached::Response(_) => Err(unexpected_reply(retry)),
    }
}

/// Takes the range's reply out of the response. An error if the range refuses the command as such.
fn definite(reply: v1::TransactionCommandReply, retry: &Retry<'_>) -> Result<command_reply::Body> {
    let error = match reply.reply.and_then(|reply| reply.body) {
        Some(command_reply::Body::TooOld(old)) => {
            let message = "the range no longer remembers commands of that time".to_owned();
            Error::TooOld { message, floor_ts: old.floor_ts }
        }
        Some(command_reply::Body::Invalid(reason)) => Error::invalid("transaction", reason),
        Some(command_reply::Body::Damaged(damaged)) => {
            Error::Corruption { message: damaged.what, file: String::new() }
        }
        Some(command_reply::Body::TooLarge(v1::TooLarge { what, limit })) => {
            Error::TooLarge { what, limit }
        }
        Some(body) => return Ok(body),
        None => return Err(unexpected_reply(retry)),
    };
    Err(retry.end(error))
}

/// Error for a reply that does not belong to its command. The effect of the command is not known.
pub(crate) fn unexpected_reply(retry: &Retry<'_>) -> Error {
    retry.end(unexpected_response("the range's leader"))
}
