//! Crash tests of installs: after a restart the install is there as a whole, or not at all.

use std::path::Path;

use super::*;
use crate::rocks::{RocksState, StateOptions};
use crate::{Reader, StateEngine, state_hash};

const FAMILIES: [ColumnFamily; 4] = ColumnFamily::DATA;

fn small() -> StateOptions {
    // Files of a few records each, so that every family has several.
    let options = StateOptions::default();
    StateOptions { staged_file_bytes: 64, compaction: false, ..options }
}

fn numbered(prefix: &str, count: usize) -> Vec<(Bytes, Bytes)> {
    (0..count).map(|n| (format!("k{n:03}").into(), format!("{prefix}{n}").into())).collect()
}

/// A state with records inside and outside of the span, some in files and some in memory.
fn filled(dir: &Path) -> RocksState {
    let state = RocksState::open(dir, small()).unwrap();
    for (from, to) in [(0, 30), (30, 60)] {
        let mut batch = WriteBatch::default();
        for cf in FAMILIES {
            for (key, value) in &numbered("old", 60)[from..to] {
                batch.put(cf, key.clone(), value.clone());
            }
        }
        state.write(batch).unwrap();
        if from == 0 {
            state.flush().unwrap();
        }
    }
    state
}

fn staged_install(state: &RocksState) -> Install {
    let mut staging = state.stage().unwrap();
    for cf in [ColumnFamily::Current, ColumnFamily::Value] {
        let records: Vec<_> = numbered("new", 50).into_iter().skip(20).step_by(2).collect();
        for some in records.chunks(4) {
            staging.add(cf, some).unwrap();
        }
    }
    let staged = staging.finish().unwrap();
    let mut meta = WriteBatch::default();
    meta.put(ColumnFamily::Meta, "r/1", "installed");
    meta.delete(ColumnFamily::Meta, "r/2");
    Install { staged, span: Span { start: "k020".into(), end: "k050".into() }, meta }
}

fn hash(state: &dyn Reader) -> u64 {
    state_hash(state, &Span::everything()).unwrap()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn steps() -> Vec<Step> {
    let ingested = FAMILIES.map(Step::Ingested);
    let mut steps = vec![Step::Flushed, Step::Recorded];
    steps.extend(ingested);
    steps.extend([Step::MetaWritten, Step::MetaFlushed, Step::RecordRemoved]);
    steps
}

#[test]
fn a_crash_at_any_step_leaves_all_of_the_install_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let state = filled(&dir.path().join("whole"));
    let before = hash(&state);
    let install = staged_install(&state);
    let mut seen = Vec::new();
    let note = &mut |step| {
        seen.push(step);
        Ok(())
    };
    state.engine.install(install, note).unwrap();
    let after = hash(&state);
    assert_ne!(before, after);
    assert_eq!(seen, steps());

    for (number, crash) in steps().into_iter().enumerate() {
        let live = dir.path().join(format!("live{number}"));
        let crashed = dir.path().join(format!("crashed{number}"));
        let state = filled(&live);
        let install = staged_install(&state);
        let mut copied = false;
        let stop = &mut |step| {
            if step == crash {
                // Copy what the disk holds at this moment; what is in memory is lost.
                copy(&live, &crashed);
                copied = true;
            }
            Ok(())
        };
        state.engine.install(install, stop).unwrap();
        assert!(copied);
        drop(state);

        for restart in ["first", "second"] {
            let state = RocksState::open(&crashed, small()).unwrap();
            let expected = if crash == Step::Flushed { before } else { after };
            assert_eq!(hash(&state), expected, "{crash:?}, {restart} restart");
            let meta = state.get(ColumnFamily::Meta, b"r/1").unwrap();
            assert_eq!(meta.is_some(), crash != Step::Flushed, "{crash:?}, {restart} restart");
            let staging = std::fs::read_dir(crashed.join("staging")).unwrap();
            assert_eq!(staging.count(), 0, "{crash:?}: staged files are thrown away");
        }
    }
}

#[test]
fn an_install_that_failed_half_way_is_finished_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let state = filled(dir.path());
    let install = staged_install(&state);
    let fail = &mut |step| match step {
        Step::Ingested(ColumnFamily::History) => Err(Error::Full("the test's".into())),
        _ => Ok(()),
    };
    let failed = state.engine.install(install, fail);
    assert!(matches!(failed, Err(Error::Io(_))), "only a restart helps, not asking again");
    drop(state);
    let state = RocksState::open(dir.path(), small()).unwrap();
    assert_eq!(state.get(ColumnFamily::Current, b"k022").unwrap().unwrap(), "new22");
    assert_eq!(state.get(ColumnFamily::Lock, b"k022").unwrap(), None);
    assert_eq!(state.get(ColumnFamily::Lock, b"k019").unwrap().unwrap(), "old19");
    assert_eq!(state.get(ColumnFamily::Meta, b"r/1").unwrap().unwrap(), "installed");
}

#[test]
fn readers_see_all_of_an_install_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let state = filled(dir.path());
    let install = staged_install(&state);
    let before = state.snapshot();
    let (old, new) = (hash(&*before), {
        let twin = tempfile::tempdir().unwrap();
        let twin_state = filled(twin.path());
        let install = staged_install(&twin_state);
        twin_state.install(install).unwrap();
        hash(&twin_state)
    });
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = Vec::new();
            while !done.load(std::sync::atomic::Ordering::Acquire) {
                seen.push(hash(&*state.snapshot()));
            }
            seen
        });
        state.install(install).unwrap();
        done.store(true, std::sync::atomic::Ordering::Release);
        let seen = reader.join().unwrap();
        assert!(seen.iter().all(|hash| [old, new].contains(hash)), "a mixture was seen");
    });
    assert_eq!(hash(&*before), old, "a snapshot does not move");
    assert_eq!(hash(&state), new);
}

#[test]
fn a_damaged_redo_record_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path()));
    let path = dir.path().join("staging").join(REDO_RECORD);
    let redo = Redo { staged_id: 7, families: Vec::new(), meta: WriteBatch::default() };
    let mut bytes = redo.encode();
    bytes[1] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    match RocksState::open(dir.path(), small()).err() {
        Some(Error::Corrupt { file: Some(file), .. }) => assert_eq!(file, path),
        other => panic!("{other:?}"),
    }
}

#[test]
fn redo_records_come_back_as_they_were_and_cuts_are_refused() {
    let mut meta = WriteBatch::default();
    meta.put(ColumnFamily::Meta, "r/1", "descriptor");
    meta.delete(ColumnFamily::Meta, "t/1");
    meta.delete_span(ColumnFamily::Lock, Span { start: "a".into(), end: "".into() });
    let family = RedoFamily { cf: ColumnFamily::Value, clears: true, files: 300 };
    let redo = Redo { staged_id: 1 << 40, families: vec![family], meta };
    let bytes = redo.encode();
    assert_eq!(Redo::decode(&bytes), Some(redo));
    for length in 0..bytes.len() {
        assert_eq!(Redo::decode(&bytes[..length]), None);
    }
}

/// Tests arbitrary bytes behind a valid checksum.
#[test]
fn redo_records_of_any_bytes_are_refused_or_have_no_other_spelling() {
    let with_crc = |bytes: &[u8]| [bytes, &crc32fast::hash(bytes).to_le_bytes()].concat();
    assert_eq!(Redo::decode(&with_crc(b"")), None);
    let mut meta = WriteBatch::default();
    meta.put(ColumnFamily::Meta, "r/1", vec![1; 200]);
    meta.delete_span(ColumnFamily::Lock, Span { start: "a".into(), end: "b".into() });
    let family = RedoFamily { cf: ColumnFamily::Value, clears: true, files: 300 };
    let sound = Redo { staged_id: 1 << 40, families: vec![family], meta }.encode();
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..50_000 {
        let mut bytes = sound[..sound.len() - CRC_BYTES].to_vec();
        for _ in 0..rng.usize(1..4) {
            let place = rng.usize(0..bytes.len());
            match rng.u8(0..4) {
                0 => bytes[place] = rng.u8(..),
                1 => bytes.truncate(place.max(1)),
                2 => bytes.insert(place, rng.u8(..)),
                // A length that exceeds the bytes.
                _ => drop(bytes.splice(place..=place, [0xff, 0xff, 0xff, 0xff, 0x0f])),
            }
        }
        if let Some(redo) = Redo::decode(&with_crc(&bytes)) {
            assert_eq!(redo.encode(), with_crc(&bytes));
        }
    }
}
