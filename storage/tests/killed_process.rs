//! A process that is killed while it writes leaves what it was told is durable, and no half of
//! anything.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use rangedb_storage::{
    ColumnFamily, LogBatch, LogChange, LogEngine, LogOptions, RaftEngineLog, Reader, RocksState,
    StateEngine, StateOptions, WriteBatch,
};

use crate::log_script::entry;

const DIR: &str = "RANGEDB_TEST_KILLED_WRITER";
const FLUSH_EVERY: u64 = 16;

fn open(dir: &Path) -> (RocksState, RaftEngineLog) {
    // Small memtables: RocksDB flushes by itself too, between the flushes that are asked for.
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

/// Not a test by itself: what the test below starts and kills. Writes the same number to all
/// families and to the log, one by one, and says what is durable.
#[test]
fn the_writer_that_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let (state, log) = open(Path::new(&dir));
    let mut say = std::io::stdout();
    let mut index = log.state(1).unwrap().map_or(0, |state| state.last_index);
    loop {
        index += 1;
        let changes =
            vec![LogChange::Append { range_id: 1, entries: vec![entry(index, 1, &[1; 300])] }];
        log.append(LogBatch { changes }).unwrap();
        writeln!(say, "\nappended {index}").unwrap();
        let mut batch = WriteBatch::default();
        for cf in ColumnFamily::ALL {
            batch.put(cf, "counter", index.to_be_bytes().to_vec());
            batch.put(cf, format!("filler{index}"), vec![index as u8; 500]);
        }
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
    for life in 1..=5 {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::the_writer_that_is_killed", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut appended, mut flushed) = (0, 0);
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let mut seen = 0;
        for line in lines {
            let line = line.unwrap();
            if let Some(index) = line.strip_prefix("appended ") {
                appended = index.parse().unwrap();
            } else if let Some(index) = line.strip_prefix("flushed ") {
                flushed = index.parse().unwrap();
            }
            seen += 1;
            if seen == 150 * life {
                // What it says between now and its end is read too.
                writer.kill().unwrap();
            }
        }
        writer.wait().unwrap();
        assert!(flushed > 0 && appended >= flushed, "the writer was killed too early");

        let (state, log) = open(dir.path());
        let kept = counter(&state, ColumnFamily::Current);
        assert!(kept >= flushed, "{flushed} was flushed, {kept} is left");
        for cf in ColumnFamily::ALL {
            assert_eq!(counter(&state, cf), kept, "families moved apart");
            assert!(state.get(cf, format!("filler{kept}").as_bytes()).unwrap().is_some());
            assert!(state.get(cf, format!("filler{}", kept + 1).as_bytes()).unwrap().is_none());
        }
        let last = log.state(1).unwrap().unwrap().last_index;
        assert!(last >= appended && last >= kept, "{appended} was appended, {last} is left");
    }
}
