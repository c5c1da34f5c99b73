//! Contended key: repeated commands are told from new ones at any age, without a walk over the
//! history.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{Entry, Replica, operation};
use bytes::Bytes;
use rangedb_proto::v1::command_reply::Body;
use rangedb_proto::v1::{CommandReply, CommitOneRange, Put, operation};
use rangedb_storage::{
    ApplyContext, Batch, ColumnFamily, Direction, MemState, Reader, Records, Result, StateEngine,
    StateMachine,
};
use rangedb_txn::TxnMachine;

fn put(start_ts: u64) -> Entry {
    let put = Put { key: "hot".into(), value: Bytes::new(), lease_id: 0 };
    let operations = vec![operation(operation::Body::Put(put))];
    Entry::new(&CommitOneRange { start_ts, operations, ..Default::default() }, 0)
}

fn commit(replica: &mut Replica, start_ts: u64) -> CommandReply {
    replica.apply(&[put(start_ts)]).remove(0)
}

#[test]
fn a_hot_key_tells_old_commands_from_new_ones_at_any_age() {
    let commands = 10_000;
    let mut replica = Replica::new(b"", b"");
    let mut cold = Replica::new(b"", b"");
    // Even timestamps are applied now, odd ones arrive late.
    for ts in 1..=commands {
        for replica in [&mut replica, &mut cold] {
            commit(replica, 2 * ts);
        }
    }
    for ts in [1, 2, 3_000, 5_999, 6_000, 6_001, 9_999, 10_000] {
        cold.restart();
        let again = commit(&mut replica, 2 * ts);
        assert_eq!(again, commit(&mut cold, 2 * ts));
        match again.body.unwrap() {
            Body::Committed(committed) => {
                assert!(committed.repeated_command);
                assert_eq!(committed.commit_ts, 2 * ts);
            }
            other => panic!("{other:?}"),
        }
        let late = commit(&mut replica, 2 * ts - 1);
        assert_eq!(late, commit(&mut cold, 2 * ts - 1));
        assert!(matches!(late.body, Some(Body::Committed(c)) if !c.repeated_command));
    }
    assert_eq!(replica.records(), cold.records());
}

/// Counts the walks over history.
struct Counting {
    state: MemState,
    walks: AtomicUsize,
}

impl Reader for Counting {
    fn get(&self, cf: ColumnFamily, key: &[u8]) -> Result<Option<Bytes>> {
        self.state.get(cf, key)
    }

    fn scan<'a>(
        &'a self,
        cf: ColumnFamily,
        start: &[u8],
        end: &[u8],
        direction: Direction,
    ) -> Result<Box<dyn Records + 'a>> {
        if cf == ColumnFamily::History {
            self.walks.fetch_add(1, Ordering::Relaxed);
        }
        self.state.scan(cf, start, end, direction)
    }
}

#[test]
fn commands_on_a_hot_key_walk_over_no_history() {
    let reader = Counting { state: MemState::new(), walks: AtomicUsize::new(0) };
    let mut machine = TxnMachine::new();
    machine.load(&reader, b"", b"").unwrap();
    let mut apply = |start_ts| {
        let mut batch = Batch::new(&reader);
        let (start_key, end_key) = (&b""[..], &b""[..]);
        let index = start_ts;
        let context = ApplyContext { start_key, end_key, fence: 0, index, with_changes: false };
        machine.apply(&context, &put(start_ts).command, &mut batch).unwrap();
        let writes = batch.into_writes();
        reader.state.write(writes).unwrap();
        reader.walks.swap(0, Ordering::Relaxed)
    };
    // The commands of each pair arrive in reverse order, so the second finds the key newer than
    // itself.
    for pair in 1..100 {
        assert_eq!(apply(2 * pair + 1), 0, "in order");
        assert_eq!(apply(2 * pair), 0, "overtaken");
    }
    assert_eq!(apply(50), 1, "one that was applied and overwritten seeks what it replaced");
    assert_eq!(apply(1), 0, "one that is older than all that is there");
}
