//! Reading the keys of a span in pages.
//!
//! A page has three bounds: rows, as its caller asks; bytes, so that it fits a message; and records
//! walked over, so that a million deleted keys do not hold a thread, or an engine snapshot, for
//! ever. A page that a bound cut short says where the next one begins, even if it is empty. Pages
//! that are read at one timestamp form one consistent view. Pages of the newest values are each
//! consistent on their own.
//!
//! A lock that blocks the read ends the page before it, also at a key that has no row yet. If
//! nothing comes before the lock, the scan returns the lock and no page.

use bytes::Bytes;
use rangedb_proto::successor;
use rangedb_proto::v1::{KeyLocked, KeyValue, ScanReply};
use rangedb_storage::{Direction, Reader, Record, Result};

use crate::floors::floor_above;
use crate::lock_walk::LockWalk;
use crate::read::{Locks, ReadAt, ReadOutcome};
use crate::versions::{self, Walk};

/// Bytes of keys and values in a page at most, whatever the request asks. A single row that is
/// larger makes a page of its own.
pub const PAGE_BYTES_MAX: u64 = 1024 * 1024;

/// Records that one page walks over at most, those of locks and of deleted keys included. That
/// takes some milliseconds.
pub const PAGE_WALK_MAX: usize = 4096;

/// Request for one page of a span's rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScanRequest {
    /// Keys `[start, end)`; an empty end has no end. The caller cuts them to the range.
    pub start: Bytes,
    pub end: Bytes,
    /// Rows at most. 0: as many as the other bounds allow.
    pub limit: u64,
    /// Bytes of keys and values in the page at most. 0, or more than [`PAGE_BYTES_MAX`]:
    /// [`PAGE_BYTES_MAX`].
    pub bytes_max: u64,
    pub direction: Direction,
    /// Rows come without their values.
    pub keys_only: bool,
    pub at: ReadAt,
    pub locks: Locks,
}

/// Some rows of a span, in the order of the request's direction.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Page {
    pub kvs: Vec<KeyValue>,
    /// Start of the next page (forward), or its exclusive end (reverse); `None` if the span holds
    /// no more rows.
    pub next: Option<Bytes>,
    /// Newest commit timestamp among the keys that were walked over, deletions included. A server
    /// that answers with a latest page first waits until the oracle has passed it.
    pub newest_ts: u64,
}

impl From<Page> for ScanReply {
    fn from(page: Page) -> Self {
        ScanReply {
            kvs: page.kvs,
            more: page.next.is_some(),
            resume_key: page.next.unwrap_or_default(),
        }
    }
}

/// Returns one page of rows of the range that begins at `range_start`. Returns the lock instead if
/// one stands before the first row, and the floor if the whole page is below it. Unless
/// [`PAGE_WALK_MAX`] cut the page short, `next` is set exactly if another row, or a lock that
/// blocks the read, follows.
///
/// # Errors
///
/// Only errors of the storage engine.
pub fn scan(
    reader: &dyn Reader,
    range_start: &[u8],
    request: &ScanRequest,
) -> Result<ReadOutcome<Page>> {
    if let Some(floor_ts) = floor_above(reader, range_start, request.at)? {
        return Ok(ReadOutcome::TooOld { floor_ts });
    }
    let mut page = PageBuilder::new(reader, request);
    if !request.end.is_empty() && request.start >= request.end {
        return Ok(page.finish(None));
    }
    let span = (&request.start[..], &request.end[..]);
    let mut walk = Walk::new(reader, span, request.direction, request.at)?;
    let mut obstacles = Obstacles::new(reader, request)?;
    let mut walked = 0;
    loop {
        let row = walk.next()?;
        page.newest_ts = walk.newest_ts();
        while let Some((key, locked)) = obstacles.next_up_to(row.as_ref().map(|(key, _)| key))? {
            if walked == PAGE_WALK_MAX {
                return Ok(page.finish(Some(key)));
            }
            walked += 1;
            if let Some(locked) = locked {
                return Ok(page.stop_at(locked));
            }
        }
        let Some((key, record)) = row else { return Ok(page.finish(None)) };
        let has_room = record.as_ref().is_none_or(|record| page.has_room(&key, record));
        if walked == PAGE_WALK_MAX || !has_room {
            return Ok(page.finish(Some(key)));
        }
        walked += 1;
        if let Some(record) = record {
            page.add(key, &record)?;
        }
    }
}

/// Locks of a span, in the order of the scan.
struct Obstacles<'a> {
    request: &'a ScanRequest,
    /// `None` if locks are ignored.
    walk: Option<LockWalk<'a>>,
    /// Next key of the lock family that the scan has not reached yet.
    ahead: Option<(Bytes, Option<KeyLocked>)>,
}

impl<'a> Obstacles<'a> {
    fn new(reader: &'a dyn Reader, request: &'a ScanRequest) -> Result<Self> {
        let span = (&request.start[..], &request.end[..]);
        let walk = match request.locks {
            Locks::Ignored => None,
            Locks::InTheWay { .. } => Some(LockWalk::new(reader, span, request.direction)?),
        };
        let mut obstacles = Obstacles { request, walk, ahead: None };
        obstacles.look_ahead()?;
        Ok(obstacles)
    }

    /// Returns the next key of the lock family if it is not past the row's key, with the lock there
    /// if it blocks the read. `row` is `None` past the last row.
    fn next_up_to(&mut self, row: Option<&Bytes>) -> Result<Option<(Bytes, Option<KeyLocked>)>> {
        let is_due = |(key, _): &mut (Bytes, _)| match (row, self.request.direction) {
            (None, _) => true,
            (Some(row), Direction::Forward) => *key <= *row,
            (Some(row), Direction::Reverse) => *key >= *row,
        };
        let due = self.ahead.take_if(is_due);
        if due.is_some() {
            self.look_ahead()?;
        }
        Ok(due)
    }

    fn look_ahead(&mut self) -> Result<()> {
        let Some(walk) = &mut self.walk else { return Ok(()) };
        let ScanRequest { locks, at, .. } = self.request;
        self.ahead = walk.next()?.map(|(key, lock)| {
            let lock = lock.filter(|lock| locks.stop(lock, *at));
            let locked = lock.map(|lock| lock.in_the_way(key.clone()));
            (key, locked)
        });
        Ok(())
    }
}

/// Returns the bound of the next page that includes `key` in it.
fn resume_at(key: Bytes, direction: Direction) -> Bytes {
    match direction {
        Direction::Forward => key,
        Direction::Reverse => successor(&key).into(),
    }
}

struct PageBuilder<'a> {
    reader: &'a dyn Reader,
    kvs: Vec<KeyValue>,
    rows_max: u64,
    bytes: u64,
    bytes_max: u64,
    keys_only: bool,
    direction: Direction,
    newest_ts: u64,
}

impl<'a> PageBuilder<'a> {
    fn new(reader: &'a dyn Reader, request: &ScanRequest) -> Self {
        let or_all = |bound: u64| if bound == 0 { u64::MAX } else { bound };
        PageBuilder {
            reader,
            kvs: Vec::new(),
            rows_max: or_all(request.limit),
            bytes: 0,
            bytes_max: or_all(request.bytes_max).min(PAGE_BYTES_MAX),
            keys_only: request.keys_only,
            direction: request.direction,
            newest_ts: 0,
        }
    }

    /// True if the row fits. The first row always fits, or a large one would stop every scan.
    fn has_room(&self, key: &[u8], record: &Record) -> bool {
        let rows = self.kvs.len() as u64;
        rows == 0
            || (rows < self.rows_max && self.bytes + self.row_bytes(key, record) <= self.bytes_max)
    }

    fn add(&mut self, key: Bytes, record: &Record) -> Result<()> {
        self.bytes += self.row_bytes(&key, record);
        self.kvs.push(match self.keys_only {
            true => versions::key_value_without_value(key, record),
            false => versions::key_value(self.reader, key, record)?,
        });
        Ok(())
    }

    fn row_bytes(&self, key: &[u8], record: &Record) -> u64 {
        let value = if self.keys_only { 0 } else { versions::value_bytes(record) };
        (key.len() + value) as u64
    }

    /// Ends the page before the key `next`.
    fn finish(self, next: Option<Bytes>) -> ReadOutcome<Page> {
        let next = next.map(|key| resume_at(key, self.direction));
        ReadOutcome::Value(Page { kvs: self.kvs, next, newest_ts: self.newest_ts })
    }

    fn stop_at(self, locked: KeyLocked) -> ReadOutcome<Page> {
        match self.kvs.is_empty() {
            true => ReadOutcome::Locked(locked),
            false => self.finish(Some(locked.key)),
        }
    }
}
