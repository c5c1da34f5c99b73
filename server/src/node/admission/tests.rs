//! Tests of admission by a node that has only an oracle to ask.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use prost::Message;
use rangedb_proto::v1::error::Kind;
use rangedb_proto::v1::{
    AcquireLocks, CheckSecondaries, CheckTransaction, CollectGarbage, CommandReply, CommitKeys,
    CommitOneRange, HeartbeatLock, Prewrite, ReadCheck, ResolveLocks, RollbackKeys, command,
    command_reply, request,
};
use rangedb_raftstore::Event;

use super::*;
use crate::node::oracle_view::NEAR_MS_MAX;
use crate::node::test_world::{NOW_MS, Oracle, node};
use crate::node::{Caller, CallerKind};

fn admit(
    (node, oracle): &(Arc<Node>, Arc<Oracle>),
    body: command::Body,
) -> Result<command::Body, v1::Error> {
    let admitted = oracle.finish(node.admit(Command { body: Some(body) }));
    admitted.map(|admitted| admitted.command.body.unwrap())
}

fn key() -> Bytes {
    Bytes::from_static(b"k")
}

fn commit_at(commit_ts: u64) -> [command::Body; 2] {
    let (start_ts, keys) = (Timestamp::from_millis(NOW_MS).0, vec![key()]);
    let resolve = ResolveLocks { start_ts, commit_ts, keys: keys.clone(), ..Default::default() };
    [
        command::Body::CommitKeys(CommitKeys { start_ts, commit_ts, keys }),
        command::Body::ResolveLocks(resolve),
    ]
}

#[test]
fn a_commit_ahead_of_the_oracle_is_refused() {
    let world = node();
    let (node, oracle) = &world;
    let ahead = Timestamp::from_millis(NOW_MS + COMMIT_AHEAD_MS_MAX + 1);
    for commit in commit_at(ahead.0) {
        let refused = admit(&world, commit).unwrap_err();
        assert!(matches!(refused.kind, Some(Kind::InvalidArgument(_))), "{refused:?}");
    }
    assert!(node.newest_timestamp() < ahead.0, "it lets no commit pass");
    assert!(*oracle.last.lock() < ahead);
}

#[test]
fn a_commit_goes_on_once_the_oracle_has_passed_it() {
    for ahead_ms in [NEAR_MS_MAX + 1, COMMIT_AHEAD_MS_MAX] {
        let world = node();
        let (_, oracle) = &world;
        let commit_ts = Timestamp::from_millis(NOW_MS + ahead_ms).0 + 5;
        for commit in commit_at(commit_ts) {
            assert_eq!(admit(&world, commit.clone()), Ok(commit));
            assert!(oracle.last.lock().0 >= commit_ts);
        }
    }
}

#[test]
fn a_commit_below_what_was_seen_costs_no_round_to_the_oracle() {
    let world = node();
    let (node, oracle) = &world;
    node.saw(Timestamp::from_millis(NOW_MS + 10).0);
    for commit in commit_at(Timestamp::from_millis(NOW_MS + 9).0) {
        assert!(admit(&world, commit).is_ok());
    }
    assert_eq!(*oracle.asked.lock(), 0);
}

/// Every command that sets the life of a lock.
fn locks_until(alive_until_ms: u64) -> [command::Body; 3] {
    let (start_ts, primary) = (Timestamp::from_millis(NOW_MS).0, key());
    let heartbeat = HeartbeatLock { start_ts, primary: key(), alive_until_ms };
    let acquire = AcquireLocks { start_ts, primary: key(), alive_until_ms, ..Default::default() };
    [
        command::Body::Prewrite(Prewrite {
            start_ts,
            primary,
            alive_until_ms,
            ..Default::default()
        }),
        command::Body::HeartbeatLock(heartbeat),
        command::Body::AcquireLocks(acquire),
    ]
}

#[test]
fn a_lock_outlives_its_client_by_a_minute_at_most() {
    let world = node();
    let (_, oracle) = &world;
    let longest = NOW_MS + LOCK_TTL_MAX.as_millis() as u64;
    let asked = locks_until(longest);
    assert_eq!(asked.clone().map(|body| admit(&world, body).unwrap()), asked);
    assert_eq!(*oracle.asked.lock(), 0);
    assert_eq!(
        locks_until(u64::MAX).map(|body| admit(&world, body).unwrap()),
        locks_until(longest)
    );
}

#[test]
fn a_node_that_has_seen_nothing_for_long_cuts_no_life_short() {
    let world = node();
    let (_, oracle) = &world;
    *oracle.last.lock() = Timestamp::from_millis(NOW_MS + 3 * LOCK_TTL_MAX.as_millis() as u64);
    for asked in locks_until(NOW_MS + 3 * LOCK_TTL_MAX.as_millis() as u64 + 10_000) {
        assert_eq!(admit(&world, asked.clone()), Ok(asked));
    }
}

#[test]
fn no_lock_points_to_where_nobody_may_ask() {
    let start_ts = Timestamp::from_millis(NOW_MS).0;
    let system = || Bytes::from_static(b"_/x");
    let prewrite = |primary, secondaries| {
        command::Body::Prewrite(Prewrite { start_ts, primary, secondaries, ..Default::default() })
    };
    let acquire = |primary| {
        command::Body::AcquireLocks(AcquireLocks {
            start_ts,
            primary,
            keys: vec![key()],
            ..Default::default()
        })
    };
    let check = |primary| {
        command::Body::CheckTransaction(CheckTransaction {
            start_ts,
            primary,
            ..Default::default()
        })
    };
    let good = [prewrite(key(), vec![key()]), acquire(key()), check(key())];
    let bad = [
        prewrite(system(), vec![]),
        prewrite(key(), vec![key(), system()]),
        acquire(system()),
        check(system()),
    ];
    for kind in [CallerKind::User, CallerKind::Node] {
        let judged = |body: &command::Body| {
            let command = Some(Command { body: Some(body.clone()) });
            let ask = v1::TransactionCommand { command, ..Default::default() };
            Caller::within(kind).check(&request::Body::TransactionCommand(ask))
        };
        assert!(good.iter().all(|body| judged(body).is_ok()));
        for bad in &bad {
            let refused = judged(bad).unwrap_err();
            assert!(matches!(refused.kind, Some(Kind::PermissionDenied(_))), "{refused:?}");
        }
    }
}

/// Every command with every timestamp that it names set ahead of the oracle, one at a time.
fn ahead_of_the_oracle(ahead: u64) -> Vec<command::Body> {
    use command::Body;
    let start_ts = Timestamp::from_millis(NOW_MS).0;
    let (primary, keys) = (key(), vec![key()]);
    let read = ReadCheck { start_key: key(), end_key: Bytes::new(), read_ts: ahead };
    let prewrite = Prewrite { start_ts, primary: key(), ..Default::default() };
    let check =
        CheckTransaction { start_ts, primary: key(), now_ts: start_ts, ..Default::default() };
    let acquire = AcquireLocks { start_ts, primary, keys: keys.clone(), ..Default::default() };
    vec![
        Body::CommitOneRange(CommitOneRange { start_ts: ahead, ..Default::default() }),
        Body::CommitOneRange(CommitOneRange { start_ts, reads: vec![read], ..Default::default() }),
        Body::Prewrite(Prewrite { start_ts: ahead, ..prewrite.clone() }),
        Body::Prewrite(Prewrite { for_update_ts: ahead, ..prewrite.clone() }),
        Body::Prewrite(Prewrite { min_commit_ts: ahead + 1, ..prewrite }),
        Body::CommitKeys(CommitKeys { start_ts: ahead, commit_ts: ahead, keys: keys.clone() }),
        Body::RollbackKeys(RollbackKeys { start_ts: ahead, keys: keys.clone() }),
        Body::CheckTransaction(CheckTransaction { start_ts: ahead, ..check.clone() }),
        Body::CheckTransaction(CheckTransaction { now_ts: ahead, ..check.clone() }),
        Body::CheckTransaction(CheckTransaction { push_above_ts: ahead, ..check }),
        Body::ResolveLocks(ResolveLocks { start_ts: ahead, ..Default::default() }),
        Body::HeartbeatLock(HeartbeatLock { start_ts: ahead, ..Default::default() }),
        Body::AcquireLocks(AcquireLocks { start_ts: ahead, ..acquire.clone() }),
        Body::AcquireLocks(AcquireLocks { for_update_ts: ahead, ..acquire }),
        Body::CheckSecondaries(CheckSecondaries { start_ts: ahead, keys }),
        Body::CollectGarbage(CollectGarbage { floor_ts: ahead, ..Default::default() }),
        Body::CollectGarbage(CollectGarbage { collect_below_ts: ahead, ..Default::default() }),
    ]
}

#[test]
fn no_timestamp_of_a_command_is_believed() {
    let ahead = Timestamp::from_millis(NOW_MS + NEAR_MS_MAX + 1).0;
    for body in ahead_of_the_oracle(ahead) {
        let world = node();
        let refused = admit(&world, body.clone()).expect_err(&format!("{body:?}"));
        assert!(matches!(refused.kind, Some(Kind::InvalidArgument(_))), "{refused:?}");
        assert!(world.0.newest_timestamp() < ahead, "it lets no commit pass");
    }
}

#[test]
fn a_timestamp_that_another_node_got_is_confirmed_by_one_question() {
    let world = node();
    let (_, oracle) = &world;
    let named = Timestamp::from_millis(NOW_MS + NEAR_MS_MAX + 1).0;
    oracle.last.lock().0 = named;
    for body in ahead_of_the_oracle(named) {
        assert_eq!(admit(&world, body.clone()), Ok(body));
    }
    assert_eq!(*oracle.asked.lock(), 1);
}

/// Replies to each proposed command that it was committed at the timestamp. Returns their number.
fn commit_what_was_proposed(node: &Node, oracle: &Oracle, commit_ts: u64) -> usize {
    let events = std::mem::take(&mut *oracle.events.lock());
    for event in &events {
        let Event::Propose { request, .. } = event else { panic!("{event:?}") };
        let committed = v1::Committed { commit_ts, ..Default::default() };
        let body = Some(command_reply::Body::Committed(committed));
        node.around.stores.reply(*request, Ok(CommandReply { body }.encode_to_vec().into()));
    }
    events.len()
}

#[test]
fn a_near_timestamp_is_proposed_at_once_and_told_once_the_oracle_has_passed_it() {
    let (node, oracle) = node();
    // One timestamp just as a client gets it from the oracle, and one as far ahead as is still
    // near.
    let fresh = Timestamp(Timestamp::from_millis(NOW_MS).0 + 7);
    let ahead = Timestamp::from_millis(NOW_MS + NEAR_MS_MAX);
    for start_ts in [fresh, ahead] {
        let put = v1::Put { key: key(), ..Default::default() };
        let operations = vec![v1::Operation { body: Some(v1::operation::Body::Put(put)) }];
        let start_ts = start_ts.0;
        let commit = CommitOneRange { start_ts, operations, ..Default::default() };
        let range = Some(v1::RangeHeader { range_id: 1, epoch: Some(v1::Epoch::default()) });
        let caller = Caller::within(CallerKind::User);
        let mut room = None;
        let body = command::Body::CommitOneRange(commit);
        let mut asked = Box::pin(node.command(&caller, range, body, &mut room));
        assert!(
            asked.as_mut().now_or_never().is_none(),
            "neither the oracle nor the range answered"
        );
        assert_eq!(commit_what_was_proposed(&node, &oracle, start_ts + 1), 1);
        assert!(node.newest_timestamp() <= start_ts);
        oracle.finish(asked).unwrap();
        assert!(node.newest_timestamp() > start_ts);
    }
}

#[test]
fn what_should_be_the_time_by_now_is_not_gone_by_for_long() {
    let (node, oracle) = node();
    let later = |ms: u64| Timestamp::from_millis(NOW_MS + ms);
    *oracle.now.lock() = Duration::from_millis(400);
    assert!(node.oracle().is_near(later(400 + NEAR_MS_MAX)));
    assert!(!node.oracle().is_near(later(401 + NEAR_MS_MAX)));
    *oracle.now.lock() = Duration::from_millis(501);
    assert!(!node.oracle().is_near(later(1)));
}
