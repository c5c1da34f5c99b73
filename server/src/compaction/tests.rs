//! Compaction bounds of replicas on the disk engine. Compactions run only when a test asks for one.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use rangedb_proto::v1::{
    CollectGarbage, Command, CommitOneRange, Delete, Operation, Put, RangeDescriptor, Replica,
    command::Body, operation,
};
use rangedb_storage::{
    ApplyContext, Batch, Chunk, ChunkReader, ColumnFamily, Direction, Install, RocksState,
    StateMachine, StateOptions, WriteBatch,
};
use rangedb_txn::TxnMachine;

use super::*;

/// Number of keys in each range, and of writes to each key, at timestamps 1, 2 and so on.
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
    sends_snapshot: bool,
}

impl<'s> Applied<'s> {
    fn new(state: &'s RocksState, range_id: u64, keys: Range<&'static str>) -> Self {
        let mut machine = TxnMachine::new();
        let (start, end) = (keys.start.as_bytes(), keys.end.as_bytes());
        machine.load(&*state.snapshot(), start, end).unwrap();
        Applied { state, machine, range_id, keys, index: 0, sends_snapshot: false }
    }

    /// Sets the range's `collect_below_ts` without dropping anything by command: the command names
    /// keys that do not exist.
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
            with_changes: false,
        };
        let snapshot = self.state.snapshot();
        let mut batch = Batch::new(&*snapshot);
        let command = Bytes::from(Command { body: Some(body) }.encode_to_vec());
        self.machine.apply(&context, &command, &mut batch).unwrap();
        let writes = batch.into_writes();
        self.state.write(writes).unwrap();
    }

    fn write_all_keys(&mut self, start_ts: u64) {
        let value = Bytes::from_static(b"value");
        let put = |key| operation::Body::Put(Put { key, value: value.clone(), lease_id: 0 });
        self.commit_all_keys(start_ts, put);
    }

    fn delete_all_keys(&mut self, start_ts: u64) {
        self.commit_all_keys(start_ts, |key| operation::Body::Delete(Delete { key }));
    }

    fn commit_all_keys(&mut self, start_ts: u64, operation: impl Fn(Bytes) -> operation::Body) {
        let keys = (0..KEYS).map(|number| format!("{}{number:04}", self.keys.start).into());
        let operations = keys.map(|key| Operation { body: Some(operation(key)) }).collect();
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
            size: Default::default(),
            applied_index: self.index,
            applied_term: 1,
            commit_index: self.index,
            last_index: self.index,
            truncated_index: 0,
            log_entries: self.index,
            sends_snapshot: self.sends_snapshot,
            quarantine: None,
        }
    }

    fn span(&self) -> Span {
        keys::data_span(self.keys.start.as_bytes(), self.keys.end.as_bytes())
    }

    /// Numbers of superseded and newest versions. Records that find a version by its command are
    /// not counted.
    fn records(&self) -> [u64; 2] {
        let span = self.span();
        [ColumnFamily::History, ColumnFamily::Current].map(|cf| {
            let records = self.state.scan(cf, &span.start, &span.end, Direction::Forward);
            let mut records = records.unwrap();
            let is_version =
                |key: &[u8]| cf == ColumnFamily::Current || keys::parse_history(key).is_ok();
            std::iter::from_fn(|| {
                records.next().unwrap().map(|(key, _)| u64::from(is_version(key)))
            })
            .sum()
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
    // No compaction runs unless the test asks for it.
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
    // Superseded at the bound or above it: the versions of rounds from the bound on.
    assert_eq!(collecting.records(), [KEYS * (ROUNDS + 1 - BELOW), KEYS]);
    assert_eq!(behind.records(), whole, "of another range");
    // Each version with the record that finds it by its command.
    assert_eq!(state.stats().history_records_collected, 2 * KEYS * (BELOW - 2));
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

/// Chunks that a stream of the view sends from the span.
fn chunks(view: &Arc<dyn Reader>, span: &Span) -> Vec<Chunk> {
    let mut reading = ChunkReader::new(view.clone(), span.clone());
    std::iter::from_fn(|| reading.next_chunk().unwrap()).collect()
}

/// A range of nothing but tombstones.
fn all_deleted(state: &RocksState) -> Applied<'_> {
    let mut range = Applied::new(state, 1, "a".."b");
    range.write_all_keys(1);
    range.delete_all_keys(2);
    range
}

#[test]
fn a_stream_finds_all_that_its_view_showed_until_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let options = StateOptions { compaction: false, ..StateOptions::default() };
    let state = RocksState::open(dir.path(), options).unwrap();
    let mut range = all_deleted(&state);
    let mut bounds = CompactionBounds::default();
    // The bound has been seen once when the stream begins.
    range.collect(BELOW / 2);
    bounds.raise(&state, &[range.status()]).unwrap();
    let view = state.snapshot();
    let sent = chunks(&view, &range.span());
    let streamed = StreamedView::new(&*view, range.span()).unwrap();
    range.collect(BELOW);
    range.sends_snapshot = true;
    for _ in 0..3 {
        bounds.raise(&state, &[range.status()]).unwrap();
        compact(&state);
        assert!(chunks(&view, &range.span()) == sent, "records are missing");
        streamed.check(&state).unwrap();
    }
    assert_eq!(range.records(), [KEYS, KEYS]);

    range.sends_snapshot = false;
    bounds.raise(&state, &[range.status()]).unwrap();
    compact(&state);
    assert_eq!(range.records(), [0, 0], "a stream that has ended holds up nothing");
}

#[test]
fn a_stream_that_began_since_a_replica_was_asked_keeps_what_its_view_has_to_show() {
    let dir = tempfile::tempdir().unwrap();
    let options = StateOptions { compaction: false, ..StateOptions::default() };
    let state = RocksState::open(dir.path(), options).unwrap();
    let mut range = all_deleted(&state);
    let mut bounds = CompactionBounds::default();
    range.collect(BELOW);
    bounds.raise(&state, &[range.status()]).unwrap();
    let view = state.snapshot();
    let streamed = StreamedView::new(&*view, range.span()).unwrap();
    bounds.raise(&state, &[range.status()]).unwrap();
    compact(&state);
    assert_eq!(range.records(), [0, 0], "the receiver, too, collects below that");
    streamed.check(&state).unwrap();
}

#[test]
fn a_stream_that_no_replica_stands_for_is_broken_off_once_its_view_has_lost_records() {
    let dir = tempfile::tempdir().unwrap();
    let options = StateOptions { compaction: false, ..StateOptions::default() };
    let state = RocksState::open(dir.path(), options).unwrap();
    let mut range = all_deleted(&state);
    let span = range.span();
    let view = state.snapshot();
    let sent = chunks(&view, &span);
    let streamed = StreamedView::new(&*view, span.clone()).unwrap();
    range.collect(BELOW);
    let mut bounds = CompactionBounds::default();
    bounds.raise(&state, &[range.status()]).unwrap();
    compact(&state);
    assert!(chunks(&view, &span) == sent, "records are missing");
    streamed.check(&state).unwrap();
    bounds.raise(&state, &[range.status()]).unwrap();
    compact(&state);
    assert!(chunks(&view, &span) != sent, "this cannot be held up");
    let refused = |checked| matches!(checked, Err(Error::Refused(_)));
    assert!(refused(streamed.check(&state)));

    // An install forgets the bound, but does not restore the records that compaction dropped.
    let now = state.snapshot();
    let mut staging = state.stage().unwrap();
    for chunk in chunks(&now, &span) {
        staging.add(chunk.cf, &chunk.records).unwrap();
    }
    let staged = staging.finish().unwrap();
    state.install(Install { staged, span: span.clone(), meta: WriteBatch::default() }).unwrap();
    assert!(refused(streamed.check(&state)));
    // A stream begun now has a view that itself collects below the bound.
    StreamedView::new(&*state.snapshot(), span).unwrap().check(&state).unwrap();
}
