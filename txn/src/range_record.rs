//! What a range remembers of its own commits beside the keys they wrote: the timestamp of the last
//! one, which the next must exceed.
//!
//! It must survive whatever the data survives and travel wherever the data travels, so it stands
//! among the data: in the lock family, behind the escaped start key of the range.
//!
//! ```text
//! lock   escaped start key, "range"   ->   01  last_commit_ts:8
//! ```
//!
//! No escaped key is the beginning of another, so no user key's record can stand there, and the
//! position lies within the range's own span: a snapshot carries it and emptying the span removes
//! it. The lock family is the one that is almost empty, so a record rewritten with every batch of
//! commits costs no scan anything. A walk over locks skips it by its length.
//!
//! The left half of a split keeps the start key and so the record; the split must write a copy at
//! the right half's start key, in the batch that divides the range. A merge must keep the larger of
//! the two at the start key that remains.

use bytes::Bytes;
use rangedb_storage::{ColumnFamily, Error, Reader, Result, keys};

const SUFFIX: &[u8] = b"range";
const FORMAT: u8 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct RangeRecord {
    /// Highest commit timestamp that a command of this range ever got. 0: none did.
    pub(crate) last_commit_ts: u64,
}

impl RangeRecord {
    /// Where the record of the range that begins at `start_key` stands.
    pub(crate) fn position(start_key: &[u8]) -> (ColumnFamily, Bytes) {
        (ColumnFamily::Lock, [&keys::lock(start_key)[..], SUFFIX].concat().into())
    }

    /// The record of the range that begins at `start_key`, or that of a range without commits.
    pub(crate) fn read(state: &dyn Reader, start_key: &[u8]) -> Result<Self> {
        let (cf, key) = Self::position(start_key);
        match state.get(cf, &key)? {
            None => Ok(Self::default()),
            Some(stored) => Self::decode(&stored),
        }
    }

    pub(crate) fn encode(self) -> Bytes {
        [&[FORMAT][..], &self.last_commit_ts.to_be_bytes()].concat().into()
    }

    fn decode(stored: &[u8]) -> Result<Self> {
        let last_commit_ts = match stored {
            [FORMAT, number @ ..] => number.try_into().ok().map(u64::from_be_bytes),
            _ => None,
        };
        last_commit_ts
            .map(|last_commit_ts| RangeRecord { last_commit_ts })
            .ok_or_else(|| Error::corrupt(format!("range record \"{}\"", stored.escape_ascii())))
    }
}

#[cfg(test)]
mod tests {
    use rangedb_storage::keys::{data_span, key_span};

    use super::*;

    #[test]
    fn stands_within_the_span_of_its_range_and_at_no_keys_own_place() {
        for start in [&b""[..], b"\x00", b"a", b"a\x00", b"_/b"] {
            let (_, position) = RangeRecord::position(start);
            assert!(data_span(start, b"b").contains(&position), "{start:?}");
            assert!(keys::parse_user_key(&position).is_err(), "{start:?}");
            let neighbour = [start, b"\x00"].concat();
            assert!(!key_span(&neighbour).contains(&position), "{start:?}");
        }
    }

    #[test]
    fn what_was_not_written_by_encode_is_corrupt() {
        let record = RangeRecord { last_commit_ts: 7 };
        let encoded = record.encode();
        assert_eq!(RangeRecord::decode(&encoded).unwrap(), record);
        for stored in
            [&b""[..], &encoded[..8], b"\x02\0\0\0\0\0\0\0\x07", b"\x01\0\0\0\0\0\0\0\0\0"]
        {
            assert!(RangeRecord::decode(stored).is_err(), "{stored:?}");
        }
    }
}
