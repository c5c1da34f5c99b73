//! Rollback of a transaction: removes its locks, and makes sure that its late commands are refused.

use rangedb_proto::v1::{self, Resolved, RollbackKeys, command_reply};
use rangedb_storage::{ApplyContext, Batch};

use super::fate::{Fate, Found};
use super::range_check::RangeCheck;
use super::{Stop, undecided};
use crate::check::check_keys;
use crate::facts::{CommandFacts, Cost, LockChange, NamedTimestamps, Visit, visit_written};
use crate::memory::Memory;
use crate::outcome_record::Outcome;

impl CommandFacts for RollbackKeys {
    fn name(&self) -> &'static str {
        "rollback_keys"
    }

    fn check(&self) -> Result<(), v1::Error> {
        check_keys(self.start_ts, &self.keys)
    }

    fn start_ts(&self) -> u64 {
        self.start_ts
    }

    fn timestamps(&self) -> NamedTimestamps {
        let RollbackKeys { start_ts, keys: _ } = self;
        NamedTimestamps::handed_out([*start_ts])
    }

    fn cost(&self) -> Cost {
        Cost::new(self.keys.len(), true)
    }

    fn visit_named<'a>(&'a self, visit: Visit<'_, 'a>) {
        visit_written(&self.keys, visit);
    }

    fn lock_change(&self, reply: &command_reply::Body) -> LockChange<'_> {
        match reply {
            command_reply::Body::Resolved(_) => {
                LockChange::Released { start_ts: self.start_ts, keys: &self.keys }
            }
            _ => LockChange::None,
        }
    }
}

/// Evaluates the command against the batch and puts its writes there. Writes nothing if one of the
/// keys knows that the transaction committed.
pub(crate) fn apply(
    context: &ApplyContext<'_>,
    memory: &mut Memory,
    rollback: &RollbackKeys,
    batch: &mut Batch<'_>,
) -> Result<command_reply::Body, Stop> {
    RangeCheck::of(context).check_keys(&rollback.keys)?;
    let start_ts = rollback.start_ts;
    let mut open = Vec::new();
    for key in &rollback.keys {
        match Found::at(batch, memory, key, start_ts)?.fate {
            Fate::Locked(lock) => open.push((key, Some(lock))),
            Fate::Unknown => {
                memory.check_remembered(start_ts)?;
                open.push((key, None));
            }
            Fate::Committed { commit_ts } => return Err(Stop::committed(commit_ts)),
            Fate::RolledBack => {}
        }
    }
    for (key, lock) in open {
        match lock {
            Some(lock) => undecided::roll_back(memory, batch, key, &lock),
            None if memory.may_lock(start_ts) => {
                memory.locks.leave_outcome(batch, key, start_ts, Outcome::RolledBack)
            }
            None => {}
        }
    }
    Ok(command_reply::Body::Resolved(Resolved {
        keys: rollback.keys.len() as u64,
        ..Default::default()
    }))
}
