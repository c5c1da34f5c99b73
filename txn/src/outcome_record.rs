//! Outcome record of a transaction over ranges at a key where it left no version.
//!
//! A committed write needs no such record: its version carries the start_ts. Two cases do:
//!
//! - A rollback would leave nothing. A delayed prewrite would then be accepted after the
//!   transaction was rolled back.
//! - A primary that was locked but never written has no version to show that its transaction
//!   committed.
//!
//! ```text
//! lock   escaped key, "r", start_ts:8   ->   01  commit_ts:8     0: rolled back
//! ```
//!
//! All numbers are big-endian. The record stands in the lock family, after the lock of its key. It
//! is told from the range record by its length.

use bytes::Bytes;
use rangedb_storage::{Batch, ColumnFamily, Error, Reader, Result, keys};

use crate::planted::planted;
use crate::versions::at_key;

const SUFFIX: &[u8] = b"r";
const FORMAT: u8 = 1;

/// Outcome of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Committed { commit_ts: u64 },
    RolledBack,
}

impl Outcome {
    fn position(key: &[u8], start_ts: u64) -> Bytes {
        [&keys::lock(key)[..], SUFFIX, &start_ts.to_be_bytes()].concat().into()
    }

    /// Returns the start_ts in the stored key of an outcome record; `None` for another kind of
    /// record. `behind` are the bytes after the user key.
    pub(crate) fn parse_start_ts(behind: &[u8]) -> Option<u64> {
        let start_ts = behind.strip_prefix(SUFFIX)?.try_into().ok()?;
        Some(u64::from_be_bytes(start_ts))
    }

    /// Reads the transaction's record at the key.
    pub(crate) fn read(reader: &dyn Reader, key: &[u8], start_ts: u64) -> Result<Option<Self>> {
        match reader.get(ColumnFamily::Lock, &Self::position(key, start_ts))? {
            None => Ok(None),
            Some(stored) => at_key(key, Self::decode(&stored)).map(Some),
        }
    }

    pub(crate) fn write(self, batch: &mut Batch<'_>, key: &[u8], start_ts: u64) {
        if planted!(RollbackRecordForgotten) && self == Self::RolledBack {
            return;
        }
        batch.put(ColumnFamily::Lock, Self::position(key, start_ts), self.encode());
    }

    fn encode(self) -> Bytes {
        let commit_ts = match self {
            Outcome::Committed { commit_ts } => commit_ts,
            Outcome::RolledBack => 0,
        };
        [&[FORMAT][..], &commit_ts.to_be_bytes()].concat().into()
    }

    fn decode(stored: &[u8]) -> Result<Self> {
        let commit_ts = match stored {
            [FORMAT, number @ ..] => number.try_into().ok().map(u64::from_be_bytes),
            _ => None,
        };
        match commit_ts {
            Some(0) => Ok(Outcome::RolledBack),
            Some(commit_ts) => Ok(Outcome::Committed { commit_ts }),
            None => Err(Error::damaged(format!("outcome record \"{}\"", stored.escape_ascii()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use rangedb_storage::keys::key_span;

    use super::*;
    use crate::range_record::RangeRecord;

    #[test]
    fn stands_among_its_keys_records_and_at_no_other_records_place() {
        for key in [&b"a"[..], b"a\x00", b"a\x00r", b"\xff"] {
            for start_ts in [1, u64::from_be_bytes(*b"ange\0\0\0\0"), u64::MAX] {
                let position = Outcome::position(key, start_ts);
                assert!(key_span(key).contains(&position), "{key:?} {start_ts}");
                assert!(keys::parse_user_key(&position).is_err(), "{key:?} {start_ts}");
                assert_ne!(position, RangeRecord::position(key).1, "{key:?} {start_ts}");
            }
        }
    }

    #[test]
    fn what_was_not_written_by_encode_is_corrupt() {
        for outcome in [Outcome::RolledBack, Outcome::Committed { commit_ts: 7 }] {
            let stored = outcome.encode();
            assert_eq!(Outcome::decode(&stored).unwrap(), outcome);
            assert!(Outcome::decode(&stored[..8]).is_err());
            assert!(Outcome::decode(&[&stored[..], b"x"].concat()).is_err());
        }
        assert!(Outcome::decode(b"\x02\0\0\0\0\0\0\0\0").is_err());
    }
}
