//! Compaction of a state on disk once a bound is set. Behind a finished flush it drops, in the
//! bound's span, records that no reader sees at the bound, and nothing else.

use std::sync::Arc;

use bytes::Bytes;
use rangedb_storage::{
    ChunkReader, ChunkReceiver, ColumnFamily, Compaction, Direction, HistoryRecord, Install,
    MemState, Reader, Record, RecordValue, RocksState, Span, StateEngine, StateOptions, WriteBatch,
    is_collectable, keys, state_hash, state_hash_above,
};

use ColumnFamily::{Current, History};

/// Opens a state that compacts only when a test asks for it.
fn open(dir: &std::path::Path) -> RocksState {
    let options = StateOptions { compaction: false, ..StateOptions::default() };
    RocksState::open(dir, options).unwrap()
}

fn record(mod_ts: u64, value: RecordValue) -> Record {
    let create_ts = if value == RecordValue::Deleted { 0 } else { mod_ts };
    let version = create_ts.min(1);
    Record { mod_ts, start_ts: mod_ts, create_ts, version, lease_id: 0, value }
}

fn inline(bytes: usize) -> RecordValue {
    RecordValue::Inline(vec![7; bytes].into())
}

/// Adds a superseded version of the key.
fn superseded(batch: &mut WriteBatch, key: &[u8], mod_ts: u64, end_ts: u64, value: RecordValue) {
    if let RecordValue::Reference { bytes } = value {
        batch.put(ColumnFamily::Value, keys::value(key, mod_ts), vec![8; bytes as usize]);
    }
    let history = HistoryRecord { record: record(mod_ts, value), end_ts };
    batch.put(History, keys::history(key, mod_ts), history.encode());
}

/// Keys with versions of all kinds, at timestamps up to 100.
fn histories(rng: &mut fastrand::Rng, keys: usize) -> WriteBatch {
    let mut batch = WriteBatch::default();
    let draw = |rng: &mut fastrand::Rng| match rng.u8(0..3) {
        0 => RecordValue::Deleted,
        1 => inline(rng.usize(0..20)),
        _ => RecordValue::Reference { bytes: 600 },
    };
    for number in 0..keys {
        let key = format!("key{number:05}").into_bytes();
        let mut mod_ts = rng.u64(1..20);
        while mod_ts < 90 && rng.u8(0..4) > 0 {
            let end_ts = rng.u64(mod_ts + 1..=95);
            superseded(&mut batch, &key, mod_ts, end_ts, draw(rng));
            mod_ts = end_ts;
        }
        let newest = record(mod_ts, draw(rng));
        batch.put(Current, keys::current(&key), newest.encode());
    }
    batch
}

fn records(state: &dyn Reader, cf: ColumnFamily) -> Vec<(Bytes, Bytes)> {
    let mut walk = state.scan(cf, b"", b"", Direction::Forward).unwrap();
    let mut records = Vec::new();
    while let Some((key, value)) = walk.next().unwrap() {
        records.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
    }
    records
}

fn compact(state: &RocksState) {
    for cf in ColumnFamily::ALL {
        state.compact(cf, &Span::everything());
    }
}

fn hash_above(state: &dyn Reader, bound: u64) -> u64 {
    state_hash_above(state, &Span::everything(), bound).unwrap()
}

#[test]
fn compaction_drops_what_is_out_of_sight_in_the_span_of_the_bound_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (state, twin) = (open(dir.path()), MemState::new());
    let batch = histories(&mut fastrand::Rng::with_seed(1), 400);
    state.write(batch.clone()).unwrap();
    twin.write(batch).unwrap();
    state.flush().unwrap();
    let spans = [
        (keys::data_span(b"key00050", b"key00150"), 40),
        (keys::data_span(b"key00150", b"key00300"), 70),
    ];
    for (span, bound) in &spans {
        state.set_collect_below(span, *bound);
    }

    compact(&state);
    for cf in ColumnFamily::ALL {
        assert_eq!(records(&state, cf), records(&twin, cf), "no flush has finished since");
    }

    state.flush().unwrap();
    compact(&state);
    let bound_at = |key: &[u8]| {
        let named = spans.iter().find(|(span, _)| span.contains(key));
        named.map_or(0, |(_, bound)| *bound)
    };
    let mut dropped = Vec::new();
    for cf in ColumnFamily::ALL {
        let (gone, left): (Vec<_>, Vec<_>) = records(&twin, cf)
            .into_iter()
            .partition(|(key, value)| is_collectable(cf, value, bound_at(key)));
        assert_eq!(records(&state, cf), left, "{cf:?}");
        dropped.push(gone.len() as u64);
    }
    let stats = state.stats();
    let counted = [stats.deleted_markers_collected, stats.history_records_collected, 0, 0, 0];
    assert_eq!(dropped, counted);
    assert!(dropped[0] > 10 && dropped[1] > 50, "{dropped:?}");

    let everything = Span::everything();
    let whole = |state: &dyn Reader| state_hash(state, &everything).unwrap();
    assert_ne!(whole(&state), whole(&twin));
    assert_eq!(hash_above(&state, 70), hash_above(&twin, 70));
    assert_ne!(hash_above(&state, 39), hash_above(&twin, 39));
}

/// Compacts random parts, often enough that every part is almost certainly compacted.
fn compact_in_memory(state: &MemState) -> usize {
    let mut rng = fastrand::Rng::with_seed(7);
    (0..100).map(|_| state.compact(&mut rng)).sum()
}

#[test]
fn the_twin_in_memory_drops_by_the_same_rules() {
    let (state, twin) = (MemState::new(), MemState::new());
    let batch = histories(&mut fastrand::Rng::with_seed(1), 400);
    state.write(batch.clone()).unwrap();
    twin.write(batch).unwrap();
    let held = state.snapshot();
    let span = keys::data_span(b"key00050", b"key00150");
    state.set_collect_below(&span, 40);
    assert_eq!((compact_in_memory(&state), state.collected_up_to(&span)), (0, 0));
    let flush = state.begin_flush();
    state.set_collect_below(&span, 60);
    assert_eq!(compact_in_memory(&state), 0, "the flush is not finished");
    state.finish_flush(flush).unwrap();
    assert_eq!(state.collected_up_to(&span), 40);
    assert!(compact_in_memory(&state) > 20);
    for cf in ColumnFamily::ALL {
        let mut left = records(&twin, cf);
        left.retain(|(key, value)| {
            !is_collectable(cf, value, if span.contains(key) { 40 } else { 0 })
        });
        assert_eq!(records(&state, cf), left, "{cf:?}");
        assert_eq!(records(&*held, cf), left, "{cf:?} under a snapshot");
    }
    let left = records(&state, History);
    state.crash(&mut fastrand::Rng::with_seed(1));
    assert_eq!(records(&state, History), left, "what was dropped stays so");
    state.flush().unwrap();
    assert_eq!((compact_in_memory(&state), state.collected_up_to(&span)), (0, 0));
}

#[test]
fn the_twin_in_memory_forgets_a_bound_where_it_installs() {
    let (state, source) = (MemState::new(), MemState::new());
    source.write(histories(&mut fastrand::Rng::with_seed(3), 100)).unwrap();
    state.set_collect_below(&Span::everything(), 50);
    state.flush().unwrap();
    let span = keys::data_span(b"key00020", b"key00040");
    install(&state, source.snapshot(), &span);
    assert_eq!((compact_in_memory(&state), state.collected_up_to(&span)), (0, 50));
}

/// Replaces the span by the records that the view shows in it.
fn install(state: &dyn StateEngine, view: Arc<dyn Reader>, span: &Span) {
    let mut reader = ChunkReader::new(view, span.clone());
    let mut receiver = ChunkReceiver::new(state.stage().unwrap(), span.clone());
    while let Some(chunk) = reader.next_chunk().unwrap() {
        receiver.add(&chunk).unwrap();
    }
    let staged = receiver.finish(reader.finish()).unwrap();
    let meta = WriteBatch::default();
    state.install(Install { staged, span: span.clone(), meta }).unwrap();
}

#[test]
fn a_bound_ends_with_the_process_and_what_was_dropped_stays_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    let write = |state: &RocksState, key: &[u8]| {
        let mut batch = WriteBatch::default();
        batch.put(Current, keys::current(key), record(5, RecordValue::Deleted).encode());
        state.write(batch).unwrap();
    };
    write(&state, b"before");
    state.set_collect_below(&Span::everything(), 5);
    state.flush().unwrap();
    compact(&state);
    drop(state);
    let state = open(dir.path());
    write(&state, b"after");
    state.flush().unwrap();
    compact(&state);
    let left: Vec<_> = records(&state, Current).into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, [keys::current(b"after")]);
}

#[test]
fn a_dropped_marker_hides_what_stood_below_it_and_nothing_above() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    let write = |key: &[u8], record: Record| {
        let mut batch = WriteBatch::default();
        batch.put(Current, keys::current(key), record.encode());
        state.write(batch).unwrap();
        // Each version in a file of its own.
        state.flush().unwrap();
    };
    write(b"gone", record(3, inline(9)));
    write(b"back", record(3, inline(9)));
    write(b"gone", record(4, RecordValue::Deleted));
    write(b"back", record(4, RecordValue::Deleted));
    let held = state.snapshot();
    let newest = record(9, inline(1));
    write(b"back", newest.clone());
    state.set_collect_below(&Span::everything(), 7);
    state.flush().unwrap();
    compact(&state);
    assert_eq!(state.get(Current, &keys::current(b"gone")).unwrap(), None);
    assert_eq!(state.get(Current, &keys::current(b"back")).unwrap(), Some(newest.encode()));
    assert_eq!(held.get(Current, &keys::current(b"gone")).unwrap(), None, "nor to older readers");
}

#[test]
fn a_snapshot_that_is_streamed_through_a_compaction_is_whole_above_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    let mut batch = histories(&mut fastrand::Rng::with_seed(2), 2000);
    for number in 0..2000 {
        let key = format!("key{number:05}x").into_bytes();
        superseded(&mut batch, &key, 3, 4 + number % 50, inline(500));
    }
    let twin = MemState::new();
    state.write(batch.clone()).unwrap();
    twin.write(batch).unwrap();
    state.flush().unwrap();
    state.set_collect_below(&Span::everything(), 30);
    state.flush().unwrap();

    let everything = Span::everything();
    let mut reader = ChunkReader::new(state.snapshot(), everything.clone());
    let target = MemState::new();
    let mut receiver = ChunkReceiver::new(target.stage().unwrap(), everything.clone());
    let mut chunks = 0;
    while let Some(chunk) = reader.next_chunk().unwrap() {
        receiver.add(&chunk).unwrap();
        chunks += 1;
        if chunks == 2 {
            compact(&state);
        }
    }
    assert!(chunks > 3, "{chunks} chunks");
    assert!(state.stats().history_records_collected > 500);
    let staged = receiver.finish(reader.finish()).unwrap();
    let meta = WriteBatch::default();
    target.install(Install { staged, span: everything, meta }).unwrap();
    assert_eq!(hash_above(&target, 30), hash_above(&twin, 30));
    assert_eq!(hash_above(&target, 30), hash_above(&state, 30));
}

#[test]
fn an_installed_snapshot_is_not_judged_by_the_bound_of_what_it_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    let batch = histories(&mut fastrand::Rng::with_seed(3), 100);
    state.write(batch.clone()).unwrap();
    state.set_collect_below(&Span::everything(), 50);
    state.flush().unwrap();

    let source = MemState::new();
    source.write(batch).unwrap();
    let source: Arc<dyn Reader> = source.snapshot();
    let span = keys::data_span(b"key00020", b"key00040");
    install(&state, Arc::clone(&source), &span);
    state.flush().unwrap();
    compact(&state);
    for cf in [Current, History] {
        let mut expected = records(&*source, cf);
        let all = expected.len();
        let kept = |key: &[u8], value: &[u8]| span.contains(key) || !is_collectable(cf, value, 50);
        expected.retain(|(key, value)| kept(key, value));
        assert!(expected.len() < all);
        assert_eq!(records(&state, cf), expected, "{cf:?}");
    }
}
