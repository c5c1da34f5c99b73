//! Bounds that only show with many keys.

use crate::support::{Entry, Replica, operation, scan_unlocked};
use bytes::Bytes;
use rangedb_proto::v1::command_reply::Body;
use rangedb_proto::v1::error::Kind;
use rangedb_proto::v1::operation::Body as Op;
use rangedb_proto::v1::{
    CollectGarbage, Command, CommandReply, CommitOneRange, DeleteRange, Operation, Prewrite, Put,
    RangeDescriptor, ReadCheck, ResolveLocks, RollbackKeys, Validate, command,
};
use rangedb_storage::{
    ColumnFamily, Direction, Record, RecordValue, StateEngine, WriteBatch, keys,
};
use rangedb_txn::{
    ASYNC_COMMIT_KEYS_MAX, COMMAND_ITEMS_MAX, COMMAND_WALK_MAX, DELETE_RANGE_BYTES_MAX,
    DELETE_RANGE_KEYS_MAX, Locks, PAGE_WALK_MAX, ReadAt, ResumeAt, ScanRequest, VALIDATE_WALK_MAX,
    ValidateOutcome, check_command, check_commit, check_spans, is_system_key, locks, names_spans,
    validate,
};

/// Returns a replica with keys `00000000`, `00000001` and so on, which have a value or are deleted.
fn replica_with(count: usize, value: RecordValue, key_bytes: usize) -> Replica {
    let replica = Replica::new(b"", b"");
    let version = u64::from(value != RecordValue::Deleted);
    let record =
        Record { mod_ts: 1, start_ts: 1, create_ts: version, version, lease_id: 0, value }.encode();
    let mut batch = WriteBatch::default();
    for place in 0..count {
        batch.put(ColumnFamily::Current, keys::current(&key(place, key_bytes)), record.clone());
    }
    replica.state.write(batch).unwrap();
    replica
}

fn key(place: usize, bytes: usize) -> Bytes {
    format!("{place:0bytes$}").into()
}

fn put(place: usize) -> Operation {
    operation(Op::Put(Put { key: key(place, 8), value: Bytes::new(), lease_id: 0 }))
}

fn commit(replica: &mut Replica, start_ts: u64, operations: Vec<Operation>) -> CommandReply {
    let commit = CommitOneRange { start_ts, operations, ..Default::default() };
    replica.apply(&[Entry::new(&commit, 0)]).remove(0)
}

fn delete_all(replica: &mut Replica, start_ts: u64, end_key: Bytes) -> Body {
    let all = operation(Op::DeleteRange(DeleteRange { start_key: Bytes::new(), end_key }));
    commit(replica, start_ts, vec![all]).body.unwrap()
}

#[track_caller]
fn assert_deleted(reply: &Body, expected: usize) {
    match reply {
        Body::Committed(committed) => assert_eq!(committed.results[0].deleted, expected as u64),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_refused(replica: &Replica, reply: &Body, limit: usize) {
    let history = replica.records().iter().any(|(cf, ..)| *cf == ColumnFamily::History);
    assert!(!history, "a refused command writes nothing");
    match reply {
        Body::TooLarge(large) => assert_eq!(large.limit, limit as u64, "{large:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_delete_range_over_too_many_keys_is_refused_whole() {
    let mut replica = replica_with(DELETE_RANGE_KEYS_MAX + 1, RecordValue::Inline("x".into()), 8);
    let reply = delete_all(&mut replica, 5, Bytes::new());
    assert_refused(&replica, &reply, DELETE_RANGE_KEYS_MAX);
    let reply = delete_all(&mut replica, 6, key(DELETE_RANGE_KEYS_MAX, 8));
    assert_deleted(&reply, DELETE_RANGE_KEYS_MAX);
}

#[test]
fn a_delete_range_over_too_many_bytes_is_refused_whole() {
    let key_bytes = 4096;
    let fit = DELETE_RANGE_BYTES_MAX / (2 * key_bytes);
    let mut replica = replica_with(fit + 1, RecordValue::Inline(Bytes::new()), key_bytes);
    let reply = delete_all(&mut replica, 5, Bytes::new());
    assert_refused(&replica, &reply, DELETE_RANGE_BYTES_MAX);
    assert_deleted(&delete_all(&mut replica, 6, key(fit, key_bytes)), fit);
}

#[test]
fn a_delete_range_over_too_many_deleted_keys_is_refused() {
    let mut replica = replica_with(COMMAND_WALK_MAX + 1, RecordValue::Deleted, 8);
    let reply = delete_all(&mut replica, 5, Bytes::new());
    assert_refused(&replica, &reply, COMMAND_WALK_MAX);
    assert_deleted(&delete_all(&mut replica, 6, key(COMMAND_WALK_MAX, 8)), 0);
}

#[test]
fn all_spans_of_a_command_share_one_budget() {
    let replica = || replica_with(COMMAND_WALK_MAX, RecordValue::Deleted, 8);
    let half = key(COMMAND_WALK_MAX / 2, 8);
    let delete = |start_key: &Bytes, end_key: &Bytes| {
        let (start_key, end_key) = (start_key.clone(), end_key.clone());
        operation(Op::DeleteRange(DeleteRange { start_key, end_key }))
    };
    let first = delete(&Bytes::new(), &half);
    let all = vec![first.clone(), delete(&half, &Bytes::new())];
    let body = commit(&mut replica(), 5, all.clone()).body.unwrap();
    assert!(matches!(body, Body::Committed(_)), "{body:?}");
    let mut with_read = CommitOneRange { start_ts: 5, operations: all, ..Default::default() };
    with_read.reads = vec![ReadCheck { end_key: key(1, 8), read_ts: 4, start_key: Bytes::new() }];
    let mut replica = replica();
    let body = replica.apply(&[Entry::new(&with_read, 0)]).remove(0).body.unwrap();
    assert_refused(&replica, &body, COMMAND_WALK_MAX);
    with_read.operations = vec![first];
    let body = replica.apply(&[Entry::new(&with_read, 0)]).remove(0).body.unwrap();
    assert!(matches!(body, Body::Committed(_)), "{body:?}");
}

/// Deletions that compaction may have dropped on other replicas decide nothing at apply, but
/// walking over them takes time.
#[test]
fn spent_markers_count_before_a_command_is_proposed_and_not_when_it_is_applied() {
    let mut replica = replica_with(COMMAND_WALK_MAX + 1, RecordValue::Deleted, 8);
    let floor = CollectGarbage { floor_ts: 4, collect_below_ts: 4, ..Default::default() };
    let floor = CollectGarbage { start_key: "2".into(), end_key: "3".into(), ..floor };
    replica.apply(&[Entry::of(command::Body::CollectGarbage(floor), 0)]);
    let range = RangeDescriptor::default();
    let checked = |operations: Vec<Operation>, reads: Vec<ReadCheck>| {
        let commit = CommitOneRange { start_ts: 5, operations, reads, ..Default::default() };
        let refused = check_spans(&replica.state, &range, &commit).unwrap().err();
        (names_spans(&commit), refused.and_then(|error| error.kind))
    };
    let all = operation(Op::DeleteRange(DeleteRange::default()));
    let end_key = key(COMMAND_WALK_MAX, 8);
    let most = operation(Op::DeleteRange(DeleteRange { end_key, ..Default::default() }));
    let read = ReadCheck { end_key: "1".into(), ..Default::default() };
    assert!(matches!(checked(vec![all.clone()], vec![]), (true, Some(Kind::TooLarge(_)))));
    assert!(matches!(checked(vec![], vec![read]), (true, Some(Kind::TooLarge(_)))));
    assert_eq!(checked(vec![most], vec![]), (true, None));
    assert_eq!(checked(vec![put(0)], vec![]), (false, None));
    let body = commit(&mut replica, 5, vec![all]).body.unwrap();
    assert_deleted(&body, 0);
}

/// A span that holds only records of deleted keys is confirmed step by step.
#[test]
fn a_validation_over_many_records_goes_on_where_it_stopped() {
    let parts = 3;
    let count = parts * VALIDATE_WALK_MAX;
    let mut replica = replica_with(count, RecordValue::Deleted, 8);
    let span = ReadCheck { start_key: Bytes::new(), end_key: "1".into(), read_ts: 5 };
    let point = ReadCheck { start_key: "2".into(), end_key: Bytes::new(), read_ts: 5 };
    let all = [point.clone(), span, point];
    let run = |replica: &Replica| {
        let mut reads = all.to_vec();
        let mut steps = 0;
        loop {
            steps += 1;
            let request =
                Validate { start_ts: 5, commit_ts: 9, reads: reads.clone(), ..Default::default() };
            let outcome = validate(&replica.state, b"", &request).unwrap();
            let ValidateOutcome::Unfinished(ResumeAt { read, key }) = outcome else {
                return (steps, outcome);
            };
            assert!(read > 0 || key > reads[0].start_key, "a step that gets nowhere");
            reads.drain(..read);
            if !key.is_empty() {
                reads[0].start_key = key;
            }
        }
    };
    assert_eq!(run(&replica), (parts + 1, ValidateOutcome::Unchanged));
    // A version, and then a lock, at the very end.
    commit(&mut replica, 7, vec![put(count - 1)]);
    assert!(matches!(run(&replica), (_, ValidateOutcome::Conflict(_))));
    let mut replica = replica_with(count, RecordValue::Deleted, 8);
    let prewrite = Prewrite {
        start_ts: 7,
        primary: key(0, 8),
        operations: vec![put(count - 1)],
        ..Default::default()
    };
    replica.apply(&[Entry::of(command::Body::Prewrite(prewrite), 0)]);
    assert!(matches!(run(&replica), (_, ValidateOutcome::Locked(_))));
}

/// Locks are walked apart from versions. The walk must see them where the budget ends among them.
#[test]
fn a_validation_over_many_locks_goes_on_where_it_stopped() {
    let mut replica = Replica::new(b"", b"");
    let (count, chunk) = (VALIDATE_WALK_MAX + 200, COMMAND_ITEMS_MAX);
    for first in (0..count).step_by(chunk) {
        let rollback = RollbackKeys {
            start_ts: 3,
            keys: (first..count.min(first + chunk)).map(|place| key(place, 8)).collect(),
        };
        replica.apply(&[Entry::of(command::Body::RollbackKeys(rollback), 0)]);
    }
    let read = ReadCheck { start_key: Bytes::new(), end_key: "1".into(), read_ts: 5 };
    let mut request =
        Validate { start_ts: 5, commit_ts: 9, reads: vec![read], ..Default::default() };
    let first = validate(&replica.state, b"", &request).unwrap();
    let ValidateOutcome::Unfinished(ResumeAt { read: 0, key }) = first else { panic!("{first:?}") };
    request.reads[0].start_key = key;
    let second = validate(&replica.state, b"", &request).unwrap();
    assert_eq!(second, ValidateOutcome::Unchanged);
}

#[test]
fn a_scan_over_many_deleted_keys_goes_on_in_bounded_pages_both_ways() {
    for direction in [Direction::Forward, Direction::Reverse] {
        let pages = 5;
        let count = pages * PAGE_WALK_MAX;
        let mut replica = replica_with(count, RecordValue::Deleted, 8);
        let last = if direction == Direction::Forward { count - 1 } else { 0 };
        commit(&mut replica, 5, vec![put(last)]);

        let mut request = ScanRequest {
            start: Bytes::new(),
            end: Bytes::new(),
            limit: 1,
            bytes_max: 0,
            direction,
            keys_only: false,
            at: ReadAt::Latest,
            locks: Locks::Ignored,
        };
        for _ in 1..pages {
            let page = scan_unlocked(&replica, &request).unwrap();
            assert_eq!(page.kvs, [], "{direction:?}");
            match direction {
                Direction::Forward => request.start = page.next.unwrap(),
                Direction::Reverse => request.end = page.next.unwrap(),
            }
        }
        let page = scan_unlocked(&replica, &request).unwrap();
        assert_eq!(page.kvs[0].key, key(last, 8), "{direction:?}");
        assert_eq!(page.next, None, "{direction:?}");
    }
}

#[test]
fn a_command_with_too_many_operations_is_refused() {
    let with = |items| CommitOneRange {
        start_ts: 5,
        operations: (0..items).map(put).collect(),
        ..Default::default()
    };
    assert_eq!(check_commit(&with(COMMAND_ITEMS_MAX)), Ok(()));
    let error = check_commit(&with(COMMAND_ITEMS_MAX + 1)).unwrap_err();
    assert!(error.message.contains(&COMMAND_ITEMS_MAX.to_string()), "{error}");
}

#[test]
fn a_span_of_many_locks_is_resolved_by_several_commands() {
    let mut replica = Replica::new(b"", b"");
    let count = COMMAND_ITEMS_MAX + 10;
    for half in [0..count / 2, count / 2..count] {
        let prewrite = Prewrite {
            start_ts: 5,
            primary: key(0, 8),
            operations: half.map(put).collect(),
            ..Default::default()
        };
        replica.apply(&[Entry::of(command::Body::Prewrite(prewrite), 0)]);
    }
    let mut resolve = ResolveLocks { start_ts: 5, commit_ts: 9, ..Default::default() };
    let mut resolved = Vec::new();
    loop {
        let ask = command::Body::ResolveLocks(resolve.clone());
        match replica.apply(&[Entry::of(ask, 0)]).remove(0).body.unwrap() {
            Body::Resolved(part) => {
                resolved.push(part.keys as usize);
                resolve.start_key = part.resume_key;
            }
            other => panic!("{other:?}"),
        }
        if resolve.start_key.is_empty() {
            break;
        }
    }
    assert_eq!(resolved, [COMMAND_ITEMS_MAX, 10]);
    assert_eq!(locks(&replica.state, (b"", b""), 0, 0).unwrap(), (Vec::new(), None));
}

#[test]
fn an_asynchronous_commit_of_too_many_keys_is_refused() {
    let check = |count: usize| {
        let prewrite = Prewrite {
            start_ts: 5,
            primary: key(0, 8),
            operations: vec![put(0)],
            async_commit: true,
            secondaries: (1..=count).map(|place| key(place, 8)).collect(),
            ..Default::default()
        };
        check_command(&Command { body: Some(command::Body::Prewrite(prewrite)) })
    };
    assert_eq!(check(ASYNC_COMMIT_KEYS_MAX), Ok(()));
    let error = check(ASYNC_COMMIT_KEYS_MAX + 1).unwrap_err();
    assert!(error.message.contains(&ASYNC_COMMIT_KEYS_MAX.to_string()), "{error}");
}

#[test]
fn system_keys_are_those_below_the_reserved_prefix() {
    assert!(is_system_key(b"_/") && is_system_key(b"_/cluster/nodes/1"));
    assert!(!is_system_key(b"_") && !is_system_key(b"_0") && !is_system_key(b"/_/"));
}
