//! Rollback of a transaction: removes its locks, and makes sure that its late commands are refused.

use rangedb_proto::v1::{self, Resolved, RollbackKeys, command_reply};

use super::fate::Fate;
use super::range_check::RangeCheck;
use super::{Evaluate, Stop};
use crate::check::check_keys;
use crate::evaluation::Evaluation;
use crate::facts::{CommandFacts, Cost, LockChange, NamedTimestamps, Visit, visit_written};

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

impl Evaluate for RollbackKeys {
    /// Writes nothing if one of the keys knows that the transaction committed.
    fn evaluate(&self, evaluation: &mut Evaluation<'_, '_>) -> Result<command_reply::Body, Stop> {
        RangeCheck::of(evaluation.context).check_keys(&self.keys)?;
        let start_ts = self.start_ts;
        let mut open = Vec::new();
        for key in &self.keys {
            match evaluation.find(key, start_ts)?.fate {
                Fate::Locked(lock) => open.push((key, Some(lock))),
                Fate::Unknown => {
                    evaluation.memory().check_remembered(start_ts)?;
                    open.push((key, None));
                }
                Fate::Committed { commit_ts } => return Err(Stop::committed(commit_ts)),
                Fate::RolledBack => {}
            }
        }
        for (key, lock) in open {
            evaluation.roll_back(key, start_ts, lock.as_ref());
        }
        Ok(command_reply::Body::Resolved(Resolved {
            keys: self.keys.len() as u64,
            ..Default::default()
        }))
    }
}
