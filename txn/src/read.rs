//! Reading one key.

use bytes::Bytes;
use rangedb_proto::Timestamp;
use rangedb_proto::v1::KeyValue;
use rangedb_storage::{Reader, Result};

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

/// The key's value, if it has one at `at`. One point get for the newest; at a timestamp, one more
/// seek if the key was written later.
///
/// # Errors
///
/// The engine's alone.
pub fn get(reader: &dyn Reader, key: &[u8], at: ReadAt) -> Result<Option<KeyValue>> {
    match versions::visible(reader, key, at)? {
        Some(record) if !record.is_deleted() => {
            versions::key_value(reader, Bytes::copy_from_slice(key), &record).map(Some)
        }
        _ => Ok(None),
    }
}
