//! Commands: their replies, and one file for each kind.

mod acquire_locks;
mod changes;
mod check_secondaries;
mod check_transaction;
mod collect_garbage;
mod commit_keys;
mod commit_one_range;
mod conditions;
pub(crate) mod fate;
mod heartbeat_lock;
mod identity;
mod operations;
mod prewrite;
mod range_check;
mod repeat;
pub(crate) mod resolve_locks;
mod rollback_keys;
mod undecided;

use bytes::Bytes;
use rangedb_proto::v1::{
    Committed, DamagedData, TooLarge, TransactionAborted, WriteConflict, command, command_reply,
};
use rangedb_storage::Error;

use crate::evaluation::Evaluation;
use crate::facts::CommandFacts;
use crate::lock::Lock;

/// Names every kind of command, for what is the same expression for all of them.
macro_rules! of_any_kind {
    ($body:expr, $command:ident => $value:expr) => {
        match $body {
            command::Body::CommitOneRange($command) => $value,
            command::Body::Prewrite($command) => $value,
            command::Body::CommitKeys($command) => $value,
            command::Body::RollbackKeys($command) => $value,
            command::Body::CheckTransaction($command) => $value,
            command::Body::ResolveLocks($command) => $value,
            command::Body::HeartbeatLock($command) => $value,
            command::Body::AcquireLocks($command) => $value,
            command::Body::CollectGarbage($command) => $value,
            command::Body::CheckSecondaries($command) => $value,
        }
    };
}

/// Returns the facts about a command.
pub fn facts(body: &command::Body) -> &dyn CommandFacts {
    of_any_kind!(body, command => command)
}

/// Returns the facts about a command, of which some can be changed.
pub fn facts_mut(body: &mut command::Body) -> &mut dyn CommandFacts {
    of_any_kind!(body, command => command)
}

/// Evaluation of a kind of command.
pub(crate) trait Evaluate {
    /// Evaluates the command, which was checked.
    ///
    /// # Errors
    ///
    /// [`Stop`]; nothing was written.
    fn evaluate(&self, evaluation: &mut Evaluation<'_, '_>) -> Result<command_reply::Body, Stop>;
}

/// Evaluates a command that was checked.
///
/// # Errors
///
/// [`Stop`]; nothing was written.
pub(crate) fn evaluate(
    body: &command::Body,
    evaluation: &mut Evaluation<'_, '_>,
) -> Result<command_reply::Body, Stop> {
    of_any_kind!(body, command => command.evaluate(evaluation))
}

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
