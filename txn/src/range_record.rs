//! Range record: facts about a range that no record of one key holds. They are the timestamp of its
//! last commit, which the next must exceed, the bounds below which the past may be dropped, and the
//! range's size.
//!
//! The record must survive and travel together with the range's data. So it stands among the data:
//! in the lock family, behind the escaped start key of the range.
//!
//! ```text
//! lock   escaped start key, "range"   ->   01  last_commit_ts:8  floor_ts:8  collected_below_ts:8
//!                                              rows:8  bytes:8
//! ```
//!
//! All numbers are big-endian. No escaped key is the beginning of another, so no user key's record
//! can stand there. The position lies within the range's own span, so a snapshot carries the record,
//! and emptying the span removes it. The record is rewritten with every batch of commits. In the
//! lock family, which is almost empty, this costs no scan anything. A walk over locks recognises the
//! record by its length and skips it.
//!
//! The left half of a split keeps the start key and so the record. The split must write a copy at
//! the right half's start key, in the batch that divides the range, and divide the size. A merge
//! must keep the larger of each timestamp and the sum of the sizes, at the start key that remains.

use bytes::Bytes;
use rangedb_storage::{ColumnFamily, Error, RangeSize, Reader, Result, keys};

const SUFFIX: &[u8] = b"range";
const FORMAT: u8 = 1;

/// Last commit, floors and size of a range. Invariant: `collected_below_ts <= floor_ts`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct RangeRecord {
    /// Highest commit timestamp that a command of this range ever got; 0 if none did.
    pub(crate) last_commit_ts: u64,
    /// GC floor. No read below it is served, and no transaction that started below it takes new
    /// locks or commits in one range.
    pub(crate) floor_ts: u64,
    /// Bound of garbage collection. Versions that ended below it may be gone, and with them the
    /// records of transactions that started below it.
    pub(crate) collected_below_ts: u64,
    pub(crate) size: RangeSize,
}

impl RangeRecord {
    /// Returns the column family and the stored key of the record of the range that begins at
    /// `start_key`.
    pub(crate) fn position(start_key: &[u8]) -> (ColumnFamily, Bytes) {
        (ColumnFamily::Lock, [&keys::lock(start_key)[..], SUFFIX].concat().into())
    }

    /// Reads the record of the range that begins at `start_key`. Without a stored record, all
    /// numbers are 0.
    pub(crate) fn read(state: &dyn Reader, start_key: &[u8]) -> Result<Self> {
        let (cf, key) = Self::position(start_key);
        match state.get(cf, &key)? {
            None => Ok(Self::default()),
            Some(stored) => Self::decode(&stored),
        }
    }

    pub(crate) fn encode(self) -> Bytes {
        let RangeRecord { last_commit_ts, floor_ts, collected_below_ts, size } = self;
        let mut out = vec![FORMAT];
        for number in [last_commit_ts, floor_ts, collected_below_ts, size.rows, size.bytes] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.into()
    }

    fn decode(stored: &[u8]) -> Result<Self> {
        decode(stored)
            .filter(|record| record.collected_below_ts <= record.floor_ts)
            .ok_or_else(|| Error::damaged(format!("range record \"{}\"", stored.escape_ascii())))
    }
}

fn decode(stored: &[u8]) -> Option<RangeRecord> {
    let [FORMAT, rest @ ..] = stored else { return None };
    let numbers: Option<Vec<u64>> =
        rest.chunks(8).map(|number| Some(u64::from_be_bytes(number.try_into().ok()?))).collect();
    let [last_commit_ts, floor_ts, collected_below_ts, rows, bytes] = numbers?[..] else {
        return None;
    };
    let size = RangeSize { rows, bytes };
    Some(RangeRecord { last_commit_ts, floor_ts, collected_below_ts, size })
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
        let size = RangeSize { rows: 2, bytes: 300 };
        let full = RangeRecord { last_commit_ts: 7, floor_ts: 5, collected_below_ts: 4, size };
        let drawn =
            [&b"\x01"[..], &7_u64.to_be_bytes(), &5_u64.to_be_bytes(), &4_u64.to_be_bytes()];
        let drawn = [&drawn.concat()[..], &2_u64.to_be_bytes(), &300_u64.to_be_bytes()].concat();
        assert_eq!(full.encode(), drawn);
        for record in [RangeRecord::default(), full] {
            let encoded = record.encode();
            assert_eq!(RangeRecord::decode(&encoded).unwrap(), record);
            for cut in 0..encoded.len() {
                assert!(RangeRecord::decode(&encoded[..cut]).is_err(), "{record:?} cut to {cut}");
            }
            assert!(RangeRecord::decode(&[&encoded[..], b"x"].concat()).is_err());
            let more = [&encoded[..], &[0; 8]].concat();
            assert!(RangeRecord::decode(&more).is_err());
            for format in [0, 2] {
                let other = [&[format][..], &encoded[1..]].concat();
                assert!(RangeRecord::decode(&other).is_err(), "{record:?} as format {format}");
            }
        }
        let crossed = RangeRecord { floor_ts: 3, collected_below_ts: 4, ..full };
        assert!(RangeRecord::decode(&crossed.encode()).is_err(), "it collects above its floor");
    }
}
