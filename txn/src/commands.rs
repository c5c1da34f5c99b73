//! What a command may answer, and one file for each kind of command.

mod changes;
pub(crate) mod commit_one_range;
mod conditions;
mod operations;
mod repeat;

use rangedb_proto::v1::{CommandReply, command_reply};
use rangedb_storage::Error;

/// Why the evaluation of a command ended before it wrote anything.
pub(crate) enum Stop {
    /// The command breaks a rule, or a condition does not hold: the same on every replica.
    Reply(command_reply::Body),
    /// The engine could not answer: only this replica's trouble, so nothing may be replied.
    Engine(Error),
}

impl Stop {
    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Stop::Reply(command_reply::Body::Invalid(reason.into()))
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Engine(error)
    }
}

/// The reply that refuses a command which its sender should not have sent.
pub(crate) fn invalid_reply(reason: impl Into<String>) -> CommandReply {
    CommandReply { body: Some(command_reply::Body::Invalid(reason.into())) }
}
