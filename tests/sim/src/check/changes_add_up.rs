//! The changes that commands report add up to the rows of the state. A change feed stands on this:
//! whoever listens from the beginning knows every row.

use std::collections::BTreeMap;

use bytes::Bytes;
use rangedb_proto::RangeId;
use rangedb_storage::{Change, ColumnFamily, Direction, Reader, Record, Span, keys};

use super::Verdict;

#[derive(Default)]
pub struct ChangesAddUp {
    ranges: BTreeMap<RangeId, Listener>,
}

/// Rows of a range as a listener to its changes knows them.
#[derive(Default)]
struct Listener {
    /// Changes by entry and command that are not in `rows` yet.
    waiting: BTreeMap<(u64, usize), Vec<Change>>,
    /// Last entry that is in `rows`.
    index: u64,
    /// Commit timestamp of each row.
    rows: BTreeMap<Bytes, u64>,
}

impl ChangesAddUp {
    /// Takes in the changes of a command, which any replica may report any number of times.
    pub fn applied(&mut self, range: RangeId, place: (u64, usize), changes: &[Change]) {
        let listener = self.ranges.entry(range).or_default();
        if place.0 > listener.index && !changes.is_empty() {
            listener.waiting.entry(place).or_insert_with(|| changes.to_vec());
        }
    }

    /// Compares the rows of a replica that stands at `applied` with those that the changes add up
    /// to, unless a replica further ahead was compared before.
    pub fn stands(
        &mut self,
        range: RangeId,
        applied: u64,
        state: &dyn Reader,
        span: &Span,
    ) -> rangedb_storage::Result<Verdict> {
        let listener = self.ranges.entry(range).or_default();
        if applied < listener.index {
            return Ok(Ok(()));
        }
        listener.advance(applied);
        let mut rows = BTreeMap::new();
        let (start, end) = (&span.start, &span.end);
        let mut records = state.scan(ColumnFamily::Current, start, end, Direction::Forward)?;
        while let Some((key, stored)) = records.next()? {
            let record = Record::decode_slice(stored)?;
            if !record.is_deleted() {
                rows.insert(keys::parse_user_key(key)?, record.mod_ts);
            }
        }
        let differs = |key: &&Bytes| listener.rows.get(*key) != rows.get(*key);
        Ok(match listener.rows.keys().chain(rows.keys()).find(differs) {
            None => Ok(()),
            Some(key) => Err(format!(
                "by the changes up to entry {applied} of {range}, key \"{}\" is of {:?}, and {:?} \
                 in the state",
                key.escape_ascii(),
                listener.rows.get(key),
                rows.get(key)
            )),
        })
    }
}

impl Listener {
    fn advance(&mut self, index: u64) {
        let later = self.waiting.split_off(&(index + 1, 0));
        for change in std::mem::replace(&mut self.waiting, later).into_values().flatten() {
            match change {
                Change::Version { key, after, .. } if after.is_deleted() => {
                    self.rows.remove(&key);
                }
                Change::Version { key, after, .. } => {
                    self.rows.insert(key, after.mod_ts);
                }
                Change::Locked { .. } | Change::Unlocked { .. } => {}
            }
        }
        self.index = index;
    }
}

#[cfg(test)]
mod tests {
    use rangedb_storage::{MemState, RecordValue, StateEngine, WriteBatch};

    use super::*;

    fn version(mod_ts: u64, value: RecordValue) -> Change {
        let after =
            Record { mod_ts, start_ts: mod_ts, create_ts: mod_ts, version: 1, lease_id: 0, value };
        Change::Version { key: "k".into(), before: None, after }
    }

    #[test]
    fn a_row_that_no_change_tells_of_and_a_change_without_its_row_are_caught() {
        let put = version(5, RecordValue::Inline("v".into()));
        let Change::Version { after, .. } = &put else { unreachable!() };
        let (empty, state) = (MemState::new(), MemState::new());
        let mut batch = WriteBatch::default();
        batch.put(ColumnFamily::Current, keys::current(b"k"), after.encode());
        state.write(batch).unwrap();
        let range = RangeId(1);
        let all = Span::everything();

        let mut changes = ChangesAddUp::default();
        assert!(changes.stands(range, 6, &state, &all).unwrap().is_err(), "unreported");
        let mut changes = ChangesAddUp::default();
        changes.applied(range, (7, 1), std::slice::from_ref(&put));
        assert_eq!(changes.stands(range, 6, &empty, &all).unwrap(), Ok(()));
        assert_eq!(changes.stands(range, 7, &state, &all).unwrap(), Ok(()));
        assert_eq!(changes.stands(range, 6, &empty, &all).unwrap(), Ok(()), "one that is behind");
        assert!(changes.stands(range, 7, &empty, &all).unwrap().is_err(), "without its row");
        changes.applied(range, (7, 1), std::slice::from_ref(&put));
        changes.applied(range, (8, 1), &[version(8, RecordValue::Deleted)]);
        assert_eq!(changes.stands(range, 8, &empty, &all).unwrap(), Ok(()));
    }
}
