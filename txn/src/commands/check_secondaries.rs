//! Check of the secondary locks of an asynchronous commit, which its primary names.
//!
//! An asynchronous commit is decided from the moment that all of its locks stand, at the largest of
//! their min_commit_ts. No record says so: the coordinator has answered its client before any lock
//! became a version. So a client that finds the transaction expired must not roll it back, unless
//! it makes sure that one lock does not stand and never will.
//!
//! This command makes sure of that in one range. From then on, the range refuses the transaction's
//! prewrite if it has not seen it before. If it has, the locks stay as they are. So whenever
//! clients ask, either all of them learn that all locks stand, or none does.
//!
//! The primary then decides, as always. The client resolves the primary's lock alone, and
//! afterwards the others. If the primary's lock is gone by then, another client has decided, and
//! the client asks the primary for the outcome.

use rangedb_proto::v1::transaction_status::State;
use rangedb_proto::v1::{self, CheckSecondaries, TransactionStatus, command_reply};

use super::check_transaction::{committed, rolled_back, status};
use super::fate::Fate;
use super::range_check::RangeCheck;
use super::{Evaluate, Stop};
use crate::check::check_keys;
use crate::evaluation::Evaluation;
use crate::facts::{CommandFacts, Cost, NamedTimestamps, Visit, visit_written};

impl CommandFacts for CheckSecondaries {
    fn name(&self) -> &'static str {
        "check_secondaries"
    }

    fn check(&self) -> Result<(), v1::Error> {
        check_keys(self.start_ts, &self.keys)
    }

    fn start_ts(&self) -> u64 {
        self.start_ts
    }

    fn timestamps(&self) -> NamedTimestamps {
        let CheckSecondaries { start_ts, keys: _ } = self;
        NamedTimestamps::handed_out([*start_ts])
    }

    fn cost(&self) -> Cost {
        Cost::new(self.keys.len(), true)
    }

    fn visit_named<'a>(&'a self, visit: Visit<'_, 'a>) {
        visit_written(&self.keys, visit);
    }
}

impl Evaluate for CheckSecondaries {
    /// Writes nothing if one of the keys knows that the transaction committed.
    fn evaluate(&self, evaluation: &mut Evaluation<'_, '_>) -> Result<command_reply::Body, Stop> {
        RangeCheck::of(evaluation.context).check_keys(&self.keys)?;
        let mut min_commit_ts = 0;
        let mut is_rolled_back = false;
        let mut missing = Vec::new();
        for key in &self.keys {
            match evaluation.find(key, self.start_ts)?.fate {
                // The key is only reserved: its prewrite has not been here.
                Fate::Locked(lock) if lock.is_pessimistic() => missing.push((key, Some(lock))),
                Fate::Locked(lock) => min_commit_ts = min_commit_ts.max(lock.min_commit_ts),
                Fate::Committed { commit_ts } => return Ok(committed(commit_ts)),
                Fate::RolledBack => is_rolled_back = true,
                Fate::Unknown => {
                    evaluation.memory().check_remembered(self.start_ts)?;
                    missing.push((key, None));
                }
            }
        }
        if missing.is_empty() && !is_rolled_back {
            return Ok(status(TransactionStatus {
                state: State::Alive.into(),
                min_commit_ts,
                async_commit: true,
                ..Default::default()
            }));
        }
        for (key, lock) in missing {
            evaluation.roll_back(key, self.start_ts, lock.as_ref());
        }
        Ok(rolled_back())
    }
}
