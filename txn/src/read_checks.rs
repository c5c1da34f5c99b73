//! Read checks: whether what a transaction read is still so.
//!
//! A transaction read spans at timestamps and wants to commit at a later one. It may, as if it had
//! done all its reads at the moment of the commit, if between the two nobody else's version was
//! committed in the spans, at keys that had no value when they were read as at others. A write that
//! is prewritten and may still be committed up to that moment is in the way of the answer.

use bytes::Bytes;
use rangedb_proto::v1::{KeyLocked, ReadCheck, WriteConflict};
use rangedb_storage::{Direction, Reader, Record, Result};

use crate::limits::first_key;
use crate::lock::Lock;
use crate::lock_walk::LockWalk;
use crate::read::ReadAt;
use crate::versions::{self, Walk};
use crate::walk_budget::WalkBudget;

/// Reason why reads cannot be confirmed.
pub(crate) enum Finding {
    Newer(WriteConflict),
    Locked(KeyLocked),
}

/// Result of one look at reads.
pub(crate) enum Looked {
    AtAll,
    /// This speaks against one of them.
    Found(Finding),
    /// The budget is spent. Nothing speaks against what stands in front of this place.
    UpTo(ResumeAt),
}

/// Place to go on at, with reads that have been looked at in part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResumeAt {
    /// So many of the reads are done.
    pub read: usize,
    /// Start of the next; empty: the same as before.
    pub key: Bytes,
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
    /// Looks for the first of the reads that something speaks against, and what that is. A key
    /// costs one of the budget, a span what it holds. A budget that is not spent gets on.
    pub(crate) fn look(&self, reads: &[ReadCheck], budget: &mut WalkBudget) -> Result<Looked> {
        for (place, read) in reads.iter().enumerate() {
            if place > 0 && budget.is_spent() {
                return Ok(Looked::UpTo(ResumeAt { read: place, key: Bytes::new() }));
            }
            let looked = match read.end_key.is_empty() {
                true => self.look_at_key(read, budget)?,
                false => self.look_at_span(read, budget)?,
            };
            match looked {
                Part::All => {}
                Part::Found(finding) => return Ok(Looked::Found(finding)),
                Part::UpTo(key) => {
                    return Ok(Looked::UpTo(ResumeAt { read: place, key }));
                }
            }
        }
        Ok(Looked::AtAll)
    }

    fn look_at_key(&self, read: &ReadCheck, budget: &mut WalkBudget) -> Result<Part> {
        budget.take();
        Ok(self.check_key(read)?.map_or(Part::All, Part::Found))
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

    /// The versions of the span first, as far as the budget goes; then the locks up to there.
    fn look_at_span(&self, read: &ReadCheck, budget: &mut WalkBudget) -> Result<Part> {
        let (start, mut end) = (first_key(&read.start_key), read.end_key.clone());
        let mut stopped = None;
        let mut walk =
            Walk::new(self.reader, (start, &end[..]), Direction::Forward, ReadAt::Latest)?
                .without_spent(self.collect_below);
        while let Some((key, current)) = walk.next_newest()? {
            if !budget.take() {
                stopped = Some(key.clone());
                end = key;
                break;
            }
            if let Some(newer) = self.newer(&key, current, read.read_ts)? {
                return Ok(Part::Found(newer));
            }
        }
        drop(walk);
        if self.with_locks {
            let mut locks = LockWalk::new(self.reader, (start, &end[..]), Direction::Forward)?;
            let mut walked = LOCKS_BESIDE_MAX;
            while let Some((key, lock)) = locks.next()? {
                if walked == 0 && !budget.take() {
                    return Ok(Part::UpTo(key));
                }
                walked = walked.saturating_sub(1);
                if let Some(locked) = lock.and_then(|lock| self.in_the_way(&key, &lock)) {
                    return Ok(Part::Found(locked));
                }
            }
        }
        Ok(stopped.map_or(Part::All, Part::UpTo))
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

/// Result of a look at one read.
enum Part {
    All,
    Found(Finding),
    UpTo(Bytes),
}

/// Keys with a lock or the record of one that a span may hold beside its budget: a look that has
/// spent its budget on versions has to see the locks among these, and must get on.
const LOCKS_BESIDE_MAX: usize = 64;
