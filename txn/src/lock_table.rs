//! The locks of a range, and in memory how many there are.
//!
//! Most ranges have none most of the time: their commands are transactions of one range. The count
//! spares these every look into the lock family. It says nothing that the state does not: it is made
//! by walking over the locks, and follows every one that is written or removed.

use rangedb_storage::{Batch, ColumnFamily, Direction, Reader, Result, keys};

use crate::lock::Lock;
use crate::lock_walk::LockWalk;

/// Invariant: `count` is the number of locks of the range in the state that commands see.
#[derive(Debug)]
pub(crate) struct LockTable {
    count: u64,
}

impl LockTable {
    /// Of the range `[start, end)`; an empty end has no end.
    pub(crate) fn load(state: &dyn Reader, start: &[u8], end: &[u8]) -> Result<Self> {
        let mut walk = LockWalk::new(state, (start, end), Direction::Forward)?;
        let mut count = 0;
        while let Some((_, lock)) = walk.next()? {
            count += u64::from(lock.is_some());
        }
        Ok(LockTable { count })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The lock at the key, whoever holds it.
    pub(crate) fn get(&self, reader: &dyn Reader, key: &[u8]) -> Result<Option<Lock>> {
        if self.is_empty() { Ok(None) } else { Lock::read(reader, key) }
    }

    /// A lock where none stands.
    pub(crate) fn add(&mut self, batch: &mut Batch<'_>, key: &[u8], lock: &Lock) {
        self.replace(batch, key, lock);
        self.count += 1;
    }

    /// A lock in place of the one that stands there.
    pub(crate) fn replace(&mut self, batch: &mut Batch<'_>, key: &[u8], lock: &Lock) {
        batch.put(ColumnFamily::Lock, keys::lock(key), lock.encode());
    }

    /// Removes the lock that stands there.
    pub(crate) fn remove(&mut self, batch: &mut Batch<'_>, key: &[u8]) {
        batch.delete(ColumnFamily::Lock, keys::lock(key));
        self.count = self.count.checked_sub(1).expect("every lock that stands is counted");
    }
}
