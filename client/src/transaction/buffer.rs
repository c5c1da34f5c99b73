//! Write buffer of a transaction: writes that nobody else sees yet.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use rangedb_proto::Timestamp;
use rangedb_proto::v1::{self, operation};

use super::chunks::Item;
use super::savepoints::Undo;
use crate::error::{Error, Result};
use crate::key_value::KeyValue;
use crate::keys::Span;

/// Bytes of keys and values that one transaction may write. They are kept in the client's memory,
/// and a crashed client may leave locks of that size for others to clear.
pub const TRANSACTION_BYTES_MAX: usize = 100 * 1024 * 1024;

/// Keys that one transaction may write, for the same reason.
pub const TRANSACTION_KEYS_MAX: usize = 1_000_000;

/// The last write of a transaction to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Put { value: Bytes },
    Delete,
}

impl Write {
    pub fn bytes(&self) -> usize {
        match self {
            Write::Put { value, .. } => value.len(),
            Write::Delete => 0,
        }
    }

    fn operation(&self, key: &Bytes) -> v1::Operation {
        let key = key.clone();
        let body = match self {
            Write::Put { value } => {
                operation::Body::Put(v1::Put { key, value: value.clone(), lease_id: 0 })
            }
            Write::Delete => operation::Body::Delete(v1::Delete { key }),
        };
        v1::Operation { body: Some(body) }
    }

    /// Row as the transaction itself reads it: no commit has given it a version or timestamps yet.
    pub fn row(&self, key: &Bytes) -> Option<KeyValue> {
        match self {
            Write::Delete => None,
            Write::Put { value } => Some(KeyValue {
                key: key.clone(),
                value: value.clone(),
                version: 0,
                create_ts: Timestamp::ZERO,
                mod_ts: Timestamp::ZERO,
                lease: None,
            }),
        }
    }
}

/// A key and its write.
#[derive(Clone, Debug)]
pub(crate) struct Mutation {
    pub key: Bytes,
    pub write: Write,
}

impl Mutation {
    pub fn operation(&self) -> v1::Operation {
        self.write.operation(&self.key)
    }
}

impl Item for Mutation {
    fn key(&self) -> &Bytes {
        &self.key
    }

    fn bytes(&self) -> usize {
        self.key.len() + self.write.bytes()
    }
}

/// Buffered writes by key. Invariant: `bytes` is the size of all keys and values in `writes`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Buffer {
    writes: BTreeMap<Bytes, Write>,
    bytes: usize,
    undo: Undo,
}

impl Buffer {
    pub fn get(&self, key: &[u8]) -> Option<&Write> {
        self.writes.get(key)
    }

    /// Sets the write of a key, in place of the previous one. On an error nothing changes.
    pub fn set(&mut self, key: Bytes, write: Write) -> Result<()> {
        let before = self.writes.get(&key);
        let freed = before.map_or(0, |before| key.len() + before.bytes());
        let bytes = self.bytes - freed + key.len() + write.bytes();
        if bytes > TRANSACTION_BYTES_MAX {
            let what = format!("a transaction that writes {bytes} bytes");
            return Err(Error::TooLarge { what, limit: TRANSACTION_BYTES_MAX as u64 });
        }
        if before.is_none() && self.writes.len() == TRANSACTION_KEYS_MAX {
            let what = format!("a transaction that writes {} keys", TRANSACTION_KEYS_MAX + 1);
            return Err(Error::TooLarge { what, limit: TRANSACTION_KEYS_MAX as u64 });
        }
        self.undo.note(&key, before)?;
        self.bytes = bytes;
        self.writes.insert(key, write);
        Ok(())
    }

    pub fn savepoint(&mut self) -> Result<u64> {
        self.undo.savepoint()
    }

    /// Undoes the writes since a savepoint. False if the savepoint is not known.
    pub fn roll_back_to(&mut self, savepoint: u64) -> bool {
        let Some(before) = self.undo.roll_back_to(savepoint) else { return false };
        for (key, before) in before {
            let key_bytes = key.len();
            let put_back = before.as_ref().map_or(0, |write| key_bytes + write.bytes());
            let after = match before {
                Some(write) => self.writes.insert(key, write),
                None => self.writes.remove(&key),
            };
            self.bytes -= after.map_or(0, |write| key_bytes + write.bytes());
            self.bytes += put_back;
        }
        true
    }

    pub fn forget_savepoints(&mut self) {
        self.undo = Undo::default();
    }

    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.writes.keys()
    }

    /// Every write, in key order, in its wire form.
    pub fn operations(&self) -> impl Iterator<Item = v1::Operation> {
        self.writes.iter().map(|(key, write)| write.operation(key))
    }

    /// Writes in a span, in key order.
    pub fn in_span(&self, span: &Span) -> VecDeque<(Bytes, Write)> {
        if span.is_empty() {
            return VecDeque::new();
        }
        let end = match span.end.is_empty() {
            true => Bound::Unbounded,
            false => Bound::Excluded(&span.end[..]),
        };
        let writes = self.writes.range::<[u8], _>((Bound::Included(&span.start[..]), end));
        writes.map(|(key, write)| (key.clone(), write.clone())).collect()
    }

    /// Every write, in key order.
    pub fn into_mutations(self) -> Vec<Mutation> {
        self.writes.into_iter().map(|(key, write)| Mutation { key, write }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(bytes: usize) -> Write {
        Write::Put { value: vec![b'v'; bytes].into() }
    }

    #[test]
    fn the_last_write_to_a_key_counts_and_so_do_its_bytes() {
        let mut buffer = Buffer::default();
        let large = TRANSACTION_BYTES_MAX - 1;
        buffer.set("k".into(), put(large)).unwrap();
        let error = buffer.set("l".into(), Write::Delete).unwrap_err();
        assert!(error.to_string().contains(&TRANSACTION_BYTES_MAX.to_string()), "{error}");
        buffer.set("k".into(), put(large - 1)).unwrap();
        buffer.set("l".into(), Write::Delete).unwrap();
        buffer.set("k".into(), Write::Delete).unwrap();
        assert_eq!(buffer.bytes, 2);
        assert_eq!(buffer.get(b"k"), Some(&Write::Delete));
    }

    #[test]
    fn going_back_to_a_savepoint_puts_back_what_was_there_then() {
        let mut buffer = Buffer::default();
        buffer.set("a".into(), put(1)).unwrap();
        let start = buffer.clone();
        let first = buffer.savepoint().unwrap();
        buffer.set("a".into(), put(2)).unwrap();
        buffer.set("b".into(), put(3)).unwrap();
        let middle = (buffer.writes.clone(), buffer.bytes);
        let second = buffer.savepoint().unwrap();
        buffer.set("a".into(), put(4)).unwrap();
        buffer.set("a".into(), Write::Delete).unwrap();
        buffer.set("c".into(), put(5)).unwrap();
        for _ in 0..2 {
            assert!(buffer.roll_back_to(second));
            assert_eq!((buffer.writes.clone(), buffer.bytes), middle);
            buffer.set("b".into(), Write::Delete).unwrap();
        }
        assert!(buffer.roll_back_to(first));
        assert_eq!((&buffer.writes, buffer.bytes), (&start.writes, start.bytes));
        assert!(!buffer.roll_back_to(second), "it is later, and gone");
        assert!(buffer.roll_back_to(first));
    }

    #[test]
    fn one_key_too_many_is_refused_and_the_others_stay_open() {
        let mut buffer = Buffer::default();
        let key = |at: usize| Bytes::from(at.to_be_bytes().to_vec());
        for at in 0..TRANSACTION_KEYS_MAX {
            buffer.set(key(at), Write::Delete).unwrap();
        }
        let error = buffer.set(key(TRANSACTION_KEYS_MAX), Write::Delete).unwrap_err();
        assert!(matches!(error, Error::TooLarge { limit, .. } if limit == 1_000_000), "{error}");
        buffer.set(key(0), put(1)).unwrap();
    }
}
