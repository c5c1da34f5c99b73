//! Errors, by what the caller can do next. Where a request failed inside the cluster does not matter
//! to the caller: leaders that moved, ranges that split and lost connections are handled by retries
//! and only show when the time is up.

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
        /// Place of the first condition that failed, counted from 0.
        condition_index: usize,
        /// What stood at the key when the condition was checked; none if the key had no value.
        actual: Option<Box<KeyValue>>,
    },
    /// Nobody could do it in time, and it certainly did not happen. May work later.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// As [`Error::Unavailable`], because of load: slow down first.
    #[error("too busy: {message}")]
    TooBusy {
        message: String,
        /// What the overloaded node asked for.
        retry_after: Duration,
    },
    /// A write may have happened, or may happen still. Read before deciding what to do; doing it
    /// again is right only where doing it twice is harmless.
    #[error("the outcome is not known: {0}")]
    Undetermined(String),
    /// The request breaks a rule and never works as it stands.
    #[error("invalid {argument}: {message}")]
    Invalid { argument: String, message: String },
    /// The caller may not do this.
    #[error("permission denied: {0}")]
    PermissionDenied(String),
    /// What was to be changed or shown does not exist. Not for keys: those are `None`.
    #[error("not found: {0}")]
    NotFound(String),
    /// The state of the cluster forbids the change until an operator alters that state.
    #[error("refused: {0}")]
    FailedPrecondition(String),
    /// The timestamp is older than the versions that are kept. Take a newer one.
    #[error("too old: {message}")]
    TooOld {
        message: String,
        /// The oldest that can be read.
        floor_ts: u64,
    },
    /// A disk is full: reads go on, writes work once an operator made room.
    #[error("disk full: {0}")]
    DiskFull(String),
    /// Stored bytes are not what was written, or an answer breaks the protocol. Needs an operator.
    #[error("corruption: {message}")]
    Corruption {
        message: String,
        /// The damaged file, where there is one.
        file: String,
    },
}

impl Error {
    /// Whether the same request may be sent again as it is: it certainly did not happen, and the
    /// reason may pass by itself.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Unavailable(_) | Error::TooBusy { .. })
    }

    pub(crate) fn invalid(argument: &str, message: impl Into<String>) -> Self {
        Error::Invalid { argument: argument.to_owned(), message: message.into() }
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Error::Corruption { message: message.into(), file: String::new() }
    }
}

impl From<v1::Error> for Error {
    fn from(error: v1::Error) -> Self {
        let message = error.message;
        match error.kind {
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
            Some(Kind::TooOld(old)) => Error::TooOld { message, floor_ts: old.floor_ts },
            Some(Kind::NotFound(_)) => Error::NotFound(message),
            Some(Kind::DiskFull(_)) => Error::DiskFull(message),
            Some(Kind::Corruption(corruption)) => {
                Error::Corruption { message, file: corruption.file }
            }
            Some(Kind::FailedPrecondition(_)) => Error::FailedPrecondition(message),
            // These end a request only when its time is up; none of them let it start.
            Some(
                Kind::Unavailable(_)
                | Kind::DeadlineExceeded(_)
                | Kind::NotLeader(_)
                | Kind::StaleEpoch(_)
                | Kind::RangeNotFound(_)
                | Kind::KeyLocked(_),
            ) => Error::Unavailable(message),
            // A newer server's kind of error: nothing is known about what happened.
            None => Error::Undetermined(message),
        }
    }
}

/// For a node that answers on behalf of its own client.
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
