//! Tests of reads whose result the oracle has not passed yet.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use rangedb_proto::v1::{Epoch, RangeDescriptor, request, response};
use rangedb_raftstore::{Answer, Event, Monotonic, ReadGrant};
use rangedb_storage::{ColumnFamily, MemState, Record, RecordValue, StateEngine, WriteBatch, keys};

use super::*;
use crate::node::test_world::{NOW_MS, Oracle, node};
use crate::node::{Caller, CallerKind};

/// A state that holds nothing but a tombstone of `k`, deleted at a timestamp.
fn deleted_at(mod_ts: u64) -> Arc<MemState> {
    let value = RecordValue::Deleted;
    let record = Record { mod_ts, start_ts: mod_ts, create_ts: 0, version: 0, lease_id: 0, value };
    let mut batch = WriteBatch::default();
    batch.put(ColumnFamily::Current, keys::current(b"k"), record.encode());
    let state = Arc::new(MemState::new());
    state.write(batch).unwrap();
    state
}

/// Answers the node's reads of its store with a view of the state.
fn answer_with(state: &Arc<MemState>, (node, oracle): &(Arc<Node>, Arc<Oracle>)) {
    for event in std::mem::take(&mut *oracle.events.lock()) {
        let Event::Read { request, .. } = event else { panic!("{event:?}") };
        let descriptor = Arc::new(RangeDescriptor { range_id: 1, ..Default::default() });
        let grant = ReadGrant { reader: state.clone(), descriptor, lease_until: None };
        node.around
            .stores
            .answer(Answer::Read { request, result: Ok(grant) }, Monotonic::default());
    }
}

#[test]
fn a_read_that_finds_a_deletion_waits_for_the_oracle_as_one_that_finds_a_value() {
    let range = Some(RangeHeader { range_id: 1, epoch: Some(Epoch::default()) });
    let scan = Scan { range, start_key: "a".into(), end_key: "z".into(), ..Default::default() };
    for body in [
        request::Body::PointRead(PointRead { range, key: "k".into(), ..Default::default() }),
        request::Body::Scan(scan),
    ] {
        let world = node();
        let (node, oracle) = &world;
        // Earlier entries of the log have pushed the commit timestamp up.
        let ahead = Timestamp(Timestamp::from_millis(NOW_MS).0 + 500);
        let state = deleted_at(ahead.0);
        let caller = Caller::within(CallerKind::Node);
        let mut room = None;
        let mut asked: BoxFuture<'_, _> =
            Box::pin(node.answer(caller, body, std::time::Duration::MAX, &mut room));
        assert!(asked.as_mut().now_or_never().is_none(), "it asks its store");
        answer_with(&state, &world);
        let found = oracle.finish(asked).unwrap();
        let is_nothing = match found {
            response::Body::PointRead(reply) => reply.kv.is_none(),
            response::Body::Scan(reply) => reply.kvs.is_empty(),
            _ => false,
        };
        assert!(is_nothing);
        assert!(*oracle.last.lock() > ahead, "who begins now must see the deletion");
    }
}
