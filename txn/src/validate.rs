//! Confirming the reads of a transaction over ranges at its commit timestamp.
//!
//! It is itself a read at that timestamp, and must be served as one: the range's fence rises to it
//! first, so that whatever is committed or prewritten there afterwards goes above it. What the
//! answer confirms then stays so.

use rangedb_proto::Timestamp;
use rangedb_proto::v1::{self, KeyLocked, Validate, WriteConflict, error::Kind};
use rangedb_storage::{Reader, Result};

use crate::floors::{floor_above, too_old_error};
use crate::limits::READ_CHECK_WALK_MAX;
use crate::read::ReadAt;
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
    /// The transaction read below the range's floor: what came in between may be gone.
    TooOld { floor_ts: u64 },
}

impl ValidateOutcome {
    /// Nothing, or the conflict; or what a client is told that stopped the validation.
    ///
    /// # Errors
    ///
    /// `KeyLocked`, `TooOld`, and `InvalidArgument` for too much to look at.
    pub fn unlocked(self) -> std::result::Result<Option<WriteConflict>, v1::Error> {
        match self {
            ValidateOutcome::Unchanged => Ok(None),
            ValidateOutcome::Conflict(conflict) => Ok(Some(conflict)),
            ValidateOutcome::Locked(lock) => {
                let message = format!("key {} is locked", lock.key.escape_ascii());
                Err(v1::Error::new(Kind::KeyLocked(lock), message))
            }
            ValidateOutcome::TooLong { records_max } => {
                let message = format!("what was read holds more than {records_max} records");
                Err(v1::Error::invalid("reads", message))
            }
            ValidateOutcome::TooOld { floor_ts } => Err(too_old_error(floor_ts)),
        }
    }
}

/// Looks at what the transaction read in the range that begins at `range_start`. The caller has
/// checked the request with [`check_validate`](crate::check_validate), and that its spans lie in the
/// range.
///
/// # Errors
///
/// The engine's alone.
pub fn validate(
    reader: &dyn Reader,
    range_start: &[u8],
    request: &Validate,
) -> Result<ValidateOutcome> {
    let reads = request.reads.iter().map(|read| read.read_ts);
    let oldest = Timestamp(reads.chain([request.commit_ts]).min().unwrap_or_default());
    if let Some(floor_ts) = floor_above(reader, range_start, ReadAt::Timestamp(oldest))? {
        return Ok(ValidateOutcome::TooOld { floor_ts });
    }
    let checks = ReadChecks {
        reader,
        start_ts: request.start_ts,
        until: request.commit_ts,
        with_locks: true,
        passed: &request.pass_locks_of,
        collect_below: 0,
    };
    Ok(match checks.first_finding(&request.reads)? {
        None => ValidateOutcome::Unchanged,
        Some(Finding::Newer(conflict)) => ValidateOutcome::Conflict(conflict),
        Some(Finding::Locked(locked)) => ValidateOutcome::Locked(locked),
        Some(Finding::TooLong) => ValidateOutcome::TooLong { records_max: READ_CHECK_WALK_MAX },
    })
}
