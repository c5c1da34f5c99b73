//! Which commands give room on a full disk back, and so are taken where others no longer are.

use rangedb_proto::v1::{Command, Operation, command, operation};

/// Whether a command stores no new values, and is on the way to giving up what is stored. It takes
/// some room itself: its entry in the log, markers of what it deletes.
pub fn frees_space(command: &Command) -> bool {
    use command::Body;
    match &command.body {
        Some(Body::CommitOneRange(commit)) => only_delete(&commit.operations),
        // A transaction over ranges that deletes is as good as a command that does.
        Some(Body::Prewrite(prewrite)) => only_delete(&prewrite.operations),
        // What is locked is stored already; the lock and, rolled back, the value go.
        Some(
            Body::CommitKeys(_)
            | Body::RollbackKeys(_)
            | Body::CheckTransaction(_)
            | Body::ResolveLocks(_)
            | Body::CheckSecondaries(_),
        ) => true,
        Some(Body::CollectGarbage(_)) => true,
        // Both keep what is there, and the latter adds to it.
        Some(Body::HeartbeatLock(_) | Body::AcquireLocks(_)) => false,
        None => false,
    }
}

fn only_delete(operations: &[Operation]) -> bool {
    let deletes = |operation: &Operation| match &operation.body {
        Some(operation::Body::Delete(_) | operation::Body::DeleteRange(_)) => true,
        Some(operation::Body::Put(_)) | None => false,
    };
    !operations.is_empty() && operations.iter().all(deletes)
}

#[cfg(test)]
mod tests {
    use rangedb_proto::v1::{
        AcquireLocks, CollectGarbage, CommitKeys, CommitOneRange, Delete, DeleteRange, Prewrite,
        Put, RollbackKeys,
    };

    use super::*;

    fn frees(body: command::Body) -> bool {
        frees_space(&Command { body: Some(body) })
    }

    fn operations(bodies: &[operation::Body]) -> Vec<Operation> {
        bodies.iter().map(|body| Operation { body: Some(body.clone()) }).collect()
    }

    #[test]
    fn deletes_free_space_as_long_as_nothing_is_put_with_them() {
        let delete = operation::Body::Delete(Delete { key: "a".into() });
        let range = operation::Body::DeleteRange(DeleteRange::default());
        let put = operation::Body::Put(Put { key: "b".into(), ..Default::default() });
        for (bodies, expected) in [
            (vec![delete.clone(), range], true),
            (vec![delete.clone(), put.clone()], false),
            (vec![put], false),
            (vec![], false),
        ] {
            let operations = operations(&bodies);
            let commit = CommitOneRange { operations: operations.clone(), ..Default::default() };
            assert_eq!(frees(command::Body::CommitOneRange(commit)), expected, "{bodies:?}");
            let prewrite = Prewrite { operations, ..Default::default() };
            assert_eq!(frees(command::Body::Prewrite(prewrite)), expected, "{bodies:?}");
        }
    }

    #[test]
    fn the_end_of_transactions_and_garbage_frees_space_and_new_locks_do_not() {
        assert!(frees(command::Body::CommitKeys(CommitKeys::default())));
        assert!(frees(command::Body::RollbackKeys(RollbackKeys::default())));
        assert!(frees(command::Body::CollectGarbage(CollectGarbage::default())));
        assert!(!frees(command::Body::AcquireLocks(AcquireLocks::default())));
        assert!(!frees_space(&Command { body: None }));
    }
}
