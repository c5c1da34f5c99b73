//! Versions of a key, as they stand in `current`, `history` and `value`.
//!
//! At any timestamp at most one version of a key is visible. The version in `current` is visible
//! from its mod_ts on. A version in `history` is visible from its mod_ts up to, but not at, its
//! end_ts. Deletions are versions too; the functions here return them.

use bytes::Bytes;
use rangedb_proto::Timestamp;
use rangedb_proto::v1::{KeyValue, WriteConflict};
use rangedb_storage::{
    Batch, ColumnFamily, Direction, Error, HistoryRecord, Reader, Record, RecordValue, Records,
    Result, StartRecord, keys,
};

use crate::garbage::is_spent;
use crate::read::ReadAt;

/// Returns the newest version of the key.
pub(crate) fn current(reader: &dyn Reader, key: &[u8]) -> Result<Option<Record>> {
    match reader.get(ColumnFamily::Current, &keys::current(key))? {
        None => Ok(None),
        Some(stored) => at_key(key, Record::decode(&stored)).map(Some),
    }
}

/// Adds the key to the error of a damaged record.
pub(crate) fn at_key<T>(key: &[u8], decoded: Result<T>) -> Result<T> {
    decoded.map_err(|error| match error {
        Error::Damaged(what) => Error::Damaged(format!("key \"{}\": {what}", key.escape_ascii())),
        error => error,
    })
}

/// Returns the version of the key that a read at `at` sees.
pub(crate) fn visible(reader: &dyn Reader, key: &[u8], at: ReadAt) -> Result<Option<Record>> {
    match current(reader, key)? {
        None => Ok(None),
        Some(current) => visible_below(reader, key, current, at),
    }
}

/// Does the same as [`visible`], with the key's newest version at hand.
fn visible_below(
    reader: &dyn Reader,
    key: &[u8],
    current: Record,
    at: ReadAt,
) -> Result<Option<Record>> {
    match at {
        ReadAt::Timestamp(ts) if ts.0 < current.mod_ts => {
            let span = keys::history_until(key, ts.0);
            let mut records =
                reader.scan(ColumnFamily::History, &span.start, &span.end, Direction::Forward)?;
            let Some((_, stored)) = records.next()? else { return Ok(None) };
            let superseded = at_key(key, HistoryRecord::decode_slice(stored))?;
            Ok((superseded.end_ts > ts.0).then_some(superseded.record))
        }
        ReadAt::Latest | ReadAt::Timestamp(_) => Ok(Some(current)),
    }
}

/// Returns the commit timestamp of the version that the command of `start_ts` wrote to the key.
/// Returns `None` if the command wrote none, and also if no read from `collect_below` on needs the
/// version: such a version may be gone. `current` is the key's newest version. Takes one lookup,
/// however many versions the key has.
pub(crate) fn written_at(
    reader: &dyn Reader,
    key: &[u8],
    current: Option<&Record>,
    start_ts: u64,
    collect_below: u64,
) -> Result<Option<u64>> {
    match current {
        Some(current) if current.start_ts == start_ts => {
            Ok((!is_spent(current, collect_below)).then_some(current.mod_ts))
        }
        // A commit is never older than its start.
        Some(current) if current.mod_ts >= start_ts => {
            let stored = reader.get(ColumnFamily::History, &keys::by_start(key, start_ts))?;
            let found =
                stored.map(|stored| at_key(key, StartRecord::decode(&stored))).transpose()?;
            Ok(found.filter(|found| found.end_ts >= collect_below).map(|found| found.mod_ts))
        }
        _ => Ok(None),
    }
}

/// Returns the version of the key that was committed at this timestamp.
pub(crate) fn committed_at(
    reader: &dyn Reader,
    key: &[u8],
    commit_ts: u64,
) -> Result<Option<Record>> {
    match current(reader, key)? {
        Some(current) if current.mod_ts == commit_ts => Ok(Some(current)),
        Some(current) if current.mod_ts > commit_ts => {
            let stored = reader.get(ColumnFamily::History, &keys::history(key, commit_ts))?;
            let superseded = stored.map(|stored| at_key(key, HistoryRecord::decode(&stored)));
            let superseded = superseded.transpose()?;
            Ok(superseded.map(|superseded| superseded.record))
        }
        _ => Ok(None),
    }
}

/// Returns the newest version of the key that was committed above `after`, at or below `until`, and
/// by another transaction than `start_ts`. `current` is the key's newest version of all. Looks at
/// three versions at most, because a transaction wrote one of them at most.
pub(crate) fn newest_between(
    reader: &dyn Reader,
    key: &[u8],
    current: Record,
    (after, until): (u64, u64),
    start_ts: u64,
) -> Result<Option<Record>> {
    if current.mod_ts <= after {
        return Ok(None);
    }
    let is_sought = |record: &Record| record.mod_ts <= until && record.start_ts != start_ts;
    if is_sought(&current) {
        return Ok(Some(current));
    }
    let newest = keys::history(key, until.min(Timestamp::MAX.0));
    let end = keys::history(key, after);
    let mut records = reader.scan(ColumnFamily::History, &newest, &end, Direction::Forward)?;
    while let Some((_, stored)) = records.next()? {
        let record = at_key(key, HistoryRecord::decode_slice(stored))?.record;
        if is_sought(&record) {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// Checks that a commit at this timestamp may supersede the version `before`.
///
/// # Errors
///
/// [`Error::Damaged`] if that version is not older. Commit timestamps only rise, so either the
/// range record or the version is damaged.
pub(crate) fn check_order(key: &[u8], before: Option<&Record>, commit_ts: u64) -> Result<()> {
    match before {
        Some(Record { mod_ts, .. }) if *mod_ts >= commit_ts => {
            let key = key.escape_ascii();
            let reason = format!("a commit at {commit_ts} over \"{key}\" of {mod_ts}");
            Err(Error::damaged(reason))
        }
        _ => Ok(()),
    }
}

/// Puts a version in `current`, and moves the version `before` from there to the history. A spent
/// one needs no history: the caller passes `None` for it.
pub(crate) fn supersede(
    batch: &mut Batch<'_>,
    key: &[u8],
    before: Option<&Record>,
    after: &Record,
) {
    if let Some(before) = before {
        let (mod_ts, start_ts, end_ts) = (before.mod_ts, before.start_ts, after.mod_ts);
        let superseded = HistoryRecord { record: before.clone(), end_ts };
        batch.put(ColumnFamily::History, keys::history(key, mod_ts), superseded.encode());
        let by_start = StartRecord { end_ts, mod_ts };
        batch.put(ColumnFamily::History, keys::by_start(key, start_ts), by_start.encode());
    }
    batch.put(ColumnFamily::Current, keys::current(key), after.encode());
}

/// Returns the version with its value, which may stand apart from it.
pub(crate) fn key_value(reader: &dyn Reader, key: Bytes, record: &Record) -> Result<KeyValue> {
    let value = match &record.value {
        RecordValue::Inline(value) => value.clone(),
        RecordValue::Reference { bytes } => {
            let stored = reader.get(ColumnFamily::Value, &keys::value(&key, record.start_ts))?;
            stored.filter(|value| value.len() as u64 == *bytes).ok_or_else(|| {
                let key = key.escape_ascii();
                Error::damaged(format!("the value of \"{key}\" at {} is not there", record.mod_ts))
            })?
        }
        RecordValue::Deleted => panic!("a deleted version has no value"),
    };
    Ok(KeyValue { value, ..key_value_without_value(key, record) })
}

/// Returns the write conflict with the version `winner`.
pub(crate) fn conflict(key: &[u8], winner: &Record) -> WriteConflict {
    WriteConflict {
        key: Bytes::copy_from_slice(key),
        winner_start_ts: winner.start_ts,
        winner_commit_ts: winner.mod_ts,
    }
}

/// Returns the version without its value.
pub(crate) fn key_value_without_value(key: Bytes, record: &Record) -> KeyValue {
    KeyValue {
        key,
        value: Bytes::new(),
        version: record.version,
        create_ts: record.create_ts,
        mod_ts: record.mod_ts,
        lease_id: record.lease_id,
    }
}

/// Returns the length of the version's value in bytes, without reading it.
pub(crate) fn value_bytes(record: &Record) -> usize {
    match &record.value {
        RecordValue::Inline(value) => value.len(),
        RecordValue::Reference { bytes } => *bytes as usize,
        RecordValue::Deleted => 0,
    }
}

/// Returns the bytes of the version's value that stand in its record.
pub(crate) fn inline_bytes(record: &Record) -> usize {
    match &record.value {
        RecordValue::Inline(value) => value.len(),
        RecordValue::Reference { .. } | RecordValue::Deleted => 0,
    }
}

/// Walk over the keys of a span that have, or had, a version.
///
/// It follows `current` alone, where every such key has a record. It looks into `history` only for
/// keys that were written after the walk's timestamp.
pub(crate) struct Walk<'a> {
    reader: &'a dyn Reader,
    records: Box<dyn Records + 'a>,
    at: ReadAt,
    /// Deletions from below this timestamp are passed over, as if they were absent.
    collect_below: u64,
    /// Newest commit timestamp that was walked over, deletions included.
    newest_ts: u64,
}

impl<'a> Walk<'a> {
    /// Begins a walk over user keys `[start, end)`; an empty end has no end.
    pub(crate) fn new(
        reader: &'a dyn Reader,
        (start, end): (&[u8], &[u8]),
        direction: Direction,
        at: ReadAt,
    ) -> Result<Self> {
        let span = keys::data_span(start, end);
        let records = reader.scan(ColumnFamily::Current, &span.start, &span.end, direction)?;
        Ok(Walk { reader, records, at, collect_below: 0, newest_ts: 0 })
    }

    /// Passes over deletions that compaction may have dropped on some replicas. For walks that
    /// decide something at apply.
    pub(crate) fn without_spent(self, collect_below: u64) -> Self {
        Walk { collect_below, ..self }
    }

    /// Returns the next key, and its version if it has a value at the walk's timestamp.
    pub(crate) fn next(&mut self) -> Result<Option<(Bytes, Option<Record>)>> {
        let Some((key, current)) = self.next_newest()? else { return Ok(None) };
        self.newest_ts = self.newest_ts.max(current.mod_ts);
        let visible = visible_below(self.reader, &key, current, self.at)?;
        Ok(Some((key, visible.filter(|record| !record.is_deleted()))))
    }

    /// Returns the newest commit timestamp that [`Walk::next`] walked over, deletions included.
    pub(crate) fn newest_ts(&self) -> u64 {
        self.newest_ts
    }

    /// Returns the next key and its newest version, regardless of the walk's timestamp.
    pub(crate) fn next_newest(&mut self) -> Result<Option<(Bytes, Record)>> {
        while let Some((stored_key, stored)) = self.records.next()? {
            let record = match Record::decode_slice(stored) {
                Ok(record) => record,
                damaged => at_key(&keys::parse_user_key(stored_key)?, damaged)?,
            };
            if !is_spent(&record, self.collect_below) {
                return Ok(Some((keys::parse_user_key(stored_key)?, record)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use rangedb_storage::{MemState, StateEngine, WriteBatch};

    use super::*;

    fn record(mod_ts: u64) -> Record {
        let value = RecordValue::Inline("x".into());
        Record { mod_ts, start_ts: mod_ts, create_ts: mod_ts, version: 1, lease_id: 0, value }
    }

    /// State that garbage collection may leave of put at 5, deleted at 8, put at 12: the deletion
    /// is dropped before the version below it.
    #[test]
    fn a_version_is_not_seen_beyond_its_end_even_if_the_next_one_is_gone() {
        let state = MemState::new();
        let mut batch = WriteBatch::default();
        batch.put(ColumnFamily::Current, keys::current(b"a"), record(12).encode());
        let superseded = HistoryRecord { record: record(5), end_ts: 8 };
        batch.put(ColumnFamily::History, keys::history(b"a", 5), superseded.encode());
        state.write(batch).unwrap();
        let seen = |ts| {
            let at = ReadAt::Timestamp(Timestamp(ts));
            visible(&state, b"a", at).unwrap().map(|record| record.mod_ts)
        };
        assert_eq!([4, 5, 7, 8, 11, 12].map(seen), [None, Some(5), Some(5), None, None, Some(12)]);
    }

    #[test]
    fn a_value_that_is_not_where_its_record_says_is_damage() {
        let state = MemState::new();
        let apart = Record { value: RecordValue::Reference { bytes: 600 }, ..record(5) };
        let read = || key_value(&state, "a".into(), &apart).map(|kv| kv.value.len());
        assert!(matches!(read(), Err(Error::Damaged(_))), "nothing is there");
        for (bytes, sound) in [(599, false), (600, true)] {
            let mut batch = WriteBatch::default();
            batch.put(ColumnFamily::Value, keys::value(b"a", 5), vec![b'x'; bytes]);
            state.write(batch).unwrap();
            assert_eq!(read().is_ok(), sound, "{bytes} bytes are there");
        }
    }
}
