//! Repeated commands: applied once, answered twice.
//!
//! A sender that got no answer sends its command again. Both copies may reach the log, the second
//! long after the first. Every version carries the start_ts of the command that wrote it, and every
//! operation leaves a version, even a delete of a key without a value. So a command was applied
//! exactly if its keys have a version of its start_ts (`identity.rs`).

use rangedb_proto::v1::{CommitOneRange, Committed, command_reply};
use rangedb_storage::{ApplyContext, Reader};

use super::{Stop, identity, operations::Execution};
use crate::limits::COMMAND_WALK_MAX;
use crate::read::ReadAt;
use crate::walk_budget::WalkBudget;

/// Returns the first answer to the command, computed again from the versions just below its commit
/// timestamp:
///
/// 1. Run the operations against the state just below the commit timestamp.
/// 2. Compare what they would write with the stored versions.
/// 3. Drop these writes, and return the results.
///
/// The answer is exact as long as those versions are kept, that is until garbage collection has
/// passed the commit timestamp. There is one exception. If a delete-range would have to walk over
/// more records today than a command may, all results are empty, and only the keys of the
/// operations have been compared.
///
/// # Errors
///
/// [`Stop`] if the command is another one with the same start_ts.
pub(crate) fn answer(
    reader: &dyn Reader,
    context: &ApplyContext<'_>,
    commit: &CommitOneRange,
    commit_ts: u64,
    collect_below: u64,
) -> Result<Committed, Stop> {
    let before = ReadAt::Timestamp(rangedb_proto::Timestamp(commit_ts - 1));
    let mut budget = WalkBudget::new(COMMAND_WALK_MAX);
    let mut execution =
        Execution::new(reader, before, context.end_key, commit, commit_ts, collect_below);
    let results = match execution.run(&commit.operations, &mut budget) {
        Ok(results) => {
            identity::check_copy(reader, &execution.into_changes())?;
            results
        }
        Err(Stop::Reply(command_reply::Body::TooLarge(_))) => {
            vec![Default::default(); commit.operations.len()]
        }
        Err(stop) => return Err(stop),
    };
    Ok(Committed { commit_ts, results, repeated_command: true })
}
