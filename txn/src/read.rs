//! Reading one key.

use bytes::Bytes;
use rangedb_proto::Timestamp;
use rangedb_proto::v1::{self, KeyLocked, KeyValue, error::Kind};
use rangedb_storage::{Reader, Result};

use crate::floors::{floor_above, too_old_error};
use crate::lock::Lock;
use crate::versions;

/// Version of a key that a read sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadAt {
    /// The newest committed version.
    Latest,
    /// The version that was the newest at this timestamp, whatever was committed later. The range
    /// must have raised its fence to the timestamp before the state was taken, see [`crate`].
    Timestamp(Timestamp),
}

impl ReadAt {
    /// Converts a request's `read_ts`; 0 stands for the newest version.
    pub fn from_read_ts(read_ts: u64) -> Self {
        match read_ts {
            0 => ReadAt::Latest,
            ts => ReadAt::Timestamp(Timestamp(ts)),
        }
    }
}

/// Treatment of the locks that a read meets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Locks {
    /// The read ignores locks and sees only committed versions. For keys that only commands of one
    /// range write.
    Ignored,
    /// A lock blocks the read if its write may commit at or below the read's timestamp. Exempt are
    /// the transactions in `but_of`, by start_ts: the reader's own, and those that it knows to
    /// commit above the read.
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

/// Outcome of a read.
#[derive(Clone, PartialEq, Debug)]
pub enum ReadOutcome<T> {
    Value(T),
    /// A lock blocks the read. Its transaction may commit at or below the read: this is undecided,
    /// or not known in this range.
    Locked(KeyLocked),
    /// The read is below the range's floor: the versions that it would see may be gone.
    TooOld {
        floor_ts: u64,
    },
}

impl<T> ReadOutcome<T> {
    /// Returns the value, or the error to send to the client.
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

/// State of a key as a read found it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Found {
    /// `None` if the key has no value.
    pub kv: Option<KeyValue>,
    /// Commit timestamp of the version that was found, also of a deletion; 0 if nothing was found.
    /// A server that answers a latest read first waits until the oracle has passed it.
    pub newest_ts: u64,
}

/// Returns the key's value at `at`, in the range that begins at `range_start`. Takes one point get
/// for the lock and one for the newest version. A read at a timestamp takes one more for the floor,
/// and a seek if the key was written later.
///
/// # Errors
///
/// Only errors of the storage engine.
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

/// Returns the key's committed value, regardless of locks, and the commit timestamp of the version
/// or deletion that was found.
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
