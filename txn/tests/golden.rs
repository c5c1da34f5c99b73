//! Golden conversations with a range: `testscripts/`.
//!
//! A line that begins with `> ` is a step; the indented lines behind it are what it answered. All
//! other lines are prose. `UPDATE_GOLDEN=1 cargo test -p rangedb-txn --test golden` writes the
//! answers down: inspect the difference, and only commit changes you understand.
//!
//! ```text
//! > range START END              start over with an empty range of these keys
//! > restart                      a new machine over the state as it is
//! > commit TS [fence TS] [previous]: ITEM; ITEM; ...
//!       if exists K | if absent K | if version K N | if modified K TS | if value K V
//!       put K V [lease N] | delete K | delete_range START END
//! > raw BYTE BYTE ...            a command of these bytes, in hexadecimal
//! > get K [at TS]
//! > scan START END [limit N] [bytes N] [reverse] [keys] [at TS]
//! > dump                         every stored record
//! ```
//!
//! `-` is an empty key or value, `x*600` is 600 times x, `\x00` is a zero byte.

mod support;

use std::fmt::Write;
use std::path::Path;

use bytes::Bytes;
use rangedb_proto::v1::condition::Test;
use rangedb_proto::v1::{
    CommandReply, CommitOneRange, Condition, Delete, DeleteRange, KeyValue, Put, command_reply,
    operation,
};
use rangedb_storage::{ColumnFamily, Direction, HistoryRecord, Record, RecordValue, keys};
use rangedb_txn::{Locks, ReadAt, ScanRequest};
use support::{Entry, Replica, get_unlocked, operation, scan_unlocked};

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

/// The script with its steps carried out and their answers written down.
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
    let mut words = Words(head.split_whitespace().collect());
    match words.take() {
        "range" => {
            *replica = Replica::new(&words.bytes(), &words.bytes());
            String::new()
        }
        "restart" => {
            replica.restart();
            String::new()
        }
        "commit" => commit(replica, words, items),
        "raw" => {
            let byte = |word: &&str| u8::from_str_radix(word, 16).unwrap();
            let command = words.0.iter().map(byte).collect::<Vec<_>>().into();
            show_reply(&replica.apply(&[Entry { command, fence: 0 }])[0])
        }
        "get" => {
            let key = words.bytes();
            let kv = get_unlocked(&replica.state, &key, words.at());
            kv.map_or("no value".into(), |kv| show(&kv))
        }
        "scan" => run_scan(replica, words),
        "dump" => dump(replica),
        other => panic!("no step is called {other:?}"),
    }
}

/// Words of a step, taken from the front or by name.
struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    fn take(&mut self) -> &'a str {
        self.0.remove(0)
    }

    fn bytes(&mut self) -> Bytes {
        match self.take() {
            "-" => Bytes::new(),
            word => match word.split_once('*') {
                Some((byte, times)) => byte.repeat(times.parse().unwrap()).into(),
                None => word.replace("\\x00", "\0").into(),
            },
        }
    }

    fn number(&mut self) -> u64 {
        self.take().parse().unwrap()
    }

    fn flag(&mut self, name: &str) -> bool {
        let place = self.0.iter().position(|word| *word == name);
        place.map(|place| self.0.remove(place)).is_some()
    }

    /// The number behind a name, 0 if the name is not there.
    fn named(&mut self, name: &str) -> u64 {
        match self.0.iter().position(|word| *word == name) {
            None => 0,
            Some(place) => {
                self.0.remove(place);
                self.0.remove(place).parse().unwrap()
            }
        }
    }

    fn at(&mut self) -> ReadAt {
        ReadAt::from_read_ts(self.named("at"))
    }
}

fn commit(replica: &mut Replica, mut head: Words<'_>, items: &str) -> String {
    let fence = head.named("fence");
    let return_previous = head.flag("previous");
    let mut commit =
        CommitOneRange { start_ts: head.number(), return_previous, ..Default::default() };
    for item in items.split("; ").filter(|item| !item.is_empty()) {
        let mut words = Words(item.split_whitespace().collect());
        if words.flag("if") {
            let kind = words.take();
            let key = words.bytes();
            let test = match kind {
                "exists" => Test::Exists(true),
                "absent" => Test::Exists(false),
                "version" => Test::Version(words.number()),
                "modified" => Test::ModTs(words.number()),
                "value" => Test::Value(words.bytes()),
                other => panic!("no condition is called {other:?}"),
            };
            commit.conditions.push(Condition { key, test: Some(test) });
        } else {
            let body = match words.take() {
                "put" => {
                    let lease_id = words.named("lease");
                    operation::Body::Put(Put { key: words.bytes(), value: words.bytes(), lease_id })
                }
                "delete" => operation::Body::Delete(Delete { key: words.bytes() }),
                "delete_range" => {
                    let (start_key, end_key) = (words.bytes(), words.bytes());
                    operation::Body::DeleteRange(DeleteRange { start_key, end_key })
                }
                other => panic!("no operation is called {other:?}"),
            };
            commit.operations.push(operation(body));
        }
    }
    show_reply(&replica.apply(&[Entry::new(&commit, fence)])[0])
}

fn show_reply(reply: &CommandReply) -> String {
    match reply.body.as_ref().unwrap() {
        command_reply::Body::Committed(committed) => {
            let repeated = if committed.repeated_command { ", repeated" } else { "" };
            let mut out = format!("committed at {}{repeated}\n", committed.commit_ts);
            for (place, result) in committed.results.iter().enumerate() {
                if result.deleted > 0 {
                    writeln!(out, "operation {place}: deleted {}", result.deleted).unwrap();
                }
                if let Some(previous) = &result.previous {
                    writeln!(out, "operation {place}: replaced {}", show(previous)).unwrap();
                }
            }
            out
        }
        command_reply::Body::ConditionFailed(failed) => {
            let actual = failed.actual.as_ref().map_or("no value".into(), show);
            format!("condition {} failed: {actual}", failed.index)
        }
        command_reply::Body::Invalid(reason) => format!("invalid: {reason}"),
        other => panic!("no command answers {other:?}"),
    }
}

fn run_scan(replica: &Replica, mut words: Words<'_>) -> String {
    let request = ScanRequest {
        at: words.at(),
        limit: words.named("limit"),
        bytes_max: words.named("bytes"),
        direction: if words.flag("reverse") { Direction::Reverse } else { Direction::Forward },
        keys_only: words.flag("keys"),
        start: words.bytes(),
        end: words.bytes(),
        locks: Locks::Ignored,
    };
    let page = scan_unlocked(&replica.state, &request);
    let mut out = String::new();
    for kv in &page.kvs {
        writeln!(out, "{}", show(kv)).unwrap();
    }
    match page.next {
        Some(key) => writeln!(out, "next page from {}", show_bytes(&key)).unwrap(),
        None => writeln!(out, "no more").unwrap(),
    }
    out
}

fn show(kv: &KeyValue) -> String {
    let KeyValue { version, create_ts, mod_ts, .. } = kv;
    let lease = if kv.lease_id == 0 { String::new() } else { format!(", lease {}", kv.lease_id) };
    let (key, value) = (show_bytes(&kv.key), show_bytes(&kv.value));
    format!("{key} = {value} (version {version}, created {create_ts}, modified {mod_ts}{lease})")
}

fn show_bytes(bytes: &[u8]) -> String {
    match bytes {
        [] => "-".into(),
        [first, rest @ ..] if bytes.len() > 20 && rest.iter().all(|byte| byte == first) => {
            format!("{}*{}", first.escape_ascii(), bytes.len())
        }
        _ => bytes.escape_ascii().to_string(),
    }
}

fn dump(replica: &Replica) -> String {
    let mut out = String::new();
    for (cf, key, value) in replica.records() {
        let line = match cf {
            ColumnFamily::Current => {
                let key = keys::parse_user_key(&key).unwrap();
                format!("{} {}", show_bytes(&key), show_record(&Record::decode(&value).unwrap()))
            }
            ColumnFamily::History => {
                let (key, _) = keys::parse_history(&key).unwrap();
                let HistoryRecord { record, end_ts } = HistoryRecord::decode(&value).unwrap();
                format!("{} {}, until {end_ts}", show_bytes(&key), show_record(&record))
            }
            ColumnFamily::Value => {
                let (key, start_ts) = keys::parse_value(&key).unwrap();
                format!("{} start {start_ts}: {}", show_bytes(&key), show_bytes(&value))
            }
            _ => {
                let last_commit_ts = u64::from_be_bytes(value[1..].try_into().unwrap());
                format!("{}: last commit {last_commit_ts}", show_bytes(&key))
            }
        };
        writeln!(out, "{:8}{line}", cf.name()).unwrap();
    }
    out
}

fn show_record(record: &Record) -> String {
    let Record { mod_ts, start_ts, create_ts, version, .. } = record;
    let value = match &record.value {
        RecordValue::Deleted => return format!("deleted at {mod_ts} (start {start_ts})"),
        RecordValue::Inline(value) => show_bytes(value),
        RecordValue::Reference { bytes } => format!("[{bytes} bytes apart]"),
    };
    format!("= {value} at {mod_ts} (start {start_ts}, version {version}, created {create_ts})")
}
