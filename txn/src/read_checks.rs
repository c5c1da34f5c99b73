//! Read checks: validation of what a transaction read.
//!
//! A transaction reads spans at timestamps and commits at a later one. It may commit, as if all of
//! its reads had happened at the commit, if no other transaction committed a version in the spans
//! in between. New versions count at keys without a value too. A prewritten write that may still
//! commit up to that moment blocks the answer.

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

/// Result of one check of reads.
pub(crate) enum Looked {
    AtAll,
    /// The first read that cannot be confirmed, and why.
    Found(Finding),
    /// The budget is spent. Everything before this position is confirmed.
    UpTo(ResumeAt),
}

/// Position at which the next check of the same reads begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResumeAt {
    /// Number of reads that are done.
    pub read: usize,
    /// Key at which the next read begins; empty if at its own start.
    pub key: Bytes,
}

/// One check of what a transaction read.
pub(crate) struct ReadChecks<'a> {
    pub(crate) reader: &'a dyn Reader,
    /// Identifies the transaction; its own versions and locks do not count.
    pub(crate) start_ts: u64,
    /// Versions above this timestamp do not count, nor locks that will commit above it.
    pub(crate) until: u64,
    /// False if the range is known to have no locks.
    pub(crate) with_locks: bool,
    /// Start timestamps of transactions whose locks do not block.
    pub(crate) passed: &'a [u64],
    /// Deleted versions from below this timestamp do not count.
    pub(crate) collect_below: u64,
}

impl ReadChecks<'_> {
    /// Looks for the first read that is no longer valid, and says why. A key takes one from the
    /// budget, a span one for each record in it. A call with budget left always makes progress.
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

    /// Looks at the versions of the span first, as far as the budget goes, and then at the locks up
    /// to there.
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

/// Result of the check of one read.
enum Part {
    All,
    Found(Finding),
    UpTo(Bytes),
}

/// Keys with records in the lock family that the check of a span passes without taking from the
/// budget. A check that has spent its budget on versions still has to look at the locks among them,
/// and has to make progress.
const LOCKS_BESIDE_MAX: usize = 64;
