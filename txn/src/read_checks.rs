//! Whether what a transaction read is still so.
//!
//! A transaction read spans at timestamps and wants to commit at a later one. It may, as if it had
//! done all its reads at the moment of the commit, if between the two nobody else's version was
//! committed in the spans, at keys that had no value when they were read as at others. A write that
//! is prewritten and may still be committed up to that moment is in the way of the answer.

use rangedb_proto::v1::{KeyLocked, ReadCheck, WriteConflict};
use rangedb_storage::{Direction, Reader, Record, Result};

use crate::limits::{READ_CHECK_WALK_MAX, first_key};
use crate::lock::Lock;
use crate::lock_walk::LockWalk;
use crate::read::ReadAt;
use crate::versions::{self, Walk};

/// Why reads cannot be confirmed.
pub(crate) enum Finding {
    Newer(WriteConflict),
    Locked(KeyLocked),
    /// The spans hold more than [`READ_CHECK_WALK_MAX`] records.
    TooLong,
}

/// One look at what a transaction read.
pub(crate) struct ReadChecks<'a> {
    pub(crate) reader: &'a dyn Reader,
    /// The transaction, whose own versions and locks do not count.
    pub(crate) start_ts: u64,
    /// Versions above this do not count, nor locks that are going to be such versions.
    pub(crate) until: u64,
    /// False if the range is known to have no locks.
    pub(crate) with_locks: bool,
    /// Start timestamps of transactions whose locks are not in the way.
    pub(crate) passed: &'a [u64],
    /// Deleted versions from below do not count.
    pub(crate) collect_below: u64,
}

impl ReadChecks<'_> {
    /// What speaks against the first of the reads that something speaks against.
    pub(crate) fn first_finding(&self, reads: &[ReadCheck]) -> Result<Option<Finding>> {
        let mut walked = 0;
        for read in reads {
            let finding = match read.end_key.is_empty() {
                true => self.check_key(read)?,
                false => self.check_span(read, &mut walked)?,
            };
            if finding.is_some() {
                return Ok(finding);
            }
        }
        Ok(None)
    }

    fn check_key(&self, read: &ReadCheck) -> Result<Option<Finding>> {
        let key = &read.start_key[..];
        if let Some(current) = versions::current(self.reader, key)?
            && let Some(newer) = self.newer(key, current, read.read_ts)?
        {
            return Ok(Some(newer));
        }
        if !self.with_locks {
            return Ok(None);
        }
        Ok(Lock::read(self.reader, key)?.and_then(|lock| self.in_the_way(key, &lock)))
    }

    fn check_span(&self, read: &ReadCheck, walked: &mut usize) -> Result<Option<Finding>> {
        let span = (first_key(&read.start_key), &read.end_key[..]);
        let mut walk = Walk::new(self.reader, span, Direction::Forward, ReadAt::Latest)?
            .without_spent(self.collect_below);
        while let Some((key, current)) = walk.next_newest()? {
            if !count(walked) {
                return Ok(Some(Finding::TooLong));
            }
            if let Some(newer) = self.newer(&key, current, read.read_ts)? {
                return Ok(Some(newer));
            }
        }
        if !self.with_locks {
            return Ok(None);
        }
        let mut locks = LockWalk::new(self.reader, span, Direction::Forward)?;
        while let Some((key, lock)) = locks.next()? {
            if !count(walked) {
                return Ok(Some(Finding::TooLong));
            }
            let locked = lock.and_then(|lock| self.in_the_way(&key, &lock));
            if locked.is_some() {
                return Ok(locked);
            }
        }
        Ok(None)
    }

    fn newer(&self, key: &[u8], current: Record, read_ts: u64) -> Result<Option<Finding>> {
        let between = (read_ts, self.until);
        let newer = versions::newest_between(self.reader, key, current, between, self.start_ts)?;
        Ok(newer.map(|record| Finding::Newer(versions::conflict(key, &record))))
    }

    fn in_the_way(&self, key: &[u8], lock: &Lock) -> Option<Finding> {
        let until = ReadAt::Timestamp(rangedb_proto::Timestamp(self.until));
        let is_passed = lock.start_ts == self.start_ts || self.passed.contains(&lock.start_ts);
        (!is_passed && lock.hides_a_version(until))
            .then(|| Finding::Locked(lock.in_the_way(bytes::Bytes::copy_from_slice(key))))
    }
}

/// Whether one more record may be walked over.
fn count(walked: &mut usize) -> bool {
    *walked += 1;
    *walked <= READ_CHECK_WALK_MAX
}
