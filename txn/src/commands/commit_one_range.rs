//! A transaction whose keys lie in one range: check, then write, in one step of the log.
//!
//! In order: was it applied before; is it too old to tell; are its keys free of locks; is what it
//! read still so; do its conditions hold; what do its operations make of the state. Only then is
//! anything written, so every earlier way out leaves the state untouched.

use rangedb_proto::v1::{CommitOneRange, Committed, Operation, command_reply, operation};
use rangedb_storage::{ApplyContext, Batch, Direction, Reader};

use super::bounds::Bounds;
use super::changes::Changes;
use super::{Stop, conditions, operations::Execution, repeat};
use crate::check::written_key;
use crate::limits::{DELETE_RANGE_WALK_MAX, READ_CHECK_WALK_MAX, first_key, span_end};
use crate::lock::Lock;
use crate::lock_walk::LockWalk;
use crate::memory::Memory;
use crate::read::ReadAt;
use crate::read_checks::{Finding, ReadChecks};

/// Evaluates the command against the batch and puts its writes there.
///
/// # Errors
///
/// [`Stop`], and nothing was written.
pub(crate) fn apply(
    context: &ApplyContext<'_>,
    memory: &mut Memory,
    commit: &CommitOneRange,
    batch: &mut Batch<'_>,
) -> Result<command_reply::Body, Stop> {
    let bounds = Bounds::of(context);
    bounds.check_items(&commit.conditions, &commit.operations)?;
    bounds.check_reads(&commit.reads)?;
    let collect_below = memory.range.collected_below_ts;
    let applied_at = repeat::applied_at(&*batch, &memory.applied, commit)?;
    #[cfg(feature = "planted")]
    let applied_at = applied_at.filter(|_| !rangedb_planted::Bug::RetryAppliedTwice.is_planted());
    if let Some(commit_ts) = applied_at {
        // What it replaced may be gone, and itself on another replica.
        memory.check_remembered(commit_ts)?;
        return repeat::answer(&*batch, context, commit, commit_ts, collect_below)
            .map(command_reply::Body::Committed);
    }
    memory.check_floor(commit.start_ts)?;
    commit.reads.iter().try_for_each(|read| memory.check_floor(read.read_ts))?;
    if !memory.locks.is_empty() {
        check_locks(context, commit, &*batch)?;
    }
    check_reads(memory, commit, &*batch)?;
    conditions::check(&*batch, &memory.locks, commit.start_ts, &commit.conditions)?;

    let commit_ts = memory.next_ts(context, commit.start_ts)?;
    let mut execution =
        Execution::new(&*batch, ReadAt::Latest, context.end_key, commit, commit_ts, collect_below);
    let results = execution.run(&commit.operations)?;
    let changes = execution.into_changes();
    if !memory.locks.is_empty() {
        release_own(memory, &changes, batch)?;
    }
    changes.write_to(batch, collect_below)?;
    // Also without an operation: a commit that only checked must not share its timestamp with a
    // later one that writes, or a snapshot at that timestamp would show what the check did not see.
    memory.committed(context, batch, (commit.start_ts, commit_ts));
    Ok(command_reply::Body::Committed(Committed { commit_ts, results, repeated_command: false }))
}

/// No key that the command writes may be locked, but by its own transaction and without a write.
fn check_locks(
    context: &ApplyContext<'_>,
    commit: &CommitOneRange,
    reader: &dyn Reader,
) -> Result<(), Stop> {
    let mut walked = 0;
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
            walked += 1;
            if walked > DELETE_RANGE_WALK_MAX {
                return Err(Stop::invalid(format!(
                    "the delete-range is over the limit of {DELETE_RANGE_WALK_MAX} records walked \
                     over in one command"
                )));
            }
            if let Some(lock) = lock {
                check_lock(commit, &key, &lock)?;
            }
        }
    }
    Ok(())
}

fn check_lock(commit: &CommitOneRange, key: &[u8], lock: &Lock) -> Result<(), Stop> {
    match lock.start_ts == commit.start_ts && lock.is_pessimistic() {
        true => Ok(()),
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

fn check_reads(memory: &Memory, commit: &CommitOneRange, reader: &dyn Reader) -> Result<(), Stop> {
    let checks = ReadChecks {
        reader,
        start_ts: commit.start_ts,
        // The command commits above everything that is there.
        until: u64::MAX,
        with_locks: !memory.locks.is_empty(),
        passed: &[],
        collect_below: memory.range.collected_below_ts,
    };
    match checks.first_finding(&commit.reads)? {
        None => Ok(()),
        Some(Finding::Newer(conflict)) => Err(Stop::conflict(conflict)),
        Some(Finding::Locked(locked)) => Err(Stop::Reply(command_reply::Body::Locked(locked))),
        Some(Finding::TooLong) => Err(Stop::invalid(format!(
            "the reads are over the limit of {READ_CHECK_WALK_MAX} records in one command"
        ))),
    }
}

/// The transaction's pessimistic locks on keys that it writes have served their purpose.
fn release_own(memory: &mut Memory, changes: &Changes, batch: &mut Batch<'_>) -> Result<(), Stop> {
    for key in changes.written() {
        if memory.locks.get(&*batch, key)?.is_some() {
            memory.locks.remove(batch, key);
        }
    }
    Ok(())
}
