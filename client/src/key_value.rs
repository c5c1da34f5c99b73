//! A key with its value, version, timestamps and lease.

use bytes::Bytes;
use rangedb_proto::{Timestamp, v1};

/// A row, as of the time at which it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    /// Empty in a scan of keys only.
    pub value: Bytes,
    /// 1 when the key was created, one more for each write, starts again after a delete.
    pub version: u64,
    /// Commit that created the key.
    pub create_ts: Timestamp,
    /// Commit that wrote this value.
    pub mod_ts: Timestamp,
    /// Lease the value is attached to.
    pub lease: Option<u64>,
}

impl From<v1::KeyValue> for KeyValue {
    fn from(kv: v1::KeyValue) -> Self {
        KeyValue {
            key: kv.key,
            value: kv.value,
            version: kv.version,
            create_ts: Timestamp(kv.create_ts),
            mod_ts: Timestamp(kv.mod_ts),
            lease: (kv.lease_id != 0).then_some(kv.lease_id),
        }
    }
}

impl From<KeyValue> for v1::KeyValue {
    fn from(kv: KeyValue) -> Self {
        v1::KeyValue {
            key: kv.key,
            value: kv.value,
            version: kv.version,
            create_ts: kv.create_ts.0,
            mod_ts: kv.mod_ts.0,
            lease_id: kv.lease.unwrap_or(0),
        }
    }
}
