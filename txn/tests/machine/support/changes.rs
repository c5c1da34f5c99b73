//! Rows and locks of a range as a listener to its changes knows them.

use std::collections::BTreeMap;

use bytes::Bytes;
use rangedb_storage::{
    Change, ColumnFamily, Direction, MemState, RangeSize, Reader, Record, RecordValue, encoding,
    keys,
};

/// The changes of every entry so far, and what they add up to.
#[derive(Default)]
pub struct Listener {
    entries: Vec<Vec<Change>>,
    rows: BTreeMap<Bytes, Record>,
    /// start_ts of the transaction that has a lock.
    locks: BTreeMap<Bytes, u64>,
}

impl Listener {
    /// Takes in the changes of an entry that is applied for the first time.
    pub fn listen(&mut self, changes: Vec<Change>) {
        for change in &changes {
            match change.clone() {
                Change::Version { key, before, after } => {
                    let known = match after.is_deleted() {
                        true => self.rows.remove(&key),
                        false => self.rows.insert(key, after),
                    };
                    let before = before.filter(|before| !before.is_deleted());
                    assert_eq!(known, before, "the superseded version of {change:?}");
                }
                Change::Locked { key, start_ts, .. } => {
                    let known = self.locks.insert(key, start_ts);
                    assert!(known.is_none_or(|known| known == start_ts), "{known:?}: {change:?}");
                }
                Change::Unlocked { key, start_ts } => {
                    assert_eq!(self.locks.remove(&key), Some(start_ts), "{change:?}");
                }
            }
        }
        self.entries.push(changes);
    }

    /// Checks the changes of entries that are applied once more, from this number of entries on.
    pub fn check_repeated(&self, from: usize, changes: &[Vec<Change>]) {
        assert_eq!(changes, &self.entries[from..][..changes.len()], "from entry {from}");
    }

    /// Checks that the state holds the rows and locks that the changes add up to, and that the
    /// machine knows their size.
    pub fn check(&self, state: &MemState, size: RangeSize) {
        let (mut rows, mut locks) = (BTreeMap::new(), BTreeMap::new());
        let mut bytes = 0;
        let mut records = state.scan(ColumnFamily::Current, b"", b"", Direction::Forward).unwrap();
        while let Some((key, stored)) = records.next().unwrap() {
            let (key, record) = (keys::parse_user_key(key).unwrap(), Record::decode_slice(stored));
            let record = record.unwrap();
            bytes += match &record.value {
                RecordValue::Inline(value) => (key.len() + value.len()) as u64,
                RecordValue::Reference { bytes } => key.len() as u64 + bytes,
                RecordValue::Deleted => continue,
            };
            rows.insert(key, record);
        }
        let mut records = state.scan(ColumnFamily::Lock, b"", b"", Direction::Forward).unwrap();
        while let Some((key, stored)) = records.next().unwrap() {
            let Ok((key, [])) = encoding::unescape(key) else { continue };
            // Format, kind, and then start_ts.
            let start_ts = u64::from_be_bytes(stored[2..10].try_into().unwrap());
            locks.insert(Bytes::from(key), start_ts);
        }
        assert_eq!(self.rows, rows);
        assert_eq!(self.locks, locks);
        assert_eq!(size, RangeSize { rows: rows.len() as u64, bytes });
    }
}
