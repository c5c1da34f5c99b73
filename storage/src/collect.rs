//! Garbage collection rules that look at one record alone.
//!
//! No reader sees a record at or below a bound: a superseded version by its `end_ts`, a deleted
//! marker by its `mod_ts` (design D4). A version with its value in the value family is not dropped
//! here, because the value would stay behind: the walk of garbage collection over the history
//! deletes both. The start record of such a version is dropped, because nobody looks it up below
//! the bound. A record that does not decode is kept, so that it can be found.

use crate::{ColumnFamily, HistoryRecord, Record, RecordValue, StartRecord};

/// True if no reader sees the record at this bound and nothing else depends on it. At bound 0 it is
/// false for every record.
pub fn is_collectable(cf: ColumnFamily, stored: &[u8], bound: u64) -> bool {
    match cf {
        // Both formats begin with one byte and then the timestamp that decides, so that most
        // records are kept without decoding them.
        ColumnFamily::Current if leading_timestamp(stored).is_some_and(|ts| ts <= bound) => {
            Record::decode_slice(stored).is_ok_and(|record| record.is_deleted())
        }
        ColumnFamily::History if leading_timestamp(stored).is_some_and(|ts| ts <= bound) => {
            let by_reference = |value| matches!(value, RecordValue::Reference { .. });
            StartRecord::decode(stored).is_ok()
                || HistoryRecord::decode_slice(stored)
                    .is_ok_and(|superseded| !by_reference(superseded.record.value))
        }
        _ => false,
    }
}

/// Returns the mod_ts of a record in `current`, or the end_ts of one in `history`. No committed
/// record has 0 there, so bound 0 drops nothing.
fn leading_timestamp(stored: &[u8]) -> Option<u64> {
    let (_, rest) = stored.split_first()?;
    let (timestamp, _) = rest.split_first_chunk()?;
    Some(u64::from_be_bytes(*timestamp)).filter(|timestamp| *timestamp > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(mod_ts: u64, value: RecordValue) -> Record {
        match value {
            RecordValue::Deleted => {
                Record { mod_ts, start_ts: 1, create_ts: 0, version: 0, lease_id: 0, value }
            }
            _ => Record { mod_ts, start_ts: 1, create_ts: 2, version: 1, lease_id: 0, value },
        }
    }

    #[test]
    fn a_deleted_marker_goes_at_its_mod_ts_and_a_value_never() {
        use ColumnFamily::Current;
        let marker = record(10, RecordValue::Deleted).encode();
        let value = record(10, RecordValue::Inline("v".into())).encode();
        for (bound, gone) in [(0, false), (9, false), (10, true), (u64::MAX, true)] {
            assert_eq!(is_collectable(Current, &marker, bound), gone, "{bound}");
            assert!(!is_collectable(Current, &value, bound), "{bound}");
        }
    }

    #[test]
    fn a_superseded_version_goes_at_its_end_ts_unless_its_value_stands_elsewhere() {
        let stored = |value| HistoryRecord { record: record(10, value), end_ts: 20 }.encode();
        let inline = stored(RecordValue::Inline("v".into()));
        let deleted = stored(RecordValue::Deleted);
        let elsewhere = stored(RecordValue::Reference { bytes: 9000 });
        for (bound, gone) in [(0, false), (10, false), (19, false), (20, true), (21, true)] {
            assert_eq!(is_collectable(ColumnFamily::History, &inline, bound), gone, "{bound}");
            assert_eq!(is_collectable(ColumnFamily::History, &deleted, bound), gone, "{bound}");
            assert!(!is_collectable(ColumnFamily::History, &elsewhere, bound), "{bound}");
        }
        let by_start = StartRecord { end_ts: 20, mod_ts: 10 }.encode();
        for (bound, gone) in [(0, false), (10, false), (19, false), (20, true)] {
            assert_eq!(is_collectable(ColumnFamily::History, &by_start, bound), gone, "{bound}");
        }
        for cf in [ColumnFamily::Value, ColumnFamily::Lock, ColumnFamily::Meta] {
            assert!(!is_collectable(cf, &inline, u64::MAX), "{cf:?}");
        }
    }

    #[test]
    fn what_cannot_be_decoded_is_kept() {
        let marker = record(10, RecordValue::Deleted).encode();
        let longer = [&marker[..], b"x"].concat();
        let other_format = [&[2], &marker[1..]].concat();
        for stored in [&b""[..], b"\x01", &marker[..9], &longer, &other_format, &[1; 40]] {
            for cf in ColumnFamily::ALL {
                assert!(!is_collectable(cf, stored, u64::MAX), "{cf:?} {stored:?}");
            }
        }
    }
}
