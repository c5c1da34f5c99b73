//! Reading one key.

use bytes::Bytes;
use rangedb_proto::Timestamp;
use rangedb_proto::v1::{self, KeyLocked, KeyValue, error::Kind};
use rangedb_storage::{Reader, Result};

use crate::floors::{floor_above, too_old_error};
use crate::lock::Lock;
use crate::versions;

/// Which of a key's versions a read sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadAt {
    /// The newest committed one.
    Latest,
    /// The one that was the newest at this timestamp, whatever was committed later. The range must
    /// have raised its fence to it before the state was taken, see [`crate`].
    Timestamp(Timestamp),
}

impl ReadAt {
    /// From a request's `read_ts`, where 0 stands for the newest.
    pub fn from_read_ts(read_ts: u64) -> Self {
        match read_ts {
            0 => ReadAt::Latest,
            ts => ReadAt::Timestamp(Timestamp(ts)),
        }
    }
}

/// What a read makes of the locks that it meets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Locks {
    /// Nothing: it reads what is committed. For keys that only commands of one range write.
    Ignored,
    /// A write that may be committed at or below the read is in the way, unless its transaction is
    /// one of these, by start_ts: the reader's own, and those that it knows to commit above it.
    InTheWay { but_of: Vec<u64> },
}

impl Locks {
    /// True if the lock stops a read at `at`.
    pub(crate) fn stop(&self, lock: &Lock, at: ReadAt) -> bool {
        match self {
            Locks::Ignored => false,
            Locks::InTheWay { but_of } => {
                lock.hides_a_version(at) && !but_of.contains(&lock.start_ts)
            }
        }
    }
}

/// What came of a read.
#[derive(Clone, PartialEq, Debug)]
pub enum ReadOutcome<T> {
    Value(T),
    /// Whether this transaction commits at or below the read is not decided, or not known here.
    Locked(KeyLocked),
    /// The read is below the range's floor: what it would see may be gone.
    TooOld {
        floor_ts: u64,
    },
}

impl<T> ReadOutcome<T> {
    /// The value, or what a client is told that stopped the read.
    ///
    /// # Errors
    ///
    /// `KeyLocked` and `TooOld`.
    pub fn unlocked(self) -> std::result::Result<T, v1::Error> {
        match self {
            ReadOutcome::Value(value) => Ok(value),
            ReadOutcome::Locked(locked) => {
                let message = format!("key {} is locked", locked.key.escape_ascii());
                Err(v1::Error::new(Kind::KeyLocked(locked), message))
            }
            ReadOutcome::TooOld { floor_ts } => Err(too_old_error(floor_ts)),
        }
    }
}

/// A key as a read found it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Found {
    /// `None`: it has no value.
    pub kv: Option<KeyValue>,
    /// When what was found was committed, a deletion too; 0 if nothing was ever written. Whoever tells
    /// of a latest read waits until the oracle is above it.
    pub newest_ts: u64,
}

/// The key's value, if it has one at `at`, in the range that begins at `range_start`. One point get
/// for its lock and one for its newest value; at a timestamp, one more for the floor, and a seek if
/// the key was written later.
///
/// # Errors
///
/// The engine's alone.
pub fn get(
    reader: &dyn Reader,
    range_start: &[u8],
    key: &[u8],
    at: ReadAt,
    locks: &Locks,
) -> Result<ReadOutcome<Found>> {
    if let Some(floor_ts) = floor_above(reader, range_start, at)? {
        return Ok(ReadOutcome::TooOld { floor_ts });
    }
    if *locks != Locks::Ignored
        && let Some(lock) = Lock::read(reader, key)?
        && locks.stop(&lock, at)
    {
        return Ok(ReadOutcome::Locked(lock.in_the_way(Bytes::copy_from_slice(key))));
    }
    let (kv, newest_ts) = committed(reader, key, at)?;
    Ok(ReadOutcome::Value(Found { kv, newest_ts }))
}

/// The key's committed value, whatever is about to be committed, and when it or the deletion that
/// was found was committed.
pub(crate) fn committed(
    reader: &dyn Reader,
    key: &[u8],
    at: ReadAt,
) -> Result<(Option<KeyValue>, u64)> {
    let Some(record) = versions::visible(reader, key, at)? else { return Ok((None, 0)) };
    let kv = match record.is_deleted() {
        true => None,
        false => Some(versions::key_value(reader, Bytes::copy_from_slice(key), &record)?),
    };
    Ok((kv, record.mod_ts))
}
