//! Keys and records of the state, incoming snapshots, and the files of the log.

use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use raft_proto::eraftpb::{Entry, HardState};
use rangedb_storage::keys::{self, HistoryKey, MetaKey};
use rangedb_storage::{
    Chunk, ChunkReceiver, ColumnFamily, HistoryRecord, Install, LogBatch, LogChange,
    LogEngine as _, LogOptions, MemState, RaftEngineLog, Reader as _, Record, RecordValue,
    SnapshotTotals, StartRecord, StateEngine as _, WriteBatch, chunk_crc32, encoding,
    is_collectable,
};

use crate::allocation::{bounded, bounded_with};
use crate::mutate::{cases, input};

/// Maximum memory, as a multiple of the input. A decoded key or record and its error message hold
/// copies of the input. Escaped in an error message, a byte becomes four.
const TIMES: usize = 24;

const USER_KEYS: [&[u8]; 5] = [b"", b"\x00", b"a\x00\xffb", b"/users/42", b"\xff\xff"];

fn stored_keys() -> Vec<Vec<u8>> {
    let mut samples = Vec::new();
    for key in USER_KEYS {
        samples.push(keys::current(key).to_vec());
        for timestamp in [0, 1, 1 << 40, u64::MAX] {
            samples.push(keys::history(key, timestamp).to_vec());
            samples.push(keys::value(key, timestamp).to_vec());
            samples.push(keys::by_start(key, timestamp).to_vec());
            samples.push(keys::range_state(timestamp).to_vec());
            samples.push(keys::tombstone(timestamp).to_vec());
        }
    }
    samples
}

fn values() -> [RecordValue; 4] {
    let inline = |length| RecordValue::Inline(vec![7; length].into());
    [RecordValue::Deleted, inline(0), inline(40), RecordValue::Reference { bytes: 70_000 }]
}

fn a_record(mod_ts: u64, value: RecordValue) -> Record {
    let deleted = value == RecordValue::Deleted;
    let create_ts = if deleted { 0 } else { mod_ts / 2 };
    let (version, lease_id) = if deleted { (0, 0) } else { (3, 300) };
    Record { mod_ts, start_ts: mod_ts / 3, create_ts, version, lease_id, value }
}

fn records() -> Vec<Vec<u8>> {
    let mut samples = Vec::new();
    for value in values() {
        for mod_ts in [1, 300, 1 << 50] {
            let record = a_record(mod_ts, value.clone());
            samples.push(record.encode().to_vec());
            samples.push(HistoryRecord { record, end_ts: mod_ts + 9 }.encode().to_vec());
            samples.push(StartRecord { mod_ts, end_ts: mod_ts + 9 }.encode().to_vec());
        }
    }
    samples
}

proptest! {
    #![proptest_config(cases(1))]

    #[test]
    fn keys_are_refused_or_have_no_other_spelling(stored in input(stored_keys())) {
        bounded(stored.len(), TIMES, || {
            if let Ok((raw, rest)) = encoding::unescape(&stored) {
                assert_eq!([&encoding::escape(&raw, 0)[..], rest].concat(), stored);
            }
            if let Ok(user_key) = keys::parse_user_key(&stored) {
                assert_eq!(keys::current(&user_key), stored);
            }
            if let Ok((user_key, mod_ts)) = keys::parse_history(&stored) {
                assert_eq!(keys::history(&user_key, mod_ts), stored);
            }
            match keys::parse_history_key(&stored) {
                Ok(HistoryKey::ByStart { user_key, start_ts }) => {
                    assert_eq!(keys::by_start(&user_key, start_ts), stored);
                }
                Ok(HistoryKey::Version { user_key, mod_ts }) => {
                    assert_eq!(keys::history(&user_key, mod_ts), stored);
                }
                Err(_) => {}
            }
            if let Ok((user_key, start_ts)) = keys::parse_value(&stored) {
                assert_eq!(keys::value(&user_key, start_ts), stored);
            }
            match keys::parse_meta(&stored) {
                Ok(MetaKey::RangeState { range_id }) => {
                    assert_eq!(keys::range_state(range_id), stored);
                }
                Ok(MetaKey::Tombstone { range_id }) => {
                    assert_eq!(keys::tombstone(range_id), stored);
                }
                Ok(MetaKey::SkippedEntry { range_id, index }) => {
                    assert_eq!(keys::skipped_entry(range_id, index), stored);
                }
                Err(_) => {}
            }
        });
    }

    #[test]
    fn records_are_refused_or_have_no_other_spelling(stored in input(records())) {
        let shared = Bytes::from(stored.clone());
        bounded(stored.len(), TIMES, || {
            if let Ok(record) = Record::decode(&shared) {
                assert_eq!(record.encode(), shared);
                assert_eq!(Record::decode_slice(&stored).unwrap(), record);
                let collectable = is_collectable(ColumnFamily::Current, &stored, u64::MAX);
                assert_eq!(collectable, record.is_deleted() && record.mod_ts > 0);
            }
            if let Ok(superseded) = HistoryRecord::decode(&shared) {
                assert_eq!(superseded.encode(), shared);
                assert_eq!(HistoryRecord::decode_slice(&stored).unwrap(), superseded);
                let below = superseded.end_ts - 1;
                assert!(!is_collectable(ColumnFamily::History, &stored, below));
            }
            if let Ok(by_start) = StartRecord::decode(&stored) {
                assert_eq!(by_start.encode(), shared);
                let below = by_start.end_ts - 1;
                assert!(!is_collectable(ColumnFamily::History, &stored, below));
            }
        });
    }
}

/// Number of a family, records, and optionally a checksum in place of the right one.
type AnyChunk = (u32, Vec<(Vec<u8>, Vec<u8>)>, Option<u32>);

fn chunk() -> impl Strategy<Value = AnyChunk> {
    let record = (input(stored_keys()), prop::collection::vec(any::<u8>(), 0..20));
    let records = prop::collection::vec(record, 0..6).prop_flat_map(|records| {
        let mut sorted = records.clone();
        sorted.sort();
        prop_oneof![3 => Just(sorted), 1 => Just(records)]
    });
    (0..7_u32, records, prop::option::weighted(0.2, any::<u32>()))
}

proptest! {
    #![proptest_config(cases(1))]

    #[test]
    fn a_snapshot_stream_is_refused_or_what_it_claims_to_be(
        chunks in prop::collection::vec(chunk(), 0..5),
        claimed in prop::option::of(any::<(u64, u32)>()),
    ) {
        let state = MemState::new();
        let span = keys::data_span(b"\x00", b"\xff");
        let mut receiver = ChunkReceiver::new(state.stage().unwrap(), span.clone());
        let mut totals = crc32fast::Hasher::new();
        let mut expected = Vec::new();
        for (family, records, crc32) in chunks {
            let Some(cf) = ColumnFamily::from_number(family) else { continue };
            let own = |(key, value): &(Vec<u8>, Vec<u8>)| (key.clone().into(), value.clone().into());
            let records: Vec<(Bytes, Bytes)> = records.iter().map(own).collect();
            let crc32 = crc32.unwrap_or_else(|| chunk_crc32(cf, &records));
            if receiver.add(&Chunk { cf, records: records.clone(), crc32 }).is_ok() {
                totals.update(&crc32.to_le_bytes());
                expected.extend(records.into_iter().map(|(key, value)| (cf, key, value)));
            }
        }
        let honest = (expected.len() as u64, totals.finalize());
        let (records, crc32) = claimed.unwrap_or(honest);
        let finished = receiver.finish(SnapshotTotals { records, crc32 });
        assert_eq!(finished.is_ok(), (records, crc32) == honest);
        if let Ok(staged) = finished {
            state.install(Install { staged, span: span.clone(), meta: WriteBatch::default() }).unwrap();
            for (cf, key, value) in expected {
                assert!(span.contains(&key));
                assert_eq!(state.get(cf, &key).unwrap(), Some(value));
            }
        }
    }
}

/// Returns options that spread a small log over several files.
fn log_options() -> LogOptions {
    LogOptions { file_bytes: 4 << 10, purge_bytes: 16 << 10 }
}

const LOGGED: u64 = 60;

/// Returns the files of a log with entries, a hard state and a truncated prefix, as a crash leaves
/// them.
fn log_files() -> Vec<(String, Vec<u8>)> {
    let dir = tempfile::tempdir().unwrap();
    let log = RaftEngineLog::open(dir.path(), log_options()).unwrap();
    for index in 1..=LOGGED {
        let data = vec![index as u8; 200].into();
        let entries = vec![Entry { index, term: 1, data, ..Default::default() }];
        let state = HardState { term: 1, vote: 2, commit: index - 1, ..Default::default() };
        let mut changes = vec![
            LogChange::Append { range_id: 1, entries },
            LogChange::HardState { range_id: 1, state },
        ];
        if index == LOGGED / 2 {
            changes.push(LogChange::Truncate { range_id: 1, index: 5, term: 1 });
        }
        log.append(LogBatch { changes }).unwrap();
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir.path().join("log")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            let name = entry.file_name().into_string().unwrap();
            files.push((name, std::fs::read(entry.path()).unwrap()));
        }
    }
    files.sort();
    files
}

fn read_all(dir: &Path) {
    let Ok(log) = RaftEngineLog::open(dir, log_options()) else { return };
    for range_id in log.ranges().unwrap() {
        let state = log.state(range_id).unwrap().unwrap();
        let entries =
            log.entries(range_id, state.truncated_index + 1, state.last_index + 1, u64::MAX);
        for entry in entries.into_iter().flatten() {
            assert_eq!((range_id, entry.term, entry.data.len()), (1, 1, 200), "nobody wrote it");
        }
    }
}

proptest! {
    // Opening a log writes and syncs.
    #![proptest_config(cases(8))]

    #[test]
    fn a_log_of_damaged_files_is_refused_or_holds_what_was_written(
        damaged in any::<usize>(),
        flips in prop::collection::vec((any::<usize>(), any::<u8>()), 0..4),
        length in prop::option::weighted(0.3, any::<usize>()),
        tail in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        thread_local! {
            static FILES: Vec<(String, Vec<u8>)> = log_files();
        }
        let mut files = FILES.with(Clone::clone);
        let whole: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
        let place = damaged % files.len();
        let bytes = &mut files[place].1;
        if !bytes.is_empty() {
            for (at, byte) in flips {
                let at = at % bytes.len();
                bytes[at] ^= byte;
            }
            bytes.truncate(length.map_or(usize::MAX, |length| length % bytes.len()));
        }
        bytes.extend(tail);
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("log")).unwrap();
        for (name, bytes) in &files {
            std::fs::write(dir.path().join("log").join(name), bytes).unwrap();
        }
        // raft-engine has buffers of its own, megabytes of them.
        bounded_with(32 * whole + (64 << 20), || read_all(dir.path()));
    }
}

#[test]
fn the_log_is_read_back_whole_where_nothing_is_damaged() {
    let files = log_files();
    assert!(files.len() > 2, "a log of several files");
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("log")).unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join("log").join(name), bytes).unwrap();
    }
    let log = RaftEngineLog::open(dir.path(), log_options()).unwrap();
    let state = log.state(1).unwrap().unwrap();
    assert_eq!((state.truncated_index, state.last_index), (5, LOGGED));
}
