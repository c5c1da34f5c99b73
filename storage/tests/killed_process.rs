//! Kill tests of a writing process: everything that it reported durable is there afterwards, and
//! nothing is there in half. In a test binary of its own: a child that is being started holds the
//! locks of every directory that its parent has open, until it has become another program.
#![cfg(feature = "disk")]

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use rangedb_storage::{
    ColumnFamily, LogBatch, LogChange, LogEngine, LogOptions, RaftEngineLog, Reader, RocksState,
    StateEngine, StateOptions, WriteBatch,
};

use raft_proto::eraftpb::Entry;

const DIR: &str = "RANGEDB_TEST_KILLED_WRITER";
const FLUSH_EVERY: u64 = 100;

fn open(dir: &Path) -> (RocksState, RaftEngineLog) {
    // Small memtables: RocksDB flushes by itself too, between the requested flushes, because one
    // family is written more than the others.
    let options = StateOptions::default();
    let options = StateOptions { memtable_bytes: 64 << 10, memtables_bytes: 128 << 10, ..options };
    let state = RocksState::open(dir, options).unwrap();
    let log_options = LogOptions { file_bytes: 64 << 10, purge_bytes: 256 << 10 };
    (state, RaftEngineLog::open(dir, log_options).unwrap())
}

fn counter(state: &RocksState, cf: ColumnFamily) -> u64 {
    let value = state.get(cf, b"counter").unwrap();
    value.map_or(0, |value| u64::from_be_bytes(value[..].try_into().unwrap()))
}

/// Writer process that the test below starts and kills; not a test by itself. Writes the same
/// number to all families and to the log, one by one, and prints what is durable.
#[test]
fn the_writer_that_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let (state, log) = open(Path::new(&dir));
    let mut say = std::io::stdout();
    let mut index = log.state(1).unwrap().map_or(0, |state| state.last_index);
    loop {
        index += 1;
        let entry = Entry { index, term: 1, data: vec![1; 300].into(), ..Entry::default() };
        let changes = vec![LogChange::Append { range_id: 1, entries: vec![entry] }];
        log.append(LogBatch { changes }).unwrap();
        writeln!(say, "\nappended {index}").unwrap();
        let mut batch = WriteBatch::default();
        for cf in ColumnFamily::ALL {
            batch.put(cf, "counter", index.to_be_bytes().to_vec());
        }
        batch.put(ColumnFamily::Value, format!("filler{index}"), vec![index as u8; 1000]);
        state.write(batch).unwrap();
        if index % FLUSH_EVERY == 0 {
            state.flush().unwrap();
            writeln!(say, "\nflushed {index}").unwrap();
        }
    }
}

#[test]
fn a_killed_process_leaves_what_was_durable_and_no_half_of_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    for life in 0..5 {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_writer_that_is_killed", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut appended, mut flushed) = (0, 0);
        let mut since_flush = 0;
        for line in BufReader::new(writer.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(index) = line.strip_prefix("appended ") {
                appended = index.parse().unwrap();
                since_flush += 1;
            } else if let Some(index) = line.strip_prefix("flushed ") {
                flushed = index.parse().unwrap();
                since_flush = 0;
            }
            // Kill far enough behind a flush that RocksDB has made one by itself. Lines that the
            // writer prints until it is dead are read too.
            if flushed > 0 && since_flush == 65 + 5 * life {
                writer.kill().unwrap();
            }
        }
        writer.wait().unwrap();
        assert!(flushed > 0, "the writer ended by itself");

        let (state, log) = open(dir.path());
        let kept = counter(&state, ColumnFamily::Current);
        assert!(kept >= flushed, "{flushed} was flushed, {kept} is left");
        for cf in ColumnFamily::ALL {
            assert_eq!(counter(&state, cf), kept, "families moved apart");
        }
        let filler = |index: u64| {
            state.get(ColumnFamily::Value, format!("filler{index}").as_bytes()).unwrap().is_some()
        };
        assert!(filler(kept) && !filler(kept + 1), "a batch was torn");
        let last = log.state(1).unwrap().unwrap().last_index;
        assert!(last >= appended && last >= kept, "{appended} was appended, {last} is left");
    }
}
