//! Heartbeat of a transaction: extends its life at its primary.

use rangedb_proto::v1::{self, HeartbeatLock, command_reply};

use super::check_transaction::{alive, committed, rolled_back};
use super::fate::Fate;
use super::range_check::RangeCheck;
use super::{Evaluate, Stop};
use crate::evaluation::Evaluation;
use crate::facts::{CommandFacts, Cost, Named, NamedTimestamps, Visit};
use crate::limits::{check_key, check_timestamp};

impl CommandFacts for HeartbeatLock {
    fn name(&self) -> &'static str {
        "heartbeat_lock"
    }

    fn check(&self) -> Result<(), v1::Error> {
        check_timestamp("start_ts", self.start_ts)?;
        check_key(&self.primary)
    }

    fn start_ts(&self) -> u64 {
        self.start_ts
    }

    fn timestamps(&self) -> NamedTimestamps {
        // The node that proposes the command bounds `alive_until_ms`.
        let HeartbeatLock { start_ts, primary: _, alive_until_ms: _ } = self;
        NamedTimestamps::handed_out([*start_ts])
    }

    fn cost(&self) -> Cost {
        Cost::new(1, false)
    }

    fn visit_named<'a>(&'a self, visit: Visit<'_, 'a>) {
        visit(Named::Written(&self.primary));
    }

    fn alive_until_ms(&mut self) -> Option<&mut u64> {
        Some(&mut self.alive_until_ms)
    }
}

impl Evaluate for HeartbeatLock {
    /// Never shortens a life, and decides nothing: a transaction without a record here has lost its
    /// locks, or never had them.
    fn evaluate(&self, evaluation: &mut Evaluation<'_, '_>) -> Result<command_reply::Body, Stop> {
        let key = &self.primary;
        RangeCheck::of(evaluation.context).check_key(key)?;
        Ok(match evaluation.find(key, self.start_ts)?.fate {
            // Only the primary's lock has a life of its own.
            Fate::Locked(lock) if lock.primary != key => return Err(Stop::locked(key, &lock)),
            Fate::Locked(mut lock) => {
                if self.alive_until_ms > lock.alive_until_ms {
                    lock.alive_until_ms = self.alive_until_ms;
                    evaluation.replace_lock(key, &lock);
                }
                alive(&lock)
            }
            Fate::Committed { commit_ts } => committed(commit_ts),
            Fate::RolledBack => rolled_back(),
            Fate::Unknown => {
                evaluation.memory().check_remembered(self.start_ts)?;
                rolled_back()
            }
        })
    }
}
