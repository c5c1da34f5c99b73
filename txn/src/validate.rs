//! Validation of the reads of a transaction over ranges at its commit timestamp.
//!
//! Validation is itself a read at that timestamp, and must be served as one: the range's fence
//! rises to it first, so everything that is committed or prewritten afterwards gets a higher
//! timestamp. So a confirmed read stays confirmed, and long reads may be confirmed part by part.

use rangedb_proto::Timestamp;
use rangedb_proto::v1::{self, KeyLocked, Validate, ValidateReply, WriteConflict, error::Kind};
use rangedb_storage::{Reader, Result};

use crate::floors::{floor_above, too_old_error};
use crate::read::ReadAt;
use crate::read_checks::{Finding, Looked, ReadChecks, ResumeAt};
use crate::walk_budget::WalkBudget;

/// Records that one request looks at, versions and locks, those of deleted keys included. That
/// takes some milliseconds. A longer span is confirmed in several requests, all at one timestamp.
pub const VALIDATE_WALK_MAX: usize = 4096;

/// Outcome of a validation.
#[derive(Clone, PartialEq, Debug)]
pub enum ValidateOutcome {
    /// At the commit timestamp, everything is as it was read.
    Unchanged,
    /// Another transaction committed a version between a read and the commit timestamp.
    Conflict(WriteConflict),
    /// A lock blocks the validation. Its transaction may commit a version in between: this is
    /// undecided, or not known in this range.
    Locked(KeyLocked),
    /// Everything so far is as it was read. One request looks at no more than [`VALIDATE_WALK_MAX`]
    /// records; the next one resumes here.
    Unfinished(ResumeAt),
    /// The transaction read below the range's floor: versions in between may be gone.
    TooOld { floor_ts: u64 },
}

impl ValidateOutcome {
    /// Returns the reply, or the error to send to the client.
    ///
    /// # Errors
    ///
    /// `KeyLocked` and `TooOld`.
    pub fn unlocked(self) -> std::result::Result<ValidateReply, v1::Error> {
        match self {
            ValidateOutcome::Unchanged => Ok(ValidateReply::default()),
            ValidateOutcome::Conflict(conflict) => {
                Ok(ValidateReply { conflict: Some(conflict), ..Default::default() })
            }
            ValidateOutcome::Unfinished(ResumeAt { read, key }) => {
                let resume_read = u32::try_from(read).expect("a request has few reads");
                Ok(ValidateReply { conflict: None, more: true, resume_read, resume_key: key })
            }
            ValidateOutcome::Locked(lock) => {
                let message = format!("key {} is locked", lock.key.escape_ascii());
                Err(v1::Error::new(Kind::KeyLocked(lock), message))
            }
            ValidateOutcome::TooOld { floor_ts } => Err(too_old_error(floor_ts)),
        }
    }
}

/// Validates what the transaction read in the range that begins at `range_start`. The caller has
/// checked the request with [`check_validate`](crate::check_validate), and that its spans lie in
/// the range.
///
/// # Errors
///
/// Only errors of the storage engine.
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
    Ok(match checks.look(&request.reads, &mut WalkBudget::new(VALIDATE_WALK_MAX))? {
        Looked::AtAll => ValidateOutcome::Unchanged,
        Looked::UpTo(resume_at) => ValidateOutcome::Unfinished(resume_at),
        Looked::Found(Finding::Newer(conflict)) => ValidateOutcome::Conflict(conflict),
        Looked::Found(Finding::Locked(locked)) => ValidateOutcome::Locked(locked),
    })
}
