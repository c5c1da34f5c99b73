//! Second phase of a transaction over ranges: its locks become versions.
//!
//! In the primary's range, this command is the decision; in the others, it carries the decision
//! out.

use rangedb_proto::v1::{self, CommitKeys, CommitTooLow, command_reply};

use super::fate::Fate;
use super::range_check::RangeCheck;
use super::{Evaluate, Stop, aborted, committed, undecided};
use crate::check::{check_commit_ts, check_keys};
use crate::evaluation::Evaluation;
use crate::facts::{CommandFacts, Cost, LockChange, NamedTimestamps, Visit, visit_written};

impl CommandFacts for CommitKeys {
    fn name(&self) -> &'static str {
        "commit_keys"
    }

    fn check(&self) -> Result<(), v1::Error> {
        let CommitKeys { start_ts, commit_ts, keys } = self;
        check_commit_ts(*start_ts, *commit_ts)?;
        check_keys(*start_ts, keys)
    }

    fn start_ts(&self) -> u64 {
        self.start_ts
    }

    fn timestamps(&self) -> NamedTimestamps {
        let CommitKeys { start_ts, commit_ts, keys: _ } = self;
        NamedTimestamps::of_commit(*start_ts, *commit_ts)
    }

    fn cost(&self) -> Cost {
        Cost::new(self.keys.len(), true)
    }

    fn visit_named<'a>(&'a self, visit: Visit<'_, 'a>) {
        visit_written(&self.keys, visit);
    }

    fn lock_change(&self, reply: &command_reply::Body) -> LockChange<'_> {
        match reply {
            command_reply::Body::Committed(_) => {
                LockChange::Released { start_ts: self.start_ts, keys: &self.keys }
            }
            _ => LockChange::None,
        }
    }
}

impl Evaluate for CommitKeys {
    fn evaluate(&self, evaluation: &mut Evaluation<'_, '_>) -> Result<command_reply::Body, Stop> {
        RangeCheck::of(evaluation.context).check_keys(&self.keys)?;
        let mut locked = Vec::new();
        for key in &self.keys {
            let found = evaluation.find(key, self.start_ts)?;
            match found.fate {
                Fate::Locked(lock) => {
                    check_high_enough(lock.promise(key), self.commit_ts)?;
                    locked.push((key.clone(), lock, found.current));
                }
                Fate::Committed { commit_ts } if commit_ts != self.commit_ts => {
                    return Err(Stop::committed(commit_ts));
                }
                Fate::Committed { .. } => {}
                Fate::RolledBack => return Err(Stop::aborted(key)),
                Fate::Unknown => {
                    evaluation.memory().check_remembered(self.start_ts)?;
                    // The sender takes this reply for final. Without the record, a late prewrite could
                    // place a lock here, and a later copy of this command would commit it.
                    evaluation.roll_back(key, self.start_ts, None);
                    return Ok(aborted(key));
                }
            }
        }
        let timestamps = (self.start_ts, self.commit_ts);
        undecided::commit(evaluation, timestamps, locked)?;
        Ok(committed(self.commit_ts))
    }
}

/// Refuses a commit below the promise of a lock: readers below min_commit_ts did not wait for it.
pub(super) fn check_high_enough(min_commit_ts: u64, commit_ts: u64) -> Result<(), Stop> {
    match commit_ts < min_commit_ts {
        true => Err(Stop::Reply(command_reply::Body::CommitTooLow(CommitTooLow { min_commit_ts }))),
        false => Ok(()),
    }
}
