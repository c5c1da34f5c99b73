//! Confirming the reads of a transaction over ranges at its commit timestamp.
//!
//! It is itself a read at that timestamp, and must be served as one: the range's fence rises to it
//! first, so that whatever is committed or prewritten there afterwards goes above it. What the
//! answer confirms then stays so.

use rangedb_proto::v1::{KeyLocked, Validate, WriteConflict};
use rangedb_storage::{Reader, Result};

use crate::limits::READ_CHECK_WALK_MAX;
use crate::read_checks::{Finding, ReadChecks};

/// What came of a validation.
#[derive(Clone, PartialEq, Debug)]
pub enum ValidateOutcome {
    /// All is at the commit timestamp as it was read.
    Unchanged,
    /// Another transaction committed a version in between.
    Conflict(WriteConflict),
    /// Whether this transaction commits a version in between is not decided, or not known here.
    Locked(KeyLocked),
    /// The spans hold more than this many records. A smaller transaction is needed.
    TooLong { records_max: usize },
}

/// Looks at what the transaction read. The caller has checked the request with
/// [`check_validate`](crate::check_validate), and that its spans lie in the range.
///
/// # Errors
///
/// The engine's alone.
pub fn validate(reader: &dyn Reader, request: &Validate) -> Result<ValidateOutcome> {
    let checks = ReadChecks {
        reader,
        start_ts: request.start_ts,
        until: request.commit_ts,
        with_locks: true,
    };
    Ok(match checks.first_finding(&request.reads)? {
        None => ValidateOutcome::Unchanged,
        Some(Finding::Newer(conflict)) => ValidateOutcome::Conflict(conflict),
        Some(Finding::Locked(locked)) => ValidateOutcome::Locked(locked),
        Some(Finding::TooLong) => ValidateOutcome::TooLong { records_max: READ_CHECK_WALK_MAX },
    })
}
