//! Listing of the locks in a span. Operators use it to find the lock that blocks them. Garbage
//! collection uses it to make sure that no lock from below a timestamp is left.

use bytes::Bytes;
use rangedb_proto::v1::{LockInfo, lock_info::Kind};
use rangedb_storage::{Direction, Reader, RecordValue, Result};

use crate::lock::{Lock, LockKind};
use crate::lock_walk::LockWalk;
use crate::scan::{PAGE_BYTES_MAX, PAGE_WALK_MAX};

/// Returns the first locks of user keys `[start, end)`, in key order, and the key to go on at if
/// there may be more; an empty end has no end. Returns at most `limit` locks (0: as many as a page
/// holds), and only those of transactions that started below `started_below` (0: all).
///
/// Like a page of a scan, a list is bounded by [`PAGE_BYTES_MAX`] and [`PAGE_WALK_MAX`]. It may be
/// empty without being the last.
///
/// # Errors
///
/// Only errors of the storage engine.
pub fn locks(
    reader: &dyn Reader,
    (start, end): (&[u8], &[u8]),
    limit: u64,
    started_below: u64,
) -> Result<(Vec<LockInfo>, Option<Bytes>)> {
    let below = if started_below == 0 { u64::MAX } else { started_below };
    let limit = if limit == 0 { usize::MAX } else { usize::try_from(limit).unwrap_or(usize::MAX) };
    let mut walk = LockWalk::new(reader, (start, end), Direction::Forward)?;
    let (mut found, mut bytes, mut walked) = (Vec::new(), 0, 0);
    while let Some((key, lock)) = walk.next()? {
        let lock = lock.filter(|lock| lock.start_ts < below);
        let is_full = lock.is_some() && (found.len() == limit || bytes >= PAGE_BYTES_MAX);
        if is_full || walked == PAGE_WALK_MAX {
            return Ok((found, Some(key)));
        }
        walked += 1;
        let Some(lock) = lock else { continue };
        let info = info(key, lock);
        let secondaries: usize = info.secondaries.iter().map(Bytes::len).sum();
        bytes += (info.key.len() + info.primary.len() + secondaries) as u64;
        found.push(info);
    }
    Ok((found, None))
}

fn info(key: Bytes, lock: Lock) -> LockInfo {
    let kind = match lock.kind {
        LockKind::Write { value: RecordValue::Deleted, .. } => Kind::Delete,
        LockKind::Write { .. } => Kind::Put,
        LockKind::Pessimistic => Kind::Pessimistic,
    };
    LockInfo {
        key,
        primary: lock.primary,
        start_ts: lock.start_ts,
        kind: kind.into(),
        alive_until_ms: lock.alive_until_ms,
        min_commit_ts: lock.min_commit_ts,
        for_update_ts: lock.for_update_ts,
        async_commit: lock.async_commit.is_some(),
        secondaries: lock.async_commit.unwrap_or_default(),
    }
}
