//! Walk over the locks of a span.
//!
//! The lock family holds more than locks: range records, and outcome records, of which a contended
//! key may have thousands. All of a key's records are adjacent, with the lock first. So the walk
//! looks at one or two of them and then seeks past the key.

use bytes::Bytes;
use rangedb_storage::{ColumnFamily, Direction, Reader, Records, Result, encoding, keys};

use crate::lock::Lock;

/// Walks the keys of a span that have a record in the lock family.
pub(crate) struct LockWalk<'a> {
    reader: &'a dyn Reader,
    records: Box<dyn Records + 'a>,
    /// Stored key at which the span ends, on the side to which the walk goes.
    limit: Bytes,
    direction: Direction,
    /// The key that the walk returned last; its other records are skipped.
    done: Option<Bytes>,
}

impl<'a> LockWalk<'a> {
    /// Begins a walk over user keys `[start, end)`; an empty end has no end.
    pub(crate) fn new(
        reader: &'a dyn Reader,
        (start, end): (&[u8], &[u8]),
        direction: Direction,
    ) -> Result<Self> {
        let span = keys::data_span(start, end);
        let records = reader.scan(ColumnFamily::Lock, &span.start, &span.end, direction)?;
        let limit = match direction {
            Direction::Forward => span.end,
            Direction::Reverse => span.start,
        };
        Ok(LockWalk { reader, records, limit, direction, done: None })
    }

    /// Returns the next key that has a record in the lock family, with its lock if it has one.
    pub(crate) fn next(&mut self) -> Result<Option<(Bytes, Option<Lock>)>> {
        loop {
            let Some((stored_key, stored)) = self.records.next()? else { return Ok(None) };
            let (key, behind) = encoding::unescape(stored_key)?;
            let key = Bytes::from(key);
            if self.done.as_ref() == Some(&key) {
                self.skip(&key)?;
                continue;
            }
            let lock = match behind.is_empty() {
                true => Some(Lock::decode(stored)?),
                false => Lock::read(self.reader, &key)?,
            };
            self.done = Some(key.clone());
            return Ok(Some((key, lock)));
        }
    }

    /// Restarts the walk past the key.
    fn skip(&mut self, key: &[u8]) -> Result<()> {
        let own = keys::key_span(key);
        let (start, end) = match self.direction {
            Direction::Forward => (&own.end, &self.limit),
            Direction::Reverse => (&self.limit, &own.start),
        };
        self.records = self.reader.scan(ColumnFamily::Lock, start, end, self.direction)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rangedb_storage::{Batch, MemState, StateEngine};

    use super::*;
    use crate::{lock::LockKind, outcome_record::Outcome, range_record::RangeRecord};

    #[test]
    fn finds_each_key_once_both_ways_whatever_else_stands_there() {
        let state = MemState::new();
        let mut batch = Batch::new(&state);
        let lock = Lock {
            start_ts: 5,
            min_commit_ts: 6,
            alive_until_ms: 0,
            for_update_ts: 0,
            primary: "a".into(),
            async_commit: None,
            kind: LockKind::Pessimistic,
        };
        let (cf, position) = RangeRecord::position(b"a");
        batch.put(cf, position, RangeRecord { last_commit_ts: 3, ..Default::default() }.encode());
        // A lock alone, outcomes alone, both, and keys that begin alike.
        for key in [&b"a"[..], b"a\x00", b"c", b"e"] {
            batch.put(ColumnFamily::Lock, keys::lock(key), lock.encode());
        }
        for key in [&b"a\x00"[..], b"b", b"c", b"d"] {
            (10..15).for_each(|start_ts| Outcome::RolledBack.write(&mut batch, key, start_ts));
        }
        let writes = batch.into_writes();
        state.write(writes).unwrap();
        let walk = |end: &[u8], direction| {
            let mut walk = LockWalk::new(&state, (b"a", end), direction).unwrap();
            let mut found = Vec::new();
            while let Some((key, lock)) = walk.next().unwrap() {
                found.push((key, lock.is_some()));
            }
            found
        };
        let mut expected: Vec<(Bytes, bool)> =
            [("a", true), ("a\x00", true), ("b", false), ("c", true), ("d", false), ("e", true)]
                .map(|(key, locked)| (key.into(), locked))
                .into();
        assert_eq!(walk(b"", Direction::Forward), expected);
        assert_eq!(walk(b"d", Direction::Forward), expected[..4]);
        expected.reverse();
        assert_eq!(walk(b"", Direction::Reverse), expected);
        assert_eq!(walk(b"d", Direction::Reverse), expected[2..]);
    }
}
