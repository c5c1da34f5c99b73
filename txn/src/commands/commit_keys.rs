//! Second phase of a transaction over ranges: its locks become versions.
//!
//! In the primary's range, this command is the decision; in the others, it carries the decision
//! out.

use rangedb_proto::v1::{CommitKeys, CommitTooLow, command_reply};
use rangedb_storage::{ApplyContext, Batch};

use super::bounds::Bounds;
use super::fate::{Fate, Found};
use super::{Stop, aborted, committed, undecided};
use crate::memory::Memory;
use crate::outcome_record::Outcome;

/// Evaluates the command against the batch and puts its writes there.
pub(crate) fn apply(
    context: &ApplyContext<'_>,
    memory: &mut Memory,
    commit: &CommitKeys,
    batch: &mut Batch<'_>,
) -> Result<command_reply::Body, Stop> {
    Bounds::of(context).check_keys(&commit.keys)?;
    let mut locked = Vec::new();
    for key in &commit.keys {
        let found = Found::at(batch, memory, key, commit.start_ts)?;
        match found.fate {
            Fate::Locked(lock) => {
                check_high_enough(lock.promise(key), commit.commit_ts)?;
                locked.push((key.clone(), lock, found.current));
            }
            Fate::Committed { commit_ts } if commit_ts != commit.commit_ts => {
                return Err(Stop::committed(commit_ts));
            }
            Fate::Committed { .. } => {}
            Fate::RolledBack => return Err(Stop::aborted(key)),
            Fate::Unknown => {
                memory.check_remembered(commit.start_ts)?;
                // The sender takes this reply for final. Without the record, a late prewrite could
                // place a lock here, and a later copy of this command would commit it.
                if memory.may_lock(commit.start_ts) {
                    memory.locks.leave_outcome(batch, key, commit.start_ts, Outcome::RolledBack);
                }
                return Ok(aborted(key));
            }
        }
    }
    let timestamps = (commit.start_ts, commit.commit_ts);
    undecided::commit(context, memory, batch, timestamps, locked)?;
    Ok(committed(commit.commit_ts))
}

/// Refuses a commit below the promise of a lock: readers below min_commit_ts did not wait for it.
pub(super) fn check_high_enough(min_commit_ts: u64, commit_ts: u64) -> Result<(), Stop> {
    match commit_ts < min_commit_ts {
        true => Err(Stop::Reply(command_reply::Body::CommitTooLow(CommitTooLow { min_commit_ts }))),
        false => Ok(()),
    }
}
