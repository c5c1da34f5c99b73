//! Locks of a range, with their number in memory.
//!
//! Most ranges have no locks most of the time, because their commands are transactions of one
//! range. The count saves such commands every lookup in the lock family. The flag for outcome
//! records does the same. Both only repeat the state: loading walks over the lock family, and each
//! lock that is written or removed updates the count.

use rangedb_storage::{ColumnFamily, Direction, Reader, Result, encoding, keys};

use crate::lock::Lock;
use crate::outcome_record::Outcome;

/// Number of the locks of a range, and a flag for its outcome records.
///
/// Invariants:
/// - `count` is the number of locks of the range in the state that commands see;
/// - if the state has an outcome record of the range, `may_have_outcomes` is true.
#[derive(Debug)]
pub(crate) struct LockTable {
    count: u64,
    may_have_outcomes: bool,
}

impl LockTable {
    /// Loads the table of the range `[start, end)`; an empty end has no end.
    pub(crate) fn load(state: &dyn Reader, start: &[u8], end: &[u8]) -> Result<Self> {
        let span = keys::data_span(start, end);
        let mut records =
            state.scan(ColumnFamily::Lock, &span.start, &span.end, Direction::Forward)?;
        let mut table = LockTable { count: 0, may_have_outcomes: false };
        // Only keys are decoded: a damaged record is reported to the command that needs it.
        while let Some((stored_key, _)) = records.next()? {
            let Ok((_, behind)) = encoding::unescape(stored_key) else { continue };
            table.count += u64::from(behind.is_empty());
            table.may_have_outcomes |= Outcome::parse_start_ts(behind).is_some();
        }
        Ok(table)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the lock at the key, of whichever transaction.
    pub(crate) fn get(&self, reader: &dyn Reader, key: &[u8]) -> Result<Option<Lock>> {
        if self.is_empty() { Ok(None) } else { Lock::read(reader, key) }
    }

    /// Returns the transaction's outcome record at the key. A transaction that left a version there
    /// has no such record.
    pub(crate) fn outcome(
        &self,
        reader: &dyn Reader,
        key: &[u8],
        start_ts: u64,
    ) -> Result<Option<Outcome>> {
        if self.may_have_outcomes { Outcome::read(reader, key, start_ts) } else { Ok(None) }
    }

    /// Counts a lock that was added at a key without one.
    pub(crate) fn added(&mut self) {
        self.count += 1;
    }

    /// Counts a lock that was removed.
    pub(crate) fn removed(&mut self) {
        self.count = self.count.checked_sub(1).expect("every lock that stands is counted");
    }

    /// Notes that an outcome record was left.
    pub(crate) fn outcome_left(&mut self) {
        self.may_have_outcomes = true;
    }
}
