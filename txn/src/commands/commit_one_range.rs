//! A transaction whose keys lie in one range: check, then write, in one step of the log.
//!
//! The steps, in order:
//!
//! 1. A command that was applied before gets its first answer again. Another command of the same
//!    start_ts is refused.
//! 2. The command and its reads must not be below the floor.
//! 3. Other transactions must not have locks on the keys that it writes.
//! 4. Its reads must still be valid.
//! 5. Its conditions must hold.
//! 6. Its operations are evaluated.
//!
//! Only then is anything written, so a command that ends earlier leaves the state untouched.

use std::collections::BTreeMap;

use bytes::Bytes;
use rangedb_proto::v1::{self, CommitOneRange, Committed, Operation, command_reply, operation};
use rangedb_storage::{ApplyContext, Direction, Reader};

use super::changes::Changes;
use super::identity::{self, Identity};
use super::range_check::RangeCheck;
use super::{Evaluate, Stop, conditions, operations::Execution, repeat};
use crate::check::check_commit;
use crate::check::written_key;
use crate::evaluation::Evaluation;
use crate::facts::{
    CommandFacts, Cost, NamedTimestamps, Visit, newest_read, only_deletes, visit_conditions,
    visit_operations, visit_reads,
};
use crate::limits::{COMMAND_WALK_MAX, first_key, span_end};
use crate::lock::Lock;
use crate::lock_walk::LockWalk;
use crate::memory::Memory;
use crate::planted::planted;
use crate::read::ReadAt;
use crate::read_checks::{Finding, Looked, ReadChecks};
use crate::spans::names_spans;
use crate::walk_budget::WalkBudget;

impl CommandFacts for CommitOneRange {
    fn name(&self) -> &'static str {
        "commit_one_range"
    }

    fn check(&self) -> Result<(), v1::Error> {
        check_commit(self)
    }

    fn start_ts(&self) -> u64 {
        self.start_ts
    }

    fn timestamps(&self) -> NamedTimestamps {
        let CommitOneRange {
            start_ts,
            reads,
            // Conditions are compared with the stored state. They are not used as timestamps.
            conditions: _,
            operations: _,
            return_previous: _,
        } = self;
        NamedTimestamps::handed_out([*start_ts, newest_read(reads)])
    }

    fn cost(&self) -> Cost {
        let items = self.conditions.len() + self.operations.len() + self.reads.len();
        // All spans of a command share one budget.
        let walked = if names_spans(self) { COMMAND_WALK_MAX } else { 0 };
        Cost::new(items + walked, only_deletes(&self.operations))
    }

    fn values_in_reply(&self) -> usize {
        let previous = if self.return_previous { self.operations.len() } else { 0 };
        // The value that a failed condition met.
        previous.max(self.conditions.len().min(1))
    }

    fn visit_named<'a>(&'a self, visit: Visit<'_, 'a>) {
        visit_operations(&self.operations, visit);
        visit_conditions(&self.conditions, visit);
        visit_reads(&self.reads, visit);
    }
}

impl Evaluate for CommitOneRange {
    fn evaluate(&self, evaluation: &mut Evaluation<'_, '_>) -> Result<command_reply::Body, Stop> {
        let (context, memory, reader) =
            (evaluation.context, evaluation.memory(), evaluation.reader());
        let bounds = RangeCheck::of(context);
        bounds.check_items(&self.conditions, &self.operations)?;
        bounds.check_reads(&self.reads)?;
        let collect_below = memory.range.collected_below_ts;
        let known = match identity::of_commit(reader, memory, self) {
            _ if planted!(RetryAppliedTwice) => BTreeMap::new(),
            Err(stop) => return Err(stop),
            Ok(Identity::WrittenAt(commit_ts)) => {
                // Below collect_below, garbage collection may have dropped the versions that the
                // command replaced, and the command's own on some replicas. The answer must not depend
                // on either.
                memory.check_remembered(commit_ts)?;
                return repeat::answer(reader, context, self, commit_ts, collect_below)
                    .map(command_reply::Body::Committed);
            }
            Ok(Identity::New(known)) => known,
        };
        memory.check_floor(self.start_ts)?;
        self.reads.iter().try_for_each(|read| memory.check_floor(read.read_ts))?;
        let mut budget = WalkBudget::new(COMMAND_WALK_MAX);
        if !memory.locks.is_empty() {
            check_locks(context, self, reader, &mut budget)?;
        }
        check_reads(memory, self, reader, &mut budget)?;
        conditions::check(reader, &memory.locks, self.start_ts, &self.conditions)?;

        let commit_ts = evaluation.next_ts(self.start_ts)?;
        let mut execution =
            Execution::new(reader, ReadAt::Latest, context.end_key, self, commit_ts, collect_below)
                .with_known(known);
        let results = execution.run(&self.operations, &mut budget)?;
        let changes = execution.into_changes();
        if !planted!(RetryAppliedTwice) {
            identity::check_unused(reader, memory, &changes)?;
        }
        changes.check_order()?;
        let own_locks = own_locks(memory, &changes, reader)?;
        // Nothing fails from here on.
        own_locks.iter().for_each(|key| evaluation.remove_lock(key, self.start_ts));
        changes.write_to(evaluation);
        // Also without an operation: a commit that only checked must not share its timestamp with a
        // later one that writes. A snapshot at that timestamp would show what the check did not see.
        evaluation.committed(commit_ts);
        Ok(command_reply::Body::Committed(Committed {
            commit_ts,
            results,
            repeated_command: false,
        }))
    }
}

/// Refuses the command if a key that it writes is locked, except by a pessimistic lock of its own.
fn check_locks(
    context: &ApplyContext<'_>,
    commit: &CommitOneRange,
    reader: &dyn Reader,
    budget: &mut WalkBudget,
) -> Result<(), Stop> {
    for operation in &commit.operations {
        if let Some(key) = written_key(operation) {
            if let Some(lock) = Lock::read(reader, key)? {
                check_lock(commit, key, &lock)?;
            }
            continue;
        }
        let (start, end) = deleted_span(operation, context.end_key);
        let mut locks = LockWalk::new(reader, (start, end), Direction::Forward)?;
        while let Some((key, lock)) = locks.next()? {
            if !budget.take() {
                return Err(Stop::too_large("records in its spans", COMMAND_WALK_MAX));
            }
            if let Some(lock) = lock {
                check_lock(commit, &key, &lock)?;
            }
        }
    }
    Ok(())
}

fn check_lock(commit: &CommitOneRange, key: &[u8], lock: &Lock) -> Result<(), Stop> {
    match lock.start_ts == commit.start_ts {
        true if lock.is_pessimistic() => Ok(()),
        true => Err(identity::reused(key, commit.start_ts)),
        false => Err(Stop::locked(key, lock)),
    }
}

fn deleted_span<'a>(operation: &'a Operation, range_end: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    match &operation.body {
        Some(operation::Body::DeleteRange(span)) => {
            (first_key(&span.start_key), span_end(&span.end_key, range_end))
        }
        other => unreachable!("{other:?} writes one key"),
    }
}

fn check_reads(
    memory: &Memory,
    commit: &CommitOneRange,
    reader: &dyn Reader,
    budget: &mut WalkBudget,
) -> Result<(), Stop> {
    let checks = ReadChecks {
        reader,
        start_ts: commit.start_ts,
        // The command commits above every version.
        until: u64::MAX,
        with_locks: !memory.locks.is_empty(),
        passed: &[],
        collect_below: memory.range.collected_below_ts,
    };
    match checks.look(&commit.reads, budget)? {
        Looked::AtAll => Ok(()),
        Looked::UpTo(_) => Err(Stop::too_large("records in its spans", COMMAND_WALK_MAX)),
        Looked::Found(Finding::Newer(conflict)) => Err(Stop::conflict(conflict)),
        Looked::Found(Finding::Locked(locked)) => {
            Err(Stop::Reply(command_reply::Body::Locked(locked)))
        }
    }
}

/// Returns the written keys with a pessimistic lock of the transaction, which the commit removes.
fn own_locks(memory: &Memory, changes: &Changes, reader: &dyn Reader) -> Result<Vec<Bytes>, Stop> {
    let mut locked = Vec::new();
    if memory.locks.is_empty() {
        return Ok(locked);
    }
    for key in changes.written() {
        if memory.locks.get(reader, key)?.is_some() {
            locked.push(key.clone());
        }
    }
    Ok(locked)
}
