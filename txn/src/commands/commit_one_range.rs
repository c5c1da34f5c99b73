//! A transaction whose keys lie in one range: check, then write, in one step of the log.
//!
//! In order: is the command sound; was it applied before; do its conditions hold; what do its
//! operations make of the state. Only then is anything written, so every earlier way out leaves the
//! state untouched.

use rangedb_proto::v1::{CommitOneRange, Committed, command_reply, operation};
use rangedb_proto::{RangeDescriptorExt, Timestamp, v1::RangeDescriptor};
use rangedb_storage::{ApplyContext, Batch};

use super::{Stop, conditions, operations::Execution, repeat};
use crate::limits::{check_commit, first_key, span_end};
use crate::machine::Memory;
use crate::range_record::RangeRecord;
use crate::read::ReadAt;

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
    check_commit(commit).map_err(|error| Stop::invalid(error.message))?;
    check_bounds(context, commit)?;
    if let Some(commit_ts) = repeat::applied_at(&*batch, &memory.applied, commit)? {
        return repeat::answer(&*batch, context, commit, commit_ts)
            .map(command_reply::Body::Committed);
    }
    conditions::check(&*batch, &commit.conditions)?;

    let commit_ts = next_commit_ts(context, memory, commit.start_ts)?;
    let mut execution = Execution::new(&*batch, ReadAt::Latest, context.end_key, commit, commit_ts);
    let results = execution.run(&commit.operations)?;
    execution.into_changes().write_to(batch);
    // Also without an operation: a commit that only checked must not share its timestamp with a
    // later one that writes, or a snapshot at that timestamp would show what the check did not see.
    memory.range = RangeRecord { last_commit_ts: commit_ts };
    let (cf, key) = RangeRecord::position(context.start_key);
    batch.put(cf, key, memory.range.encode());
    memory.applied.insert(commit.start_ts);
    Ok(command_reply::Body::Committed(Committed { commit_ts, results, repeated_command: false }))
}

/// Above the oracle's timestamp, above every read that was served, above every commit of the range.
fn next_commit_ts(context: &ApplyContext<'_>, memory: &Memory, start_ts: u64) -> Result<u64, Stop> {
    let commit_ts = start_ts
        .max(context.fence.saturating_add(1))
        .max(memory.range.last_commit_ts.saturating_add(1));
    if commit_ts > Timestamp::MAX.0 {
        return Err(Stop::invalid(format!(
            "no timestamp is left above the fence {}",
            context.fence
        )));
    }
    Ok(commit_ts)
}

/// Every key must lie in the range as it is at this entry, whatever it was when the command was
/// sent.
fn check_bounds(context: &ApplyContext<'_>, commit: &CommitOneRange) -> Result<(), Stop> {
    let range = RangeDescriptor {
        start_key: context.start_key.to_vec().into(),
        end_key: context.end_key.to_vec().into(),
        ..Default::default()
    };
    let inside = |key: &[u8]| match range.contains(key) {
        true => Ok(()),
        false => Err(Stop::invalid(format!("key \"{}\" is outside the range", key.escape_ascii()))),
    };
    for condition in &commit.conditions {
        inside(&condition.key)?;
    }
    for operation in &commit.operations {
        match operation.body.as_ref().expect("check_commit refuses operations of unknown kinds") {
            operation::Body::Put(put) => inside(&put.key)?,
            operation::Body::Delete(delete) => inside(&delete.key)?,
            operation::Body::DeleteRange(span) => {
                let start = first_key(&span.start_key);
                inside(start)?;
                let end = span_end(&span.end_key, context.end_key);
                if !range.covers(start, end) {
                    let end = end.escape_ascii();
                    return Err(Stop::invalid(format!(
                        "a delete-range to \"{end}\" leaves the range"
                    )));
                }
            }
        }
    }
    Ok(())
}
