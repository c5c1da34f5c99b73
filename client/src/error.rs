//! Errors, by what the caller can do next. The place of a failure inside the cluster does not
//! matter to the caller: retries handle leaders that moved, ranges that split and lost connections.
//! These only show when the time is up.

use std::time::Duration;

use bytes::Bytes;
use rangedb_proto::v1::{self, error::Kind};
use thiserror::Error;

use crate::key_value::KeyValue;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// A condition did not hold and nothing was written. Read again, decide again.
    #[error("condition {condition_index} on key `{}` does not hold", key.escape_ascii())]
    Conflict {
        key: Bytes,
        /// Index of the first condition that failed, counted from 0.
        condition_index: usize,
        /// The row when the condition was checked; none if the key had no value.
        actual: Option<Box<KeyValue>>,
    },
    /// Another transaction wrote a key that this one read or writes, and nothing was written. Begin
    /// again.
    #[error(
        "key `{}` was written at {winner_commit_ts} by the transaction that began at \
         {winner_start_ts}",
        key.escape_ascii()
    )]
    WriteConflict { key: Bytes, winner_start_ts: u64, winner_commit_ts: u64 },
    /// The transaction was rolled back by another client, which took this client for dead. Nothing
    /// of it was written. Begin again.
    #[error("the transaction was rolled back at key `{}`", key.escape_ascii())]
    Aborted { key: Bytes },
    /// Another transaction held the key for as long as this request could wait. Nothing was
    /// written.
    #[error(
        "key `{}` is locked by the transaction that began at {start_ts}",
        key.escape_ascii()
    )]
    Locked {
        key: Bytes,
        /// Start timestamp of the transaction that holds the lock.
        start_ts: u64,
        /// The primary, whose lock decides the outcome of the holder.
        primary: Bytes,
        /// Expiry of the lock without a heartbeat, in milliseconds of the oracle's time.
        alive_until_ms: u64,
    },
    /// Deadlock: this transaction waits for another's lock, that one for the next, and so on around
    /// to this one. Roll it back and begin again; the others then go on.
    #[error("deadlock: {}", show_cycle(cycle))]
    Deadlock {
        /// Each waits for the next one's lock, the last for the first's. The first is this
        /// transaction.
        cycle: Vec<LockWait>,
    },
    /// The request or transaction exceeds a limit; nothing of it was written. Split it into parts
    /// below the limit, as [`crate::Client::delete_range`] does for a span.
    #[error("too large: {what} over the limit of {limit}")]
    TooLarge { what: String, limit: u64 },
    /// No node could execute the request in time, and it was certainly not executed. It may work
    /// later.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// As [`Error::Unavailable`], because of load: slow down first.
    #[error("too busy: {message}")]
    TooBusy {
        message: String,
        /// Wait that the overloaded node requested.
        retry_after: Duration,
    },
    /// The outcome is not known: a write may have happened, or may happen still. Read before
    /// deciding what to do. Repeat the write only where doing it twice is harmless.
    #[error("the outcome is not known: {0}")]
    Undetermined(String),
    /// The request is invalid and never works as it stands.
    #[error("invalid {argument}: {message}")]
    Invalid { argument: String, message: String },
    /// The caller may not do this.
    #[error("permission denied: {0}")]
    PermissionDenied(String),
    /// The object of the request does not exist. Not used for keys: absent keys are `None`.
    #[error("not found: {0}")]
    NotFound(String),
    /// The state of the cluster forbids the change until an operator alters that state.
    #[error("refused: {0}")]
    FailedPrecondition(String),
    /// The timestamp is older than the versions that are kept. Take a newer one.
    #[error("too old: {message}")]
    TooOld {
        message: String,
        /// The oldest timestamp that can be read.
        floor_ts: u64,
    },
    /// A disk is full: reads go on, writes work once an operator made room.
    #[error("disk full: {0}")]
    DiskFull(String),
    /// Stored bytes differ from what was written, or an answer violates the protocol. Needs an
    /// operator.
    #[error("corruption: {message}")]
    Corruption {
        message: String,
        /// The damaged file, where there is one.
        file: String,
    },
}

impl Error {
    /// True if the same request may be sent again as it is: it was certainly not executed, and the
    /// reason may pass by itself.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Unavailable(_) | Error::TooBusy { .. } | Error::Locked { .. })
    }

    /// True if a transaction failed because of another one. A new attempt may succeed, and has to
    /// read again. False for [`Error::Conflict`], where the caller's own condition does not hold.
    pub fn is_transaction_conflict(&self) -> bool {
        matches!(
            self,
            Error::WriteConflict { .. }
                | Error::Aborted { .. }
                | Error::Locked { .. }
                | Error::Deadlock { .. }
        )
    }

    pub(crate) fn invalid(argument: &str, message: impl Into<String>) -> Self {
        Error::Invalid { argument: argument.to_owned(), message: message.into() }
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Error::Corruption { message: message.into(), file: String::new() }
    }
}

/// A transaction that waits for another's lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockWait {
    pub waiter_start_ts: u64,
    pub holder_start_ts: u64,
    pub key: Bytes,
}

impl From<v1::LockWait> for LockWait {
    fn from(wait: v1::LockWait) -> Self {
        let v1::LockWait { waiter_start_ts, holder_start_ts, key } = wait;
        LockWait { waiter_start_ts, holder_start_ts, key }
    }
}

impl From<LockWait> for v1::LockWait {
    fn from(wait: LockWait) -> Self {
        let LockWait { waiter_start_ts, holder_start_ts, key } = wait;
        v1::LockWait { waiter_start_ts, holder_start_ts, key }
    }
}

fn show_cycle(cycle: &[LockWait]) -> String {
    let waits = cycle.iter().map(|wait| {
        let (waiter, holder) = (wait.waiter_start_ts, wait.holder_start_ts);
        format!("{waiter} waits for `{}` of {holder}", wait.key.escape_ascii())
    });
    waits.collect::<Vec<_>>().join(", ")
}

impl From<v1::KeyLocked> for Error {
    fn from(lock: v1::KeyLocked) -> Self {
        let v1::KeyLocked { key, primary, start_ts, alive_until_ms } = lock;
        Error::Locked { key, start_ts, primary, alive_until_ms }
    }
}

impl From<v1::WriteConflict> for Error {
    fn from(conflict: v1::WriteConflict) -> Self {
        let v1::WriteConflict { key, winner_start_ts, winner_commit_ts } = conflict;
        Error::WriteConflict { key, winner_start_ts, winner_commit_ts }
    }
}

impl From<v1::Error> for Error {
    fn from(error: v1::Error) -> Self {
        let message = error.message;
        match error.kind {
            Some(Kind::WriteConflict(conflict)) => conflict.into(),
            Some(Kind::TransactionAborted(aborted)) => Error::Aborted { key: aborted.key },
            Some(Kind::KeyLocked(lock)) => lock.into(),
            Some(Kind::Deadlock(deadlock)) => {
                let cycle = deadlock.cycle.into_iter().map(LockWait::from).collect();
                Error::Deadlock { cycle }
            }
            Some(Kind::Conflict(conflict)) => Error::Conflict {
                key: conflict.key,
                condition_index: conflict.condition_index as usize,
                actual: conflict.actual.map(|kv| Box::new(kv.into())),
            },
            Some(Kind::TooBusy(busy)) => Error::TooBusy {
                message,
                retry_after: Duration::from_millis(busy.retry_after_ms.into()),
            },
            Some(Kind::Undetermined(_)) => Error::Undetermined(message),
            Some(Kind::InvalidArgument(invalid)) => {
                Error::Invalid { argument: invalid.argument, message }
            }
            Some(Kind::PermissionDenied(_)) => Error::PermissionDenied(message),
            Some(Kind::TooLarge(v1::TooLarge { what, limit })) => Error::TooLarge { what, limit },
            Some(Kind::TooOld(old)) => Error::TooOld { message, floor_ts: old.floor_ts },
            Some(Kind::NotFound(_)) => Error::NotFound(message),
            Some(Kind::DiskFull(_)) => Error::DiskFull(message),
            Some(Kind::Corruption(corruption)) => {
                Error::Corruption { message, file: corruption.file }
            }
            Some(Kind::FailedPrecondition(_)) => Error::FailedPrecondition(message),
            // A request ends with one of these only when its time is up; none of them lets a
            // request start.
            Some(
                Kind::Unavailable(_)
                | Kind::DeadlineExceeded(_)
                | Kind::NotLeader(_)
                | Kind::StaleEpoch(_)
                | Kind::RangeNotFound(_),
            ) => Error::Unavailable(message),
            // A newer server's kind of error: the outcome is not known.
            None => Error::Undetermined(message),
        }
    }
}

/// Conversion for a node that answers on behalf of its own client.
impl From<Error> for v1::Error {
    fn from(error: Error) -> Self {
        let display = error.to_string();
        match error {
            Error::Conflict { key, condition_index, actual } => {
                let condition_index = u32::try_from(condition_index).unwrap_or(u32::MAX);
                let actual = actual.map(|kv| v1::KeyValue::from(*kv));
                let conflict = v1::Conflict { condition_index, key, actual };
                v1::Error::new(Kind::Conflict(conflict), display)
            }
            Error::WriteConflict { key, winner_start_ts, winner_commit_ts } => {
                let conflict = v1::WriteConflict { key, winner_start_ts, winner_commit_ts };
                v1::Error::new(Kind::WriteConflict(conflict), display)
            }
            Error::Aborted { key } => {
                let aborted = v1::TransactionAborted { key };
                v1::Error::new(Kind::TransactionAborted(aborted), display)
            }
            Error::Locked { key, start_ts, primary, alive_until_ms } => {
                let lock = v1::KeyLocked { key, primary, start_ts, alive_until_ms };
                v1::Error::new(Kind::KeyLocked(lock), display)
            }
            Error::Deadlock { cycle } => {
                let cycle = cycle.into_iter().map(v1::LockWait::from).collect();
                v1::Error::new(Kind::Deadlock(v1::Deadlock { cycle }), display)
            }
            Error::TooLarge { what, limit } => {
                v1::Error::new(Kind::TooLarge(v1::TooLarge { what, limit }), display)
            }
            Error::Unavailable(message) => v1::Error::unavailable(message),
            Error::TooBusy { message, retry_after } => {
                let retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
                v1::Error::too_busy(retry_after_ms, message)
            }
            Error::Undetermined(message) => v1::Error::undetermined(message),
            Error::Invalid { argument, message } => v1::Error::invalid(&argument, message),
            Error::PermissionDenied(message) => v1::Error::permission_denied(message),
            Error::NotFound(message) => v1::Error::not_found(message),
            Error::FailedPrecondition(message) => v1::Error::failed_precondition(message),
            Error::TooOld { message, floor_ts } => {
                v1::Error::new(Kind::TooOld(v1::TooOld { floor_ts }), message)
            }
            Error::DiskFull(message) => v1::Error::new(Kind::DiskFull(v1::DiskFull {}), message),
            Error::Corruption { message, file } => {
                v1::Error::new(Kind::Corruption(v1::Corruption { file }), message)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stops_a_transaction_survives_the_way_over_the_wire() {
        let key = Bytes::from_static(b"k");
        let primary = Bytes::from_static(b"p");
        let all = [
            Error::WriteConflict { key: key.clone(), winner_start_ts: 3, winner_commit_ts: 5 },
            Error::Aborted { key: key.clone() },
            Error::Deadlock {
                cycle: vec![LockWait { waiter_start_ts: 3, holder_start_ts: 4, key: key.clone() }],
            },
            Error::Locked { key: key.clone(), start_ts: 3, primary, alive_until_ms: 7 },
            Error::Conflict { key, condition_index: 0, actual: None },
        ];
        for error in all {
            assert_eq!(Error::from(v1::Error::from(error.clone())), error);
        }
    }

    #[test]
    fn what_is_too_large_names_the_limit_on_the_wire_too() {
        let error = Error::TooLarge { what: "12 keys".to_owned(), limit: 10 };
        let there = Error::from(v1::Error::from(error));
        assert!(matches!(&there, Error::TooLarge { limit: 10, .. }), "{there:?}");
        assert!(there.to_string().contains("12 keys over the limit of 10"), "{there}");
    }
}
