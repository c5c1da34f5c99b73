//! Text of replies and stored records, as in the scripts.

use std::fmt::Write;

use bytes::Bytes;
use rangedb_proto::v1::transaction_status::State;
use rangedb_proto::v1::{
    CommandReply, GarbageCollected, KeyLocked, KeyValue, LockInfo, TransactionStatus,
    WriteConflict, command_reply::Body,
};
use rangedb_storage::keys::{self, HistoryKey};
use rangedb_storage::{ColumnFamily, HistoryRecord, Record, RecordValue, StartRecord, encoding};
use rangedb_txn::{GarbageAhead, Page, ReadOutcome, ResumeAt, ValidateOutcome};

use crate::support::Replica;

pub fn show_reply(reply: &CommandReply) -> String {
    match reply.body.as_ref().unwrap() {
        Body::Committed(committed) => {
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
        Body::ConditionFailed(failed) => {
            let actual = failed.actual.as_ref().map_or("no value".into(), show);
            format!("condition {} failed: {actual}", failed.index)
        }
        Body::Invalid(reason) => format!("invalid: {reason}"),
        Body::Prewritten(written) => {
            let how = if written.async_commit { "by itself " } else { "" };
            format!("prewritten, commits {how}from {}", written.min_commit_ts)
        }
        Body::Locked(locked) => show_locked(locked),
        Body::WriteConflict(conflict) => show_conflict(conflict),
        Body::Aborted(aborted) => format!("aborted: rolled back at {}", show_bytes(&aborted.key)),
        Body::TransactionStatus(status) => show_status(status),
        Body::CommitTooLow(low) => format!("too low: commits from {}", low.min_commit_ts),
        Body::Resolved(resolved) => {
            format!("resolved {}{}", resolved.keys, show_resume(&resolved.resume_key))
        }
        Body::GarbageCollected(collected) => {
            let GarbageCollected { floor_ts, dropped, resume_key } = collected;
            format!("floor {floor_ts}, dropped {dropped}{}", show_resume(resume_key))
        }
        Body::TooOld(old) => show_too_old(old.floor_ts),
        Body::TooLarge(large) => format!("too large: {} over {}", large.what, large.limit),
        Body::Damaged(damaged) => format!("damaged: {}", damaged.what),
        Body::LocksAcquired(acquired) => {
            let mut out = format!("locked as of {}\n", acquired.for_update_ts);
            for kv in &acquired.current {
                match kv.version {
                    0 => writeln!(out, "{} has no value", show_bytes(&kv.key)).unwrap(),
                    _ => writeln!(out, "{}", show(kv)).unwrap(),
                }
            }
            out
        }
    }
}

fn show_resume(key: &[u8]) -> String {
    if key.is_empty() { String::new() } else { format!(", go on at {}", show_bytes(key)) }
}

fn show_too_old(floor_ts: u64) -> String {
    format!("too old: the floor is {floor_ts}")
}

pub fn show_locks((locks, next): &(Vec<LockInfo>, Option<Bytes>)) -> String {
    let mut out = String::new();
    for lock in locks {
        let kind = lock.kind().as_str_name();
        let LockInfo { start_ts, alive_until_ms, min_commit_ts, for_update_ts, .. } = lock;
        let (key, primary) = (show_bytes(&lock.key), show_bytes(&lock.primary));
        write!(
            out,
            "{key} {kind} by {start_ts}, primary {primary}, alive until {alive_until_ms} ms, commits \
             from {min_commit_ts}, for update {for_update_ts}"
        )
        .unwrap();
        if lock.async_commit {
            let others: Vec<_> = lock.secondaries.iter().map(|key| show_bytes(key)).collect();
            write!(out, ", by itself with [{}]", others.join(" ")).unwrap();
        }
        writeln!(out).unwrap();
    }
    match next {
        Some(key) => writeln!(out, "go on at {}", show_bytes(key)).unwrap(),
        None => writeln!(out, "no more").unwrap(),
    }
    out
}

pub fn show_ahead(ahead: &GarbageAhead) -> String {
    let worth = match &ahead.worth {
        Some((start, end)) => {
            format!("worth it from {} to {}", show_bytes(start), show_bytes(end))
        }
        None => "nothing".into(),
    };
    worth + &show_resume(ahead.next.as_deref().unwrap_or_default())
}

fn show_locked(locked: &KeyLocked) -> String {
    let KeyLocked { key, primary, start_ts, alive_until_ms } = locked;
    let (key, primary) = (show_bytes(key), show_bytes(primary));
    format!("{key} is locked by {start_ts} (primary {primary}, alive until {alive_until_ms} ms)")
}

fn show_conflict(conflict: &WriteConflict) -> String {
    let WriteConflict { key, winner_start_ts, winner_commit_ts } = conflict;
    let key = show_bytes(key);
    format!("conflict: {key} was written by {winner_start_ts}, committed at {winner_commit_ts}")
}

fn show_status(status: &TransactionStatus) -> String {
    let TransactionStatus { commit_ts, alive_until_ms, min_commit_ts, .. } = status;
    match status.state() {
        State::Alive if status.async_commit => {
            let mut out =
                format!("perhaps committed, from {min_commit_ts} (until {alive_until_ms} ms)");
            for key in &status.secondaries {
                write!(out, "; ask {}", show_bytes(key)).unwrap();
            }
            out
        }
        State::Alive => format!("alive until {alive_until_ms} ms, commits from {min_commit_ts}"),
        State::Committed => format!("was committed at {commit_ts}"),
        State::RolledBack => "was rolled back".into(),
    }
}

pub fn show_validated(outcome: &ValidateOutcome) -> String {
    match outcome {
        ValidateOutcome::Unchanged => "as it was read".into(),
        ValidateOutcome::Conflict(conflict) => show_conflict(conflict),
        ValidateOutcome::Locked(locked) => show_locked(locked),
        ValidateOutcome::Unfinished(ResumeAt { read, key }) => {
            format!("as it was read{}, in read {read}", show_resume(key))
        }
        ValidateOutcome::TooOld { floor_ts } => show_too_old(*floor_ts),
    }
}

pub fn show_read<T>(outcome: &ReadOutcome<T>, show: impl FnOnce(&T) -> String) -> String {
    match outcome {
        ReadOutcome::Value(value) => show(value),
        ReadOutcome::Locked(locked) => show_locked(locked),
        ReadOutcome::TooOld { floor_ts } => show_too_old(*floor_ts),
    }
}

pub fn show_page(page: &Page) -> String {
    let mut out = String::new();
    for kv in &page.kvs {
        writeln!(out, "{}", show(kv)).unwrap();
    }
    match &page.next {
        Some(key) => writeln!(out, "next page from {}", show_bytes(key)).unwrap(),
        None => writeln!(out, "no more").unwrap(),
    }
    out
}

pub fn show(kv: &KeyValue) -> String {
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

/// Shows every stored record.
pub fn dump(replica: &Replica) -> String {
    let mut out = String::new();
    for (cf, key, value) in replica.records() {
        let line = match cf {
            ColumnFamily::Current => {
                let key = keys::parse_user_key(&key).unwrap();
                format!("{} {}", show_bytes(&key), show_record(&Record::decode(&value).unwrap()))
            }
            ColumnFamily::History => match keys::parse_history_key(&key).unwrap() {
                HistoryKey::Version { user_key, .. } => {
                    let HistoryRecord { record, end_ts } = HistoryRecord::decode(&value).unwrap();
                    format!("{} {}, until {end_ts}", show_bytes(&user_key), show_record(&record))
                }
                HistoryKey::ByStart { user_key, start_ts } => {
                    let StartRecord { end_ts, mod_ts } = StartRecord::decode(&value).unwrap();
                    let key = show_bytes(&user_key);
                    format!("{key} start {start_ts} wrote that of {mod_ts}, until {end_ts}")
                }
            },
            ColumnFamily::Value => {
                let (key, start_ts) = keys::parse_value(&key).unwrap();
                format!("{} start {start_ts}: {}", show_bytes(&key), show_bytes(&value))
            }
            _ => show_lock_record(&key, &value),
        };
        writeln!(out, "{:8}{line}", cf.name()).unwrap();
    }
    out
}

/// Decodes the record by the drawings of the storage format, independently of the code under test.
fn show_lock_record(stored_key: &[u8], value: &[u8]) -> String {
    let number = |place: usize| u64::from_be_bytes(value[place..place + 8].try_into().unwrap());
    let (key, behind) = encoding::unescape(stored_key).unwrap();
    let key = show_bytes(&key);
    match behind {
        b"range" => {
            let mut out = format!("{}: last commit {}", show_bytes(stored_key), number(1));
            if number(9) > 0 {
                let (floor, below) = (number(9), number(17));
                write!(out, ", floor {floor}, collected below {below}").unwrap();
            }
            write!(out, ", {} rows of {} bytes", number(25), number(33)).unwrap();
            out
        }
        [b'r', start_ts @ ..] => {
            let start_ts = u64::from_be_bytes(start_ts.try_into().unwrap());
            match number(1) {
                0 => format!("{key} {start_ts} was rolled back"),
                commit_ts => format!("{key} {start_ts} was committed at {commit_ts}"),
            }
        }
        [] => {
            let mut rest = &value[34..];
            let primary = take_key(&mut rest);
            let mut how = String::new();
            let (commit, behind) = rest.split_first().unwrap();
            rest = behind;
            if *commit == 1 {
                how.push_str(", by itself with");
                let count = take_length(&mut rest);
                (0..count)
                    .for_each(|_| write!(how, " {}", show_bytes(take_key(&mut rest))).unwrap());
            }
            let body = rest;
            let kind = match value[1] {
                0 => "deletes".into(),
                1 => format!("puts {}", show_bytes(&body[8..])),
                2 => format!(
                    "puts [{} bytes apart]",
                    u64::from_be_bytes(body[8..].try_into().unwrap())
                ),
                3 => "locks".into(),
                other => panic!("no lock is of kind {other}"),
            };
            let (start_ts, min_commit_ts, alive) = (number(2), number(10), number(18));
            let primary = show_bytes(primary);
            format!(
                "{key} {start_ts} {kind} (commits from {min_commit_ts}, primary {primary}, \
                 alive until {alive} ms, for update {}{how})",
                number(26)
            )
        }
        other => panic!("nothing stands at {other:?}"),
    }
}

fn take_length(bytes: &mut &[u8]) -> usize {
    let (length, rest) = bytes.split_first_chunk().unwrap();
    *bytes = rest;
    usize::from(u16::from_be_bytes(*length))
}

fn take_key<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let (key, rest) = {
        let length = take_length(bytes);
        bytes.split_at(length)
    };
    *bytes = rest;
    key
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
