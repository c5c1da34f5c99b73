//! Failures of a command: the message on standard error, and the exit code, which is an interface
//! to scripts. The word in capitals is gRPC's name of the code, the same as in all clients. Only
//! `UNDETERMINED` is ours: a write whose outcome is unknown.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

use bytes::Bytes;
use rangedb_client::Error;
use rangedb_server::server::StartError;

use crate::escape::escape;

/// Exit code of every failure without a code of its own.
const EXIT_FAILED: u8 = 1;
/// Exit code of a command that is wrong as it stands, so that a retry never works. clap uses the
/// same code for errors of the command line.
const EXIT_USAGE: u8 = 2;
/// Exit code if the requested key does not exist. A script can use it as an answer.
const EXIT_KEY_NOT_FOUND: u8 = 3;

#[derive(Debug)]
pub enum Failure {
    /// The cluster refused, failed, or could not be asked.
    Request(Error),
    /// A commit failed: the transaction is over and nothing of it was written.
    NotCommitted(Error),
    /// The outcome of a commit is unknown. The session file keeps the transaction and is marked so.
    PerhapsCommitted(Error),
    KeyNotFound(Bytes),
    /// The command is not possible in the local state, whatever the state of the cluster.
    State(String),
    /// The arguments break a rule that clap does not know.
    Usage(String),
    /// The person at the terminal did not say yes; nothing was done.
    NotConfirmed,
    /// The person at the terminal interrupted the running command.
    Interrupted,
    /// A signal of this name ended the session.
    Stopped(&'static str),
    /// Number of commands of a script that failed. Each was reported.
    OfScript {
        failed: u64,
    },
    /// A file of the command line could not be read or written.
    File {
        path: PathBuf,
        error: io::Error,
    },
    Input(io::Error),
    Output(io::Error),
    /// The operating system refused a thread, a socket or the like at the start.
    Runtime(io::Error),
    /// A node did not come up, or went down by itself.
    Server(Box<StartError>),
}

impl Failure {
    pub fn file(path: impl Into<PathBuf>, error: io::Error) -> Self {
        Failure::File { path: path.into(), error }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Failure::KeyNotFound(_) => EXIT_KEY_NOT_FOUND,
            Failure::Usage(_)
            | Failure::Request(Error::Invalid { .. } | Error::TooLarge { .. })
            | Failure::NotCommitted(Error::Invalid { .. } | Error::TooLarge { .. }) => EXIT_USAGE,
            _ => EXIT_FAILED,
        }
    }

    /// True if this failure makes the commit of an open transaction impossible.
    pub fn loses_transaction(&self) -> bool {
        matches!(self, Failure::Request(Error::Aborted { .. } | Error::Deadlock { .. }))
    }

    /// True if the reader of the output closed it early, as `head` does.
    fn is_reader_gone(&self) -> bool {
        matches!(self, Failure::Output(error) if error.kind() == ErrorKind::BrokenPipe)
    }
}

/// Reports a failure, if there is one. Returns the exit code.
pub fn report(result: Result<(), Failure>, notes: &mut dyn Write) -> u8 {
    match result {
        Ok(()) => 0,
        Err(failure) if failure.is_reader_gone() => 0,
        Err(failure) => {
            // If this fails too, only the exit code tells of the failure.
            let _ = writeln!(notes, "{failure}");
            failure.exit_code()
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::KeyNotFound(key) => write!(f, "key not found: {}", escape(key)),
            Failure::Request(error) => write!(f, "error: {}", Coded(error)),
            Failure::NotCommitted(error) => {
                write!(f, "error: {}\n(the transaction is over, ", Coded(error))?;
                write!(f, "nothing of it was written)")
            }
            Failure::PerhapsCommitted(error) => {
                write!(f, "error: {}\n(the transaction is kept as one that may be ", Coded(error))?;
                write!(f, "committed: read what it wrote, then `txn rollback` forgets it)")
            }
            Failure::State(message) => write!(f, "error: FAILED_PRECONDITION: {message}"),
            Failure::Interrupted => {
                write!(f, "interrupted; what it was doing may have happened, or happen still")
            }
            Failure::Stopped(signal) => write!(f, "stopped by {signal}"),
            Failure::OfScript { failed: 1 } => write!(f, "1 command failed"),
            Failure::OfScript { failed } => write!(f, "{failed} commands failed"),
            Failure::Usage(message) => write!(f, "error: INVALID_ARGUMENT: {message}"),
            Failure::NotConfirmed => write!(f, "error: not confirmed, nothing was done"),
            Failure::File { path, error } => write!(f, "error: {}: {error}", path.display()),
            Failure::Input(error) => write!(f, "error: cannot read standard input: {error}"),
            Failure::Output(error) => write!(f, "error: cannot write the answer: {error}"),
            Failure::Server(error) => write!(f, "error: {error}"),
            Failure::Runtime(error) => write!(f, "error: cannot start: {error}"),
        }
    }
}

/// A client's error with its code in front.
struct Coded<'a>(&'a Error);

impl fmt::Display for Coded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Error::Conflict { .. } => write!(f, "ABORTED: {}", self.0),
            Error::WriteConflict { .. } => {
                write!(f, "ABORTED: {}; begin anew: what was read may have changed", self.0)
            }
            Error::Aborted { .. } => {
                write!(f, "ABORTED: {}, taken for dead; begin anew", self.0)
            }
            Error::Locked { key, .. } => {
                let key = escape(key);
                write!(f, "ABORTED: {}; nothing was written: try again later, or see ", self.0)?;
                write!(f, "`admin debug locks {key}`")
            }
            Error::Deadlock { .. } => {
                write!(f, "ABORTED: {}; begin anew, and lock keys in the same order", self.0)?;
                write!(f, " everywhere")
            }
            Error::TooLarge { .. } => write!(f, "INVALID_ARGUMENT: {}", self.0),
            Error::Unavailable(message) => write!(f, "UNAVAILABLE: {message}"),
            Error::TooBusy { message, retry_after } => {
                write!(f, "RESOURCE_EXHAUSTED: {message}; try again in {retry_after:?}")
            }
            Error::Undetermined(message) => {
                write!(f, "UNDETERMINED: {message}; the write may have happened, or happen still")
            }
            Error::Invalid { argument, message } => {
                write!(f, "INVALID_ARGUMENT: {argument}: {message}")
            }
            Error::PermissionDenied(message) => write!(f, "PERMISSION_DENIED: {message}"),
            Error::NotFound(message) => write!(f, "NOT_FOUND: {message}"),
            Error::FailedPrecondition(message) => write!(f, "FAILED_PRECONDITION: {message}"),
            Error::TooOld { message, floor_ts } => {
                write!(f, "OUT_OF_RANGE: {message}; what was there before {floor_ts} is gone: ")?;
                write!(f, "begin anew, or read at a later timestamp")
            }
            Error::DiskFull(message) => write!(f, "RESOURCE_EXHAUSTED: disk full: {message}"),
            Error::Corruption { message, file } if file.is_empty() => {
                write!(f, "DATA_LOSS: {message}")
            }
            Error::Corruption { message, file } => write!(f, "DATA_LOSS: {file}: {message}"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Request(error)
    }
}

/// Takes an I/O error for one of the output. Commands write in many places; the few places that
/// read map their errors themselves.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Output(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rangedb_client::LockWait;
    use std::time::Duration;

    fn reported(failure: Failure) -> (u8, String) {
        let mut notes = Vec::new();
        let code = report(Err(failure), &mut notes);
        (code, String::from_utf8(notes).unwrap())
    }

    #[test]
    fn every_error_of_a_request_begins_with_its_code() {
        let text = || "why".to_owned();
        let key = || Bytes::from_static(b"k");
        let busy = Error::TooBusy { message: text(), retry_after: Duration::from_millis(7) };
        let invalid = Error::Invalid { argument: "key".into(), message: text() };
        let corruption = Error::Corruption { message: text(), file: "7.sst".into() };
        let conflict = Error::Conflict { key: key(), condition_index: 0, actual: None };
        for (error, code, message) in [
            (Error::Unavailable(text()), 1, "UNAVAILABLE: why"),
            (busy, 1, "RESOURCE_EXHAUSTED: why; try again in 7ms"),
            (invalid, 2, "INVALID_ARGUMENT: key: why"),
            (Error::PermissionDenied(text()), 1, "PERMISSION_DENIED: why"),
            (Error::NotFound(text()), 1, "NOT_FOUND: why"),
            (Error::FailedPrecondition(text()), 1, "FAILED_PRECONDITION: why"),
            (Error::DiskFull(text()), 1, "RESOURCE_EXHAUSTED: disk full: why"),
            (corruption, 1, "DATA_LOSS: 7.sst: why"),
            (conflict, 1, "ABORTED: condition 0 on key `k` does not hold"),
        ] {
            assert_eq!(reported(error.into()), (code, format!("error: {message}\n")));
        }
    }

    fn deadlock() -> Error {
        let wait = |waiter_start_ts, holder_start_ts| LockWait {
            waiter_start_ts,
            holder_start_ts,
            key: Bytes::from_static(b"k"),
        };
        Error::Deadlock { cycle: vec![wait(3, 5), wait(5, 3)] }
    }

    #[test]
    fn what_stops_a_transaction_says_what_to_do_next() {
        let key = || Bytes::from_static(b"k\n");
        let conflict = Error::WriteConflict { key: key(), winner_start_ts: 3, winner_commit_ts: 5 };
        let primary = Bytes::from_static(b"p");
        let locked = Error::Locked { key: key(), start_ts: 3, primary, alive_until_ms: 7 };
        let old = Error::TooOld { message: "why".into(), floor_ts: 9 };
        for (error, code, next) in [
            (conflict.clone(), "ABORTED", "begin anew: what was read may have changed"),
            (Error::Aborted { key: key() }, "ABORTED", "begin anew"),
            (deadlock(), "ABORTED", "begin anew, and lock keys in the same order everywhere"),
            (locked, "ABORTED", r"try again later, or see `admin debug locks k\n`"),
            (old, "OUT_OF_RANGE", "before 9 is gone: begin anew, or read at a later timestamp"),
        ] {
            let (exit_code, message) = reported(error.into());
            assert!(message.starts_with(&format!("error: {code}: ")), "{message}");
            assert!(message.trim_end().ends_with(next), "{message}");
            assert_eq!(exit_code, 1);
        }
        let (code, message) = reported(Failure::NotCommitted(conflict));
        assert!(message.ends_with("(the transaction is over, nothing of it was written)\n"));
        assert_eq!(code, 1);
    }

    #[test]
    fn only_a_transaction_that_can_never_commit_is_lost() {
        let key = || Bytes::from_static(b"k");
        for lost in [Error::Aborted { key: key() }, deadlock()] {
            assert!(Failure::from(lost).loses_transaction());
        }
        let locked = Error::Locked { key: key(), start_ts: 3, primary: key(), alive_until_ms: 7 };
        for failure in
            [locked.into(), Failure::KeyNotFound(key()), Error::Unavailable("no".into()).into()]
        {
            assert!(!failure.loses_transaction(), "{failure}");
        }
    }

    #[test]
    fn a_write_of_unknown_outcome_is_never_called_failed() {
        let (code, message) = reported(Error::Undetermined("no answer".into()).into());
        assert_eq!(code, 1);
        assert!(message.starts_with("error: UNDETERMINED: no answer; the write may have happened"));
    }

    #[test]
    fn a_missing_key_has_an_exit_code_of_its_own() {
        let failure = Failure::KeyNotFound(Bytes::from_static(b"/a\n"));
        assert_eq!(reported(failure), (3, "key not found: /a\\n\n".to_owned()));
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        let gone = Failure::Output(ErrorKind::BrokenPipe.into());
        assert_eq!(reported(gone), (0, String::new()));
        let (code, message) = reported(Failure::Output(ErrorKind::StorageFull.into()));
        assert_eq!(code, 1);
        assert!(message.starts_with("error: cannot write the answer: "), "{message}");
    }
}
