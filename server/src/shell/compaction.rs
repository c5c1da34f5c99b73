//! How far compaction may drop what nobody sees any more, replica by replica.
//!
//! A replica drops by what it has itself applied: its own record says below what its range collects.
//! What leaders know, or what the cluster decided, is no measure for one that lags and has still to
//! come to the same results over what the others saw. The engine waits for a flush before it uses a
//! bound, so that a replay after a crash finds what it needs.
//!
//! A read is refused below the floor that its snapshot of the state shows, but the floor may rise
//! behind it, and compaction drops what snapshots show, too. So a bound is told to the engine one look
//! later than it is first seen: reads that began before it are over by then.

use std::collections::BTreeMap;

use rangedb_proto::RangeId;
use rangedb_raftstore::RangeStatus;
use rangedb_storage::{Result, RocksState, StateEngine, keys};
use rangedb_txn::floors;

/// What the replicas of this node collected below when they were last looked at.
#[derive(Default)]
pub(crate) struct CompactionBounds(BTreeMap<RangeId, u64>);

impl CompactionBounds {
    /// Tells the engine the bounds that these replicas had at the last look, and looks again. The time
    /// between two looks is what reads have to end in.
    ///
    /// # Errors
    ///
    /// The engine's alone.
    pub fn raise(&mut self, state: &RocksState, replicas: &[RangeStatus]) -> Result<()> {
        let reader = state.snapshot();
        let before = std::mem::take(&mut self.0);
        for status in replicas.iter().filter(|status| status.applied_index > 0) {
            let range = RangeId(status.descriptor.range_id);
            let (start, end) = (&status.descriptor.start_key, &status.descriptor.end_key);
            let below = floors(&*reader, start)?.collect_below_ts;
            self.0.insert(range, below);
            // Lower than before in a replica that was taken away and has come back.
            let seen = before.get(&range).map_or(0, |seen| below.min(*seen));
            if seen > 0 {
                // Strictly below is dropped, and the engine's bound includes itself.
                state.set_collect_below(&keys::data_span(start, end), seen - 1);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Arc;

    use bytes::Bytes;
    use prost::Message;
    use rangedb_proto::v1::{
        CollectGarbage, Command, CommitOneRange, Operation, Put, RangeDescriptor, Replica,
        command::Body, operation,
    };
    use rangedb_storage::{
        ApplyContext, Batch, ColumnFamily, Direction, Reader, Span, StateMachine, StateOptions,
    };
    use rangedb_txn::TxnMachine;

    use super::*;

    /// Keys of each range, and how often they are written, at timestamps 1, 2 and so on.
    const KEYS: u64 = 200;
    const ROUNDS: u64 = 50;
    const BELOW: u64 = 40;

    /// A replica on the disk engine, without a log.
    struct Applied<'s> {
        state: &'s RocksState,
        machine: TxnMachine,
        range_id: u64,
        keys: Range<&'static str>,
        index: u64,
    }

    impl<'s> Applied<'s> {
        fn new(state: &'s RocksState, range_id: u64, keys: Range<&'static str>) -> Self {
            let mut machine = TxnMachine::new();
            let (start, end) = (keys.start.as_bytes(), keys.end.as_bytes());
            machine.load(&*state.snapshot(), start, end).unwrap();
            Applied { state, machine, range_id, keys, index: 0 }
        }

        /// Collects below, as a leader that has found nothing to drop by commands: at keys which do
        /// not exist.
        fn collect(&mut self, collect_below_ts: u64) {
            let start_key = Bytes::from_static(self.keys.start.as_bytes());
            let end_key = [&start_key[..], b"0"].concat().into();
            let floor_ts = BELOW;
            self.apply(Body::CollectGarbage(CollectGarbage {
                floor_ts,
                collect_below_ts,
                start_key,
                end_key,
            }));
        }

        fn apply(&mut self, body: Body) {
            self.index += 1;
            let context = ApplyContext {
                start_key: self.keys.start.as_bytes(),
                end_key: self.keys.end.as_bytes(),
                fence: 0,
                index: self.index,
            };
            let snapshot = self.state.snapshot();
            let mut batch = Batch::new(&*snapshot);
            let command = Bytes::from(Command { body: Some(body) }.encode_to_vec());
            self.machine.apply(&context, &command, &mut batch).unwrap();
            let writes = batch.into_writes();
            self.state.write(writes).unwrap();
        }

        fn write_all_keys(&mut self, start_ts: u64) {
            let put = |number| {
                let key = format!("{}{number:04}", self.keys.start).into();
                let put = Put { key, value: Bytes::from_static(b"value"), lease_id: 0 };
                Operation { body: Some(operation::Body::Put(put)) }
            };
            let operations = (0..KEYS).map(put).collect();
            let commit = CommitOneRange { start_ts, operations, ..Default::default() };
            self.apply(Body::CommitOneRange(commit));
        }

        fn status(&self) -> RangeStatus {
            let (start_key, end_key) = (self.keys.start.into(), self.keys.end.into());
            let range_id = self.range_id;
            let descriptor = RangeDescriptor { range_id, start_key, end_key, ..Default::default() };
            RangeStatus {
                replica: Replica::default(),
                descriptor: Arc::new(descriptor),
                term: 1,
                leader_replica_id: 0,
                leads: false,
                fenced: false,
                applied_index: self.index,
                applied_term: 1,
                commit_index: self.index,
                last_index: self.index,
                truncated_index: 0,
                log_entries: self.index,
                sends_snapshot: false,
            }
        }

        /// Superseded versions and newest ones.
        fn records(&self) -> [u64; 2] {
            let (start, end) = (self.keys.start.as_bytes(), self.keys.end.as_bytes());
            let span = keys::data_span(start, end);
            [ColumnFamily::History, ColumnFamily::Current].map(|cf| {
                let records = self.state.scan(cf, &span.start, &span.end, Direction::Forward);
                let mut records = records.unwrap();
                std::iter::from_fn(|| records.next().unwrap().map(|_| ())).count() as u64
            })
        }
    }

    fn compact(state: &RocksState) {
        state.flush().unwrap();
        for cf in ColumnFamily::ALL {
            state.compact(cf, &Span::everything());
        }
    }

    #[test]
    fn compaction_drops_versions_of_a_range_below_what_its_replica_here_collects() {
        let dir = tempfile::tempdir().unwrap();
        // No compaction but those that are asked for.
        let options = StateOptions { compaction: false, ..StateOptions::default() };
        let state = RocksState::open(dir.path(), options).unwrap();
        let mut collecting = Applied::new(&state, 1, "a".."b");
        let mut behind = Applied::new(&state, 2, "b".."c");
        for start_ts in 1..=ROUNDS {
            collecting.write_all_keys(start_ts);
            behind.write_all_keys(start_ts);
        }
        // A floor alone drops nothing.
        collecting.collect(0);
        behind.collect(0);
        let mut bounds = CompactionBounds::default();
        let mut look = |ranges: [&Applied; 2]| {
            bounds.raise(&state, &ranges.map(Applied::status)).unwrap();
            compact(&state);
        };
        look([&collecting, &behind]);
        collecting.collect(BELOW);
        look([&collecting, &behind]);
        let whole = [KEYS * (ROUNDS - 1), KEYS];
        assert_eq!(collecting.records(), whole, "reads may go on that began before");

        look([&collecting, &behind]);
        // What ended at the bound or above it: in rounds from there on.
        assert_eq!(collecting.records(), [KEYS * (ROUNDS + 1 - BELOW), KEYS]);
        assert_eq!(behind.records(), whole, "of another range");
        assert_eq!(state.stats().history_records_collected, KEYS * (BELOW - 2));
    }

    #[test]
    fn a_replica_that_comes_back_with_less_is_not_judged_by_what_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let options = StateOptions { compaction: false, ..StateOptions::default() };
        let state = RocksState::open(dir.path(), options).unwrap();
        let mut range = Applied::new(&state, 1, "a".."b");
        for start_ts in 1..=ROUNDS {
            range.write_all_keys(start_ts);
        }
        let mut bounds = CompactionBounds(BTreeMap::from([(RangeId(1), BELOW)]));
        range.collect(BELOW / 2);
        bounds.raise(&state, &[range.status()]).unwrap();
        compact(&state);
        assert_eq!(range.records(), [KEYS * (ROUNDS + 1 - BELOW / 2), KEYS]);
    }
}
