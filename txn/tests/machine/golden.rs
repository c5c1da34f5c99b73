//! Golden conversations with a range: `testscripts/`.
//!
//! A line that begins with `> ` is a step; the indented lines after it are its reply. All other
//! lines are prose. `UPDATE_GOLDEN=1 cargo test --release --workspace --test machine golden` writes
//! the replies down: inspect the difference, and only commit changes that you understand.
//!
//! ```text
//! > range START END              start over with an empty range of these keys
//! > restart                      a new machine over the state as it is
//! > commit TS [fence TS] [previous]: ITEM; ITEM; ...
//!       if exists K | if absent K | if version K N | if modified K TS | if value K V
//!       put K V [lease N] | delete K | delete_range START END
//!       read K at TS | read START END at TS
//! > prewrite TS primary K [alive MS] [update TS] [from TS] [fence TS] [async] K ...: ITEM; ...
//!                              keys: the secondaries of an asynchronous commit
//! > commit_keys TS at TS K K ...
//! > rollback_keys TS K K ...
//! > check_transaction TS K now MS [push TS] [met MS]
//! > check_secondaries TS K K ...
//! > resolve_locks TS [at TS] [primary K] K K ...
//! > resolve_locks TS [at TS] [primary K] span START END
//! > collect_garbage floor TS [below TS] [START END]
//! > heartbeat_lock TS K alive MS
//! > acquire_locks TS primary K update TS [alive MS] K K ...
//! > validate TS at TS [passing TS]: read K at TS; ...
//! > raw BYTE BYTE ...            a command of these bytes, in hexadecimal
//! > get K [at TS] [passing TS]
//! > scan START END [limit N] [bytes N] [reverse] [keys] [at TS] [passing TS]
//! > locks START END [limit N] [below TS]
//! > garbage START END below TS [walk N]
//! > floors
//! > lose FAMILY K [start TS]     damage: the record is missing
//! > spoil FAMILY K [start TS]    damage: the record's bytes are invalid
//! > dump                         every stored record
//! ```
//!
//! `-` is an empty key or value, `x*600` is 600 times x, `\x00` is a zero byte.

mod commands;
mod show;
mod words;

use std::fmt::Write;
use std::path::Path;

use crate::support::{Entry, Replica};
use rangedb_storage::{ColumnFamily, Direction, Reader, StateEngine, WriteBatch, keys};
use rangedb_txn::{ScanRequest, floors, garbage_ahead, get, locks, scan, validate};
use show::{dump, show, show_ahead, show_locks, show_page, show_read, show_reply, show_validated};
use words::Words;

#[test]
fn commands_answer_as_written() {
    run_directory("commands");
}

#[test]
fn reads_answer_as_written() {
    run_directory("reads");
}

#[expect(clippy::disallowed_methods, reason = "UPDATE_GOLDEN is for whoever runs the test")]
fn run_directory(name: &str) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testscripts").join(name);
    let mut paths: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no scripts in {}", directory.display());
    for path in paths {
        let expected = std::fs::read_to_string(&path).unwrap();
        let actual = run_script(&expected);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, actual).unwrap();
        } else if actual != expected {
            let same = actual.lines().zip(expected.lines()).take_while(|(a, e)| a == e).count();
            let rest = |text: &str| text.lines().skip(same).take(8).collect::<Vec<_>>().join("\n");
            panic!(
                "{}:{}\n--- expected\n{}\n--- actual\n{}",
                path.display(),
                same + 1,
                rest(&expected),
                rest(&actual)
            );
        }
    }
}

/// Carries out the script's steps, and returns the script with their replies written down.
fn run_script(script: &str) -> String {
    let mut replica = Replica::new(b"", b"");
    let mut out = String::new();
    for line in script.lines().filter(|line| !line.starts_with("  ")) {
        writeln!(out, "{line}").unwrap();
        if let Some(step) = line.strip_prefix("> ") {
            for answer in run_step(&mut replica, step).lines() {
                writeln!(out, "  {answer}").unwrap();
            }
        }
    }
    out
}

fn run_step(replica: &mut Replica, step: &str) -> String {
    let (head, items) = step.split_once(": ").unwrap_or((step, ""));
    let mut words = Words::of(head);
    match words.take() {
        "range" => {
            *replica = Replica::new(&words.bytes(), &words.bytes());
            String::new()
        }
        "restart" => {
            replica.restart();
            String::new()
        }
        "raw" => {
            let command = words.hexadecimal().into();
            show_reply(&replica.apply(&[Entry { command, fence: 0 }])[0])
        }
        "get" => {
            let (at, locks) = (words.at(), words.locks());
            let key = words.bytes();
            let outcome = get(&replica.state, replica.start_key(), &key, at, &locks).unwrap();
            show_read(&outcome, |found| found.kv.as_ref().map_or("no value".into(), show))
        }
        "scan" => {
            let request = ScanRequest {
                at: words.at(),
                locks: words.locks(),
                limit: words.named("limit"),
                bytes_max: words.named("bytes"),
                direction: match words.flag("reverse") {
                    true => Direction::Reverse,
                    false => Direction::Forward,
                },
                keys_only: words.flag("keys"),
                start: words.bytes(),
                end: words.bytes(),
            };
            show_read(&scan(&replica.state, replica.start_key(), &request).unwrap(), show_page)
        }
        "validate" => {
            let request = commands::validation(words, items);
            show_validated(&validate(&replica.state, replica.start_key(), &request).unwrap())
        }
        "locks" => {
            let (limit, below) = (words.named("limit"), words.named("below"));
            let (start, end) = (words.bytes(), words.bytes());
            show_locks(&locks(&replica.state, (&start, &end), limit, below).unwrap())
        }
        "garbage" => {
            let (below, walk_max) = (words.named("below"), words.named("walk"));
            let walk_max = if walk_max == 0 { usize::MAX } else { walk_max as usize };
            let (start, end) = (words.bytes(), words.bytes());
            show_ahead(&garbage_ahead(&replica.state, &start, &end, below, walk_max).unwrap())
        }
        "floors" => {
            let floors = floors(&replica.state, replica.start_key()).unwrap();
            format!("reads from {}, collected below {}", floors.floor_ts, floors.collect_below_ts)
        }
        kind @ ("lose" | "spoil") => {
            let start_ts = words.named("start");
            let (family, key) = (words.take(), words.bytes());
            damage(replica, kind, family, (&key, start_ts));
            String::new()
        }
        "dump" => dump(replica),
        name => {
            let fence = words.named("fence");
            let command = commands::command(name, words, items);
            let command = command.unwrap_or_else(|| panic!("no step is called {name:?}"));
            show_reply(&replica.apply(&[Entry::of(command, fence)])[0])
        }
    }
}

/// Damages a replica as a disk or memory does whose errors the engine's checksums do not find.
fn damage(replica: &Replica, kind: &str, family: &str, (key, start_ts): (&[u8], u64)) {
    let (cf, position) = match family {
        "current" => (ColumnFamily::Current, keys::current(key)),
        "value" => (ColumnFamily::Value, keys::value(key, start_ts)),
        "lock" => (ColumnFamily::Lock, keys::lock(key)),
        "by_start" => (ColumnFamily::History, keys::by_start(key, start_ts)),
        other => panic!("no family is called {other:?}"),
    };
    assert!(replica.state.get(cf, &position).unwrap().is_some(), "there is nothing to damage");
    let mut batch = WriteBatch::default();
    match kind {
        "lose" => batch.delete(cf, position),
        _ => batch.put(cf, position, &b"spoilt"[..]),
    }
    replica.state.write(batch).unwrap();
}
