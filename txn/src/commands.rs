//! Commands: their replies, and one file for each kind.

pub(crate) mod acquire_locks;
mod bounds;
mod changes;
pub(crate) mod check_secondaries;
pub(crate) mod check_transaction;
pub(crate) mod collect_garbage;
pub(crate) mod commit_keys;
pub(crate) mod commit_one_range;
mod conditions;
mod fate;
pub(crate) mod heartbeat_lock;
mod identity;
mod operations;
pub(crate) mod prewrite;
mod repeat;
pub(crate) mod resolve_locks;
pub(crate) mod rollback_keys;
mod undecided;

use bytes::Bytes;
use rangedb_proto::v1::{
    CommandReply, Committed, DamagedData, TooLarge, TransactionAborted, WriteConflict,
    command_reply,
};
use rangedb_storage::Error;

use crate::lock::Lock;

/// Reason why the evaluation of a command ended before it wrote anything.
pub(crate) enum Stop {
    /// Reply to the sender: the command breaks a rule, a condition does not hold, or a record that
    /// it needs is damaged. The same on every replica that has the same bytes.
    Reply(command_reply::Body),
    /// The engine failed. Only this replica is affected, so nothing may be replied.
    Engine(Error),
}

impl Stop {
    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Stop::Reply(command_reply::Body::Invalid(reason.into()))
    }

    /// Refuses a command that exceeds a limit, with the limit's name and figure.
    pub(crate) fn too_large(what: impl Into<String>, limit: usize) -> Self {
        let (what, limit) = (what.into(), limit as u64);
        Stop::Reply(command_reply::Body::TooLarge(TooLarge { what, limit }))
    }

    fn locked(key: &[u8], lock: &Lock) -> Self {
        let locked = lock.in_the_way(Bytes::copy_from_slice(key));
        Stop::Reply(command_reply::Body::Locked(locked))
    }

    fn conflict(conflict: WriteConflict) -> Self {
        Stop::Reply(command_reply::Body::WriteConflict(conflict))
    }

    fn aborted(key: &[u8]) -> Self {
        Stop::Reply(aborted(key))
    }

    /// Ends a command because its transaction is already committed.
    fn committed(commit_ts: u64) -> Self {
        Stop::Reply(committed(commit_ts))
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        match error {
            Error::Damaged(what) => Stop::Reply(command_reply::Body::Damaged(DamagedData { what })),
            error => Stop::Engine(error),
        }
    }
}

/// Returns the reply about a transaction over ranges that is committed.
fn committed(commit_ts: u64) -> command_reply::Body {
    command_reply::Body::Committed(Committed { commit_ts, ..Default::default() })
}

/// Returns the reply about a transaction that was rolled back.
fn aborted(key: &[u8]) -> command_reply::Body {
    let key = Bytes::copy_from_slice(key);
    command_reply::Body::Aborted(TransactionAborted { key })
}

/// Returns the reply that refuses an invalid command.
pub(crate) fn invalid_reply(reason: impl Into<String>) -> CommandReply {
    CommandReply { body: Some(command_reply::Body::Invalid(reason.into())) }
}
