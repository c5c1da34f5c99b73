//! Cost of a command: an upper bound that follows from the command alone. Used for admission
//! control and to pack commands into log entries.

use rangedb_proto::v1::command::Body;
use rangedb_proto::v1::{Command, CommitOneRange, Operation, Prewrite, ReadCheck, operation};

use crate::commands::resolve_locks::RESOLVE_WALK_MAX;
use crate::garbage::GARBAGE_WALK_MAX;
use crate::limits::COMMAND_WALK_MAX;

/// Upper bound of the cost of evaluating one command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// Records that the command may touch at most: one for each condition, operation, key or read
    /// of a key. A command that names spans adds all records that it may walk over.
    pub records: u32,
    /// True if the command writes no new values: it deletes, ends transactions or drops garbage. On
    /// a full disk, only such commands free space.
    pub frees_space: bool,
}

/// Returns the command's cost. A command of an unknown kind costs 0: it is refused before it
/// touches anything.
pub fn cost(command: &Command) -> Cost {
    let (records, frees_space) = match &command.body {
        None => (0, false),
        Some(Body::CommitOneRange(commit)) => (of_commit(commit), only_deletes(&commit.operations)),
        Some(Body::Prewrite(Prewrite { conditions, operations, .. })) => {
            (conditions.len() + operations.len(), only_deletes(operations))
        }
        Some(Body::CommitKeys(commit)) => (commit.keys.len(), true),
        Some(Body::RollbackKeys(rollback)) => (rollback.keys.len(), true),
        Some(Body::CheckTransaction(_)) => (1, true),
        Some(Body::CheckSecondaries(check)) => (check.keys.len(), true),
        Some(Body::ResolveLocks(resolve)) if resolve.keys.is_empty() => (RESOLVE_WALK_MAX, true),
        Some(Body::ResolveLocks(resolve)) => (resolve.keys.len(), true),
        Some(Body::HeartbeatLock(_)) => (1, false),
        Some(Body::AcquireLocks(acquire)) => (acquire.keys.len(), false),
        Some(Body::CollectGarbage(collect)) if collect.collect_below_ts == 0 => (1, true),
        // One walk over each of three families.
        Some(Body::CollectGarbage(_)) => (3 * GARBAGE_WALK_MAX, true),
    };
    Cost { records: u32::try_from(records).unwrap_or(u32::MAX), frees_space }
}

fn of_commit(commit: &CommitOneRange) -> usize {
    let items = commit.conditions.len() + commit.operations.len() + commit.reads.len();
    let names_spans = commit.operations.iter().any(is_delete_range)
        || commit.reads.iter().any(|read: &ReadCheck| !read.end_key.is_empty());
    // All spans of a command share one budget.
    items + if names_spans { COMMAND_WALK_MAX } else { 0 }
}

fn is_delete_range(operation: &Operation) -> bool {
    matches!(operation.body, Some(operation::Body::DeleteRange(_)))
}

/// True if the operations only delete, and there is one. A command without operations frees no
/// space, so it has no claim to the reserve for commands that do.
fn only_deletes(operations: &[Operation]) -> bool {
    let deletes = |operation: &Operation| match &operation.body {
        Some(operation::Body::Delete(_) | operation::Body::DeleteRange(_)) => true,
        Some(operation::Body::Put(_)) | None => false,
    };
    !operations.is_empty() && operations.iter().all(deletes)
}

#[cfg(test)]
mod tests {
    use rangedb_proto::v1::{CollectGarbage, Condition, Delete, DeleteRange, Put, ResolveLocks};

    use super::*;

    fn put() -> Operation {
        Operation { body: Some(operation::Body::Put(Put::default())) }
    }

    fn delete() -> Operation {
        Operation { body: Some(operation::Body::Delete(Delete::default())) }
    }

    fn delete_range() -> Operation {
        Operation { body: Some(operation::Body::DeleteRange(DeleteRange::default())) }
    }

    fn of(body: Body) -> (usize, bool) {
        let Cost { records, frees_space } = cost(&Command { body: Some(body) });
        (records as usize, frees_space)
    }

    fn commit(operations: Vec<Operation>, conditions: usize) -> (usize, bool) {
        let conditions = vec![Condition::default(); conditions];
        of(Body::CommitOneRange(CommitOneRange { operations, conditions, ..Default::default() }))
    }

    #[test]
    fn points_cost_one_record_each_and_spans_all_that_may_be_walked_over() {
        assert_eq!(commit(vec![put(), delete()], 1), (3, false));
        assert_eq!(commit(vec![delete(), delete()], 3), (5, true));
        assert_eq!(commit(vec![delete_range(), delete_range()], 0), (2 + COMMAND_WALK_MAX, true));
        let read = ReadCheck { end_key: "z".into(), ..Default::default() };
        let reads = CommitOneRange { reads: vec![read], ..Default::default() };
        assert_eq!(of(Body::CommitOneRange(reads)), (1 + COMMAND_WALK_MAX, false));
        assert_eq!(of(Body::ResolveLocks(ResolveLocks::default())), (RESOLVE_WALK_MAX, true));
        assert_eq!(of(Body::CollectGarbage(CollectGarbage::default())), (1, true));
    }

    #[test]
    fn only_what_deletes_and_nothing_else_frees_space() {
        assert!(!commit(vec![], 1).1, "a command that only checks");
        assert!(!commit(vec![delete(), put()], 0).1);
        let prewrite =
            |operations| of(Body::Prewrite(Prewrite { operations, ..Default::default() }));
        assert!(prewrite(vec![delete()]).1 && !prewrite(vec![put()]).1);
    }
}
