//! Damaged files of the engines on disk: a tail that a crash tore is cut, other damage is refused
//! with the file's name.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use rangedb_storage::{
    ColumnFamily, Error, LogBatch, LogChange, LogEngine, LogOptions, RaftEngineLog, Reader,
    RocksState, StateEngine, StateOptions, WriteBatch,
};

use crate::log_script::entry;
use crate::state_node::copy_dir;

fn open_log(dir: &Path) -> Result<RaftEngineLog, Error> {
    RaftEngineLog::open(dir, LogOptions { file_bytes: 4 << 10, purge_bytes: 16 << 10 })
}

fn append(log: &RaftEngineLog, index: u64) {
    let entries = vec![entry(index, 1, &[index as u8; 200])];
    let changes = vec![LogChange::Append { range_id: 1, entries }];
    log.append(LogBatch { changes }).unwrap();
}

/// Makes a log of several files, as a crash leaves it: the newest has space allocated behind its
/// batches. Returns the log's directory, and the newest file's length after each entry in it.
fn crashed_log(dir: &Path, entries: u64) -> (PathBuf, Vec<(u64, u64)>) {
    let (live, crashed) = (dir.join("live"), dir.join("crashed"));
    let log = open_log(&live).unwrap();
    let mut ends: Vec<(PathBuf, u64, u64)> = Vec::new();
    for index in 1..=entries {
        append(&log, index);
        let path = files(&live, "raftlog").pop().unwrap();
        ends.push((path.clone(), index, content_end(&path)));
    }
    copy_dir(&live, &crashed);
    let newest = files(&live, "raftlog").pop().unwrap();
    let ends = ends.into_iter().filter(|(path, ..)| *path == newest);
    (crashed, ends.map(|(_, index, end)| (index, end)).collect())
}

fn log_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir.join("log")).unwrap();
    entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("log")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths
}

/// Returns the offset of the zeros at the end.
fn content_end(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

fn flip(path: &Path, offset: u64) {
    let byte = std::fs::read(path).unwrap()[offset as usize];
    overwrite(path, offset, &[byte ^ 0x40]);
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(bytes).unwrap();
}

fn refused_file(opened: Result<RaftEngineLog, Error>) -> PathBuf {
    match opened.err() {
        Some(Error::Corrupt { file: Some(file), .. }) => file,
        other => panic!("not refused as corrupt: {other:?}"),
    }
}

#[test]
fn a_torn_tail_of_the_log_is_cut_wherever_it_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    let (crashed, ends) = crashed_log(dir.path(), 60);
    let [.., (_, begin), (last, end)] = ends[..] else { panic!("too few entries in a file") };
    for (number, torn) in (begin..end).step_by(7).enumerate() {
        for shorter in [true, false] {
            let copy = dir.path().join(format!("torn{number}{shorter}"));
            copy_dir(&crashed, &copy);
            let newest = files(&copy, "raftlog").pop().unwrap();
            if shorter {
                let file = OpenOptions::new().write(true).open(&newest).unwrap();
                file.set_len(torn).unwrap();
            } else {
                overwrite(&newest, torn, &vec![0; (end - torn) as usize]);
            }
            let log = open_log(&copy).unwrap();
            assert_eq!(log.state(1).unwrap().unwrap().last_index, last - 1);
            append(&log, last);
            drop(log);
            let log = open_log(&copy).unwrap();
            assert_eq!(log.entries(1, 1, last + 1, u64::MAX).unwrap().len() as u64, last);
        }
    }
}

#[test]
fn a_flipped_byte_before_the_last_batch_of_the_log_is_refused_by_file() {
    let dir = tempfile::tempdir().unwrap();
    let (crashed, ends) = crashed_log(dir.path(), 60);
    let (_, begin_of_last) = ends[ends.len() - 2];
    let logs = files(&crashed, "raftlog");
    assert!(logs.len() > 2, "a log of several files");
    for (which, path) in logs.iter().enumerate() {
        let newest = which + 1 == logs.len();
        let end = if newest { begin_of_last } else { content_end(path) };
        for offset in (0..end).step_by(97) {
            let copy = dir.path().join("copy");
            copy_dir(&crashed, &copy);
            let damaged = copy.join("log").join(path.file_name().unwrap());
            flip(&damaged, offset);
            assert_eq!(refused_file(open_log(&copy)), damaged, "offset {offset}");
            std::fs::remove_dir_all(&copy).unwrap();
        }
    }
}

#[test]
fn a_missing_file_of_the_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (crashed, _) = crashed_log(dir.path(), 60);
    let logs = files(&crashed, "raftlog");
    std::fs::remove_file(&logs[1]).unwrap();
    assert_eq!(refused_file(open_log(&crashed)), logs[2]);
}

/// State after a power loss in the first seconds: the first file has its name, but not its header.
/// The log goes on in that file, and writes there survive later crashes.
#[test]
fn a_log_whose_first_file_has_no_header_yet_is_an_empty_log() {
    let dir = tempfile::tempdir().unwrap();
    let fresh = dir.path().join("fresh");
    drop(open_log(&fresh).unwrap());
    let header = std::fs::read(&files(&fresh, "raftlog")[0]).unwrap();
    for kinds in [&["raftlog"][..], &["rewrite"], &["raftlog", "rewrite"]] {
        for (place, content) in
            [&b""[..], &header[..10], &header[..60], &[0; 69]].iter().enumerate()
        {
            let copy = dir.path().join(format!("{}{place}", kinds.concat()));
            copy_dir(&fresh, &copy);
            for kind in kinds {
                std::fs::write(&files(&copy, kind)[0], content).unwrap();
            }
            let log = open_log(&copy).unwrap();
            assert_eq!(log.ranges().unwrap(), Vec::<u64>::new());
            for kind in ["raftlog", "rewrite"] {
                assert_eq!(std::fs::read(&files(&copy, kind)[0]).unwrap(), header, "{kind}");
            }
            // The one entry of range 2 is rewritten once range 1 has left the first file behind.
            let entries = vec![entry(1, 1, &[7; 200])];
            let changes = vec![LogChange::Append { range_id: 2, entries }];
            log.append(LogBatch { changes }).unwrap();
            (1..=60).for_each(|index| append(&log, index));
            assert!(files(&copy, "raftlog").len() > 2, "a log of several files");
            drop(log);
            let log = open_log(&copy).unwrap();
            assert_eq!(log.entries(1, 1, 61, u64::MAX).unwrap().len(), 60);
            (61..=120).for_each(|index| append(&log, index));
            let change = LogChange::Truncate { range_id: 1, index: 100, term: 1 };
            log.append(LogBatch { changes: vec![change] }).unwrap();
            log.purge().unwrap();
            let rewritten = files(&copy, "rewrite");
            assert!(content_end(&rewritten[0]) > header.len() as u64, "something is rewritten");
            drop(log);
            for _ in 0..2 {
                let log = open_log(&copy).unwrap();
                assert_eq!(log.entries(2, 1, 2, 0).unwrap()[0].data, vec![7; 200]);
                assert_eq!(log.entries(1, 101, 121, u64::MAX).unwrap().len(), 20);
            }
        }
    }
}

/// Headers are durable before anything stands behind them.
#[test]
fn a_damaged_header_is_refused_whatever_stands_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let fresh = dir.path().join("fresh");
    drop(open_log(&fresh).unwrap());
    for kind in ["raftlog", "rewrite"] {
        for purging in [false, true] {
            let copy = dir.path().join(format!("{kind}{purging}"));
            copy_dir(&fresh, &copy);
            let damaged = files(&copy, kind).pop().unwrap();
            std::fs::write(&damaged, [0; 200]).unwrap();
            if purging {
                std::fs::write(copy.join("log/purging"), b"").unwrap();
            }
            assert_eq!(refused_file(open_log(&copy)), damaged);
        }
    }
}

/// State after a full disk: the next file is there, its header found no room, and entries go on in
/// the file before.
#[test]
fn a_file_of_the_log_that_was_not_begun_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let (crashed, ends) = crashed_log(dir.path(), 60);
    let (last, end) = ends[ends.len() - 1];
    let newest = files(&crashed, "raftlog").pop().unwrap();
    assert!(std::fs::metadata(&newest).unwrap().len() > end, "space is allocated ahead");
    let number: u64 = newest.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    for (place, content) in [&b""[..], b"RAFT-LOG-FILE-HEA", &[0; 69]].into_iter().enumerate() {
        for torn in [0, 50] {
            let copy = dir.path().join(format!("copy{place}torn{torn}"));
            copy_dir(&crashed, &copy);
            overwrite(&copy.join("log").join(newest.file_name().unwrap()), end - torn, &[0; 60]);
            let next = copy.join(format!("log/{:016}.raftlog", number + 1));
            std::fs::write(&next, content).unwrap();
            let log = open_log(&copy).unwrap();
            let last = if torn == 0 { last } else { last - 1 };
            assert_eq!(log.state(1).unwrap().unwrap().last_index, last);
            (last + 1..last + 40).for_each(|index| append(&log, index));
            drop(log);
            let log = open_log(&copy).unwrap();
            assert_eq!(log.entries(1, 1, last + 40, u64::MAX).unwrap().len() as u64, last + 39);
        }
    }
}

/// Makes a log in which a purge has work to do, before and after the purge. The one entry of range
/// 2 is in a file that range 1 has left behind, so the purge rewrites it.
fn purged_log(dir: &Path) -> (PathBuf, PathBuf) {
    let (before, after) = (dir.join("before"), dir.join("after"));
    let log = open_log(&after).unwrap();
    let entries = vec![entry(1, 1, &[7; 200])];
    log.append(LogBatch { changes: vec![LogChange::Append { range_id: 2, entries }] }).unwrap();
    for index in 1..200 {
        append(&log, index);
        if index % 20 == 0 {
            let change = LogChange::Truncate { range_id: 1, index: index - 5, term: 1 };
            log.append(LogBatch { changes: vec![change] }).unwrap();
        }
    }
    copy_dir(&after, &before);
    log.purge().unwrap();
    assert_eq!(log.used_bytes(), log_bytes(&after));
    drop(log);
    let purged = log_bytes(&after);
    assert!(purged < log_bytes(&before), "{purged} bytes are left");
    (before, after)
}

#[test]
fn damaged_rewritten_entries_are_refused_by_file() {
    let dir = tempfile::tempdir().unwrap();
    let (_, after) = purged_log(dir.path());
    let rewritten = files(&after, "rewrite").pop().unwrap();
    for offset in (0..content_end(&rewritten)).step_by(11) {
        flip(&rewritten, offset);
        assert_eq!(refused_file(open_log(&after)), rewritten, "offset {offset}");
        flip(&rewritten, offset);
    }
    assert_eq!(open_log(&after).unwrap().entries(2, 1, 2, 0).unwrap()[0].data, vec![7; 200]);
}

#[test]
fn a_purge_that_a_crash_cut_off_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (before, after) = purged_log(dir.path());
    let rewritten = files(&after, "rewrite").pop().unwrap();
    let end = content_end(&rewritten);
    for torn in (80..end).step_by(17) {
        // The append files are all still there; the rewritten file is there only in part.
        let copy = dir.path().join(format!("torn{torn}"));
        copy_dir(&before, &copy);
        let torn_file = copy.join("log").join(rewritten.file_name().unwrap());
        let bytes = std::fs::read(&rewritten).unwrap();
        std::fs::write(&torn_file, &bytes[..torn as usize]).unwrap();
        assert_eq!(refused_file(open_log(&copy)), torn_file, "no purge was under way");
        std::fs::write(copy.join("log/purging"), b"").unwrap();
        let log = open_log(&copy).unwrap();
        assert_eq!(log.entries(2, 1, 2, 0).unwrap()[0].data, vec![7; 200]);
        drop(log);
        open_log(&copy).unwrap();
        assert!(!copy.join("log/purging").exists());
    }
}

#[test]
fn a_log_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _log = open_log(dir.path()).unwrap();
    assert!(matches!(open_log(dir.path()).err(), Some(Error::Refused(_))));
}

fn open_state(dir: &Path, verify_bytes_max: u64) -> Result<RocksState, Error> {
    RocksState::open(dir, StateOptions { verify_bytes_max, ..StateOptions::default() })
}

/// Makes a state with one long file. Returns the file.
fn written_state(dir: &Path) -> PathBuf {
    let state = open_state(dir, u64::MAX).unwrap();
    let mut rng = fastrand::Rng::with_seed(1);
    let mut batch = WriteBatch::default();
    for number in 0..500 {
        let value: Vec<u8> = (0..200).map(|_| rng.u8(..)).collect();
        batch.put(ColumnFamily::Current, format!("key{number:03}"), value);
    }
    state.write(batch).unwrap();
    state.flush().unwrap();
    drop(state);
    let entries = std::fs::read_dir(dir.join("state")).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|found| found == "sst")).collect();
    assert_eq!(files.len(), 1);
    files.pop().unwrap()
}

#[test]
fn a_flipped_byte_of_the_state_is_refused_by_file_when_it_opens() {
    let dir = tempfile::tempdir().unwrap();
    let file = written_state(dir.path());
    let whole = std::fs::read(&file).unwrap();
    // Data blocks fill the file except for its end.
    for offset in (0..whole.len() - 8192).step_by(whole.len() / 9) {
        flip(&file, offset as u64);
        match open_state(dir.path(), u64::MAX).err() {
            Some(Error::Corrupt { file: Some(named), .. }) => assert_eq!(named, file),
            other => panic!("offset {offset}: {other:?}"),
        }
        std::fs::write(&file, &whole).unwrap();
    }
    open_state(dir.path(), u64::MAX).unwrap();
}

#[test]
fn of_a_state_too_large_to_read_at_opening_the_damage_shows_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = written_state(dir.path());
    flip(&file, 1000);
    let state = open_state(dir.path(), 0).unwrap();
    assert!(state.get(ColumnFamily::Current, b"key499").unwrap().is_some());
    match state.get(ColumnFamily::Current, b"key000") {
        Err(Error::Corrupt { file: Some(named), .. }) => assert_eq!(named, file),
        other => panic!("{other:?}"),
    }
    assert!(matches!(state.verify(), Err(Error::Corrupt { .. })));
}

#[test]
fn a_file_of_the_state_that_is_short_or_gone_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = written_state(dir.path());
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(open_state(dir.path(), 0).err(), Some(Error::Corrupt { .. })));
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(open_state(dir.path(), 0).err(), Some(Error::Corrupt { .. })));
}

#[test]
fn a_state_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _state = open_state(dir.path(), 0).unwrap();
    assert!(matches!(open_state(dir.path(), 0).err(), Some(Error::Refused(_))));
}
