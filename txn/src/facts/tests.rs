//! Tests of the costs of commands.

use rangedb_proto::v1::{CollectGarbage, Condition, Delete, DeleteRange, Put, ResolveLocks};

use rangedb_proto::v1::{CommitOneRange, Operation, Prewrite, ReadCheck, command::Body, operation};

use super::*;
use crate::commands::facts;
use crate::commands::resolve_locks::RESOLVE_WALK_MAX;
use crate::limits::COMMAND_WALK_MAX;

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
    let Cost { records, frees_space } = facts(&body).cost();
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
    let prewrite = |operations| of(Body::Prewrite(Prewrite { operations, ..Default::default() }));
    assert!(prewrite(vec![delete()]).1 && !prewrite(vec![put()]).1);
}
