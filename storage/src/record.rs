//! Records of committed versions, in `current` and `history`.
//!
//! ```text
//! current   01  mod_ts:8  kind:1  [body]
//! history   01  end_ts:8  mod_ts:8  kind:1  [body]
//!           02  end_ts:8  mod_ts:8                   which version a command wrote
//!
//! kind 0, deleted        body: mod_ts - start_ts
//! kind 1, put inline     body: mod_ts - start_ts, mod_ts - create_ts, version, lease id, value
//! kind 2, put elsewhere  body: mod_ts - start_ts, mod_ts - create_ts, version, lease id, length
//! ```
//!
//! The first byte is the record's format. Timestamps in front are big-endian at fixed offsets, so
//! that garbage collection decides by them without decoding the rest. The other numbers are
//! varints. Timestamps among these are differences, because most timestamps of a record are close
//! to each other. A delete resets version, create_ts and lease, so a deleted record does not carry
//! them.
//!
//! The formats never change (`docs/storage-format.md`). Only the crate `txn` writes and reads
//! records of the lock family.

use bytes::Bytes;

use crate::{Error, Result, varint};

/// Longest value that stands in its record, in bytes. A longer one goes to the value family, so
/// that an overwrite moves only a small record from `current` to `history`. At 256 bytes inline an
/// overwrite is cheaper than with versions side by side, at 2 KiB it is not (docs/architecture.md,
/// D4). Between the two, the second lookup of a read decides.
pub const INLINE_VALUE_BYTES_MAX: usize = 512;

/// Upper limits of numbers in a record. No sound record exceeds them, but a damaged one may, and
/// code that adds to these numbers must not overflow.
const VERSION_MAX: u64 = u64::MAX >> 1;
const REFERENCE_BYTES_MAX: u64 = 1 << 40;

const FORMAT: u8 = 1;
const BY_START_FORMAT: u8 = 2;
const DELETED: u8 = 0;
const INLINE: u8 = 1;
const REFERENCE: u8 = 2;
/// Format, two timestamps, kind and five varints of a typical record; a hint for allocation.
const OVERHEAD_BYTES: usize = 32;

/// Value of a version, or the mark of a delete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecordValue {
    Deleted,
    /// At most [`INLINE_VALUE_BYTES_MAX`] bytes.
    Inline(Bytes),
    /// The value is in the value family, under the record's start_ts.
    Reference {
        bytes: u64,
    },
}

impl RecordValue {
    /// Representation of this value in a record. For a reference the caller must write the value
    /// family too.
    pub fn of(value: &Bytes) -> Self {
        if value.len() <= INLINE_VALUE_BYTES_MAX {
            RecordValue::Inline(value.clone())
        } else {
            RecordValue::Reference { bytes: value.len() as u64 }
        }
    }
}

/// A committed version of a key.
///
/// Invariants: `start_ts <= mod_ts` and `create_ts <= mod_ts`; of a deleted version `create_ts`,
/// `version` and `lease_id` are 0; of any other `version` is at least 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Commit timestamp.
    pub mod_ts: u64,
    /// Timestamp at which the transaction began; distinguishes a repeated command from a new one.
    pub start_ts: u64,
    /// mod_ts of the version that created the key.
    pub create_ts: u64,
    /// 1 when created, one more for each write since.
    pub version: u64,
    /// 0 if no lease is attached.
    pub lease_id: u64,
    pub value: RecordValue,
}

impl Record {
    pub fn is_deleted(&self) -> bool {
        self.value == RecordValue::Deleted
    }

    /// Encodes the record for the current family.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(OVERHEAD_BYTES + self.inline().len());
        out.push(FORMAT);
        self.encode_body(&mut out);
        out.into()
    }

    /// Decodes a record of the current family. An inline value shares the stored bytes.
    ///
    /// # Errors
    /// [`Error::Damaged`] if [`Record::encode`] did not make these bytes.
    pub fn decode(stored: &Bytes) -> Result<Self> {
        Self::decode_with(stored, |value| stored.slice_ref(value))
    }

    /// Decodes like [`Record::decode`], from borrowed bytes such as those of a scan: copies an
    /// inline value.
    pub fn decode_slice(stored: &[u8]) -> Result<Self> {
        Self::decode_with(stored, Bytes::copy_from_slice)
    }

    fn decode_with(stored: &[u8], own: impl FnOnce(&[u8]) -> Bytes) -> Result<Self> {
        let body = take_format(stored)?;
        decode_body(body, own).ok_or_else(|| malformed("current", stored))
    }

    fn inline(&self) -> &[u8] {
        match &self.value {
            RecordValue::Inline(value) => value,
            RecordValue::Deleted | RecordValue::Reference { .. } => &[],
        }
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        self.assert_sound();
        out.extend_from_slice(&self.mod_ts.to_be_bytes());
        out.push(match self.value {
            RecordValue::Deleted => DELETED,
            RecordValue::Inline(_) => INLINE,
            RecordValue::Reference { .. } => REFERENCE,
        });
        varint::put(out, self.mod_ts - self.start_ts);
        if self.is_deleted() {
            return;
        }
        varint::put(out, self.mod_ts - self.create_ts);
        varint::put(out, self.version);
        varint::put(out, self.lease_id);
        if let RecordValue::Reference { bytes } = self.value {
            varint::put(out, bytes);
        }
        out.extend_from_slice(self.inline());
    }

    fn assert_sound(&self) {
        let Self { mod_ts, start_ts, create_ts, version, lease_id, .. } = *self;
        assert!(start_ts <= mod_ts, "start_ts {start_ts} is after mod_ts {mod_ts}");
        assert!(create_ts <= mod_ts, "create_ts {create_ts} is after mod_ts {mod_ts}");
        if self.is_deleted() {
            assert_eq!((create_ts, version, lease_id), (0, 0, 0), "a delete resets these");
        } else {
            assert!(version > 0, "a version that has a value counts from 1");
        }
        let inline = self.inline().len();
        assert!(inline <= INLINE_VALUE_BYTES_MAX, "an inline value of {inline} bytes");
    }
}

/// A version that a later one superseded.
///
/// Invariant: `end_ts > record.mod_ts`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryRecord {
    pub record: Record,
    /// mod_ts of the superseding version: reads at this timestamp and later do not see this one.
    pub end_ts: u64,
}

impl HistoryRecord {
    /// Encodes the record for the history family.
    pub fn encode(&self) -> Bytes {
        let (mod_ts, end_ts) = (self.record.mod_ts, self.end_ts);
        assert!(mod_ts < end_ts, "a version of {mod_ts} superseded at {end_ts}");
        let mut out = Vec::with_capacity(OVERHEAD_BYTES + self.record.inline().len());
        out.push(FORMAT);
        out.extend_from_slice(&end_ts.to_be_bytes());
        self.record.encode_body(&mut out);
        out.into()
    }

    /// Decodes a record of the history family. An inline value shares the stored bytes.
    ///
    /// # Errors
    /// [`Error::Damaged`] if [`HistoryRecord::encode`] did not make these bytes.
    pub fn decode(stored: &Bytes) -> Result<Self> {
        Self::decode_with(stored, |value| stored.slice_ref(value))
    }

    /// Decodes like [`HistoryRecord::decode`], from borrowed bytes: copies an inline value.
    pub fn decode_slice(stored: &[u8]) -> Result<Self> {
        Self::decode_with(stored, Bytes::copy_from_slice)
    }

    fn decode_with(stored: &[u8], own: impl FnOnce(&[u8]) -> Bytes) -> Result<Self> {
        let mut body = take_format(stored)?;
        take_timestamp(&mut body)
            .and_then(|end_ts| {
                let record = decode_body(body, own)?;
                (record.mod_ts < end_ts).then_some(Self { record, end_ts })
            })
            .ok_or_else(|| malformed("history", stored))
    }
}

/// Record beside a superseded version, under the start_ts of the command that wrote the version.
/// One lookup then tells whether a command wrote the key, however many writes followed.
///
/// Invariant: `end_ts > mod_ts`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StartRecord {
    /// end_ts of the version: the record may go when the version may go.
    pub end_ts: u64,
    /// The version's commit timestamp.
    pub mod_ts: u64,
}

impl StartRecord {
    pub fn encode(&self) -> Bytes {
        let Self { end_ts, mod_ts } = *self;
        assert!(mod_ts < end_ts, "a version of {mod_ts} superseded at {end_ts}");
        [&[BY_START_FORMAT][..], &end_ts.to_be_bytes(), &mod_ts.to_be_bytes()].concat().into()
    }

    /// Decodes a record.
    ///
    /// # Errors
    /// [`Error::Damaged`] if [`StartRecord::encode`] did not make these bytes.
    pub fn decode(stored: &[u8]) -> Result<Self> {
        let numbers = || {
            let (format, mut rest) = stored.split_first()?;
            let (end_ts, mod_ts) = (take_timestamp(&mut rest)?, take_timestamp(&mut rest)?);
            let is_sound = *format == BY_START_FORMAT && rest.is_empty() && mod_ts < end_ts;
            is_sound.then_some(Self { end_ts, mod_ts })
        };
        numbers().ok_or_else(|| malformed("start", stored))
    }
}

fn decode_body(mut body: &[u8], own: impl FnOnce(&[u8]) -> Bytes) -> Option<Record> {
    let mod_ts = take_timestamp(&mut body)?;
    let (kind, rest) = body.split_first()?;
    body = rest;
    let start_ts = mod_ts.checked_sub(varint::take(&mut body)?)?;
    if *kind == DELETED {
        let value = RecordValue::Deleted;
        let record = Record { mod_ts, start_ts, create_ts: 0, version: 0, lease_id: 0, value };
        return body.is_empty().then_some(record);
    }
    let create_ts = mod_ts.checked_sub(varint::take(&mut body)?)?;
    let version = varint::take(&mut body).filter(|found| (1..=VERSION_MAX).contains(found))?;
    let lease_id = varint::take(&mut body)?;
    let value = match *kind {
        INLINE if body.len() <= INLINE_VALUE_BYTES_MAX => RecordValue::Inline(own(body)),
        REFERENCE => {
            let bytes = varint::take(&mut body).filter(|bytes| *bytes <= REFERENCE_BYTES_MAX)?;
            body.is_empty().then_some(RecordValue::Reference { bytes })?
        }
        _ => return None,
    };
    Some(Record { mod_ts, start_ts, create_ts, version, lease_id, value })
}

fn take_format(stored: &[u8]) -> Result<&[u8]> {
    match stored.split_first() {
        Some((&FORMAT, body)) => Ok(body),
        Some((format, _)) => {
            Err(Error::damaged(format!("a record of format {format}; this version knows {FORMAT}")))
        }
        None => Err(Error::damaged("an empty record")),
    }
}

fn take_timestamp(body: &mut &[u8]) -> Option<u64> {
    let (bytes, rest) = body.split_first_chunk()?;
    *body = rest;
    Some(u64::from_be_bytes(*bytes))
}

fn malformed(family: &str, stored: &[u8]) -> Error {
    let head = &stored[..stored.len().min(OVERHEAD_BYTES)];
    let length = stored.len();
    Error::damaged(format!("a malformed {family} record of {length} bytes: {head:02x?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random_record(rng: &mut fastrand::Rng) -> Record {
        let mod_ts = rng.u64(..) >> rng.u32(0..64);
        let start_ts = rng.u64(0..=mod_ts);
        let value = match rng.u8(0..3) {
            0 => RecordValue::Deleted,
            1 => RecordValue::Inline(
                (0..rng.usize(0..=INLINE_VALUE_BYTES_MAX)).map(|_| rng.u8(..)).collect(),
            ),
            _ => RecordValue::Reference { bytes: rng.u64(..) >> rng.u32(24..64) },
        };
        if value == RecordValue::Deleted {
            return Record { mod_ts, start_ts, create_ts: 0, version: 0, lease_id: 0, value };
        }
        let create_ts = rng.u64(0..=mod_ts);
        let version = rng.u64(1..=VERSION_MAX);
        Record { mod_ts, start_ts, create_ts, version, lease_id: rng.u64(..), value }
    }

    #[test]
    fn records_come_back_as_they_were() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let record = random_record(&mut rng);
            let stored = record.encode();
            assert_eq!(Record::decode(&stored).unwrap(), record);
            assert_eq!(Record::decode_slice(&stored).unwrap(), record);
            if record.mod_ts < u64::MAX {
                let end_ts = rng.u64(record.mod_ts + 1..=u64::MAX);
                let history = HistoryRecord { record, end_ts };
                let stored = history.encode();
                assert_eq!(HistoryRecord::decode(&stored).unwrap(), history);
                assert_eq!(HistoryRecord::decode_slice(&stored).unwrap(), history);
            }
        }
    }

    #[test]
    fn a_record_has_exactly_these_bytes() {
        let record = Record {
            mod_ts: 0x0102_0304_0506_0708,
            start_ts: 0x0102_0304_0506_0707,
            create_ts: 0x0102_0304_0506_0608,
            version: 3,
            lease_id: 300,
            value: RecordValue::Inline(Bytes::from_static(b"v")),
        };
        let body = [1, 2, 3, 4, 5, 6, 7, 8, 1, 1, 0x80, 2, 3, 0xac, 2, b'v'];
        assert_eq!(record.encode(), [&[1][..], &body].concat());
        let end_ts = record.mod_ts + 1;
        let history = HistoryRecord { record, end_ts };
        assert_eq!(history.encode(), [&[1, 1, 2, 3, 4, 5, 6, 7, 9][..], &body].concat());
    }

    #[test]
    fn a_start_record_has_exactly_these_bytes_and_no_others() {
        let record = StartRecord { end_ts: 0x0102, mod_ts: 0x0101 };
        let stored = record.encode();
        assert_eq!(stored, [2, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 1, 1][..]);
        assert_eq!(StartRecord::decode(&stored).unwrap(), record);
        assert!(HistoryRecord::decode(&stored).is_err());
        for cut in 0..stored.len() {
            assert!(StartRecord::decode(&stored[..cut]).is_err(), "{cut}");
        }
        assert!(StartRecord::decode(&[&stored[..], b"x"].concat()).is_err());
        let backwards = [&[2][..], &5u64.to_be_bytes(), &5u64.to_be_bytes()].concat();
        assert!(StartRecord::decode(&backwards).is_err());
    }

    #[test]
    fn the_example_in_the_format_document_is_right() {
        let value = RecordValue::Inline(Bytes::from_static(b"v"));
        let record =
            Record { mod_ts: 100, start_ts: 99, create_ts: 100, version: 1, lease_id: 0, value };
        assert_eq!(record.encode(), [1, 0, 0, 0, 0, 0, 0, 0, 100, 1, 1, 0, 1, 0, b'v'][..]);
    }

    #[test]
    fn every_cut_of_a_record_without_inline_value_is_refused() {
        let value = RecordValue::Reference { bytes: 70_000 };
        let record =
            Record { mod_ts: 900, start_ts: 800, create_ts: 700, version: 2, lease_id: 9, value };
        let history = HistoryRecord { record: record.clone(), end_ts: 901 }.encode();
        let current = record.encode();
        for length in 0..current.len() {
            assert!(Record::decode_slice(&current[..length]).is_err(), "{length}");
        }
        for length in 0..history.len() {
            assert!(HistoryRecord::decode_slice(&history[..length]).is_err(), "{length}");
        }
        assert!(Record::decode_slice(&[&current[..], b"x"].concat()).is_err());
    }

    #[test]
    fn damaged_records_are_refused_or_decode_to_sound_ones() {
        let mut rng = fastrand::Rng::with_seed(2);
        for _ in 0..20_000 {
            let mut stored = random_record(&mut rng).encode().to_vec();
            let place = rng.usize(0..stored.len());
            stored[place] ^= 1 << rng.u32(0..8);
            if let Ok(record) = Record::decode_slice(&stored) {
                assert_eq!(record.encode(), stored, "one spelling for each record");
            }
        }
    }

    #[test]
    fn figures_that_nothing_can_be_added_to_are_refused() {
        let reference = |version, bytes| {
            let value = RecordValue::Reference { bytes };
            Record { mod_ts: 9, start_ts: 9, create_ts: 9, version, lease_id: 0, value }.encode()
        };
        assert!(Record::decode(&reference(VERSION_MAX, REFERENCE_BYTES_MAX)).is_ok());
        assert!(Record::decode(&reference(VERSION_MAX + 1, 600)).is_err());
        assert!(Record::decode(&reference(1, REFERENCE_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn an_unknown_format_is_named() {
        let message = Record::decode_slice(&[9, 0, 0]).unwrap_err().to_string();
        assert!(message.contains("format 9"), "{message}");
    }

    #[test]
    fn values_above_the_limit_go_by_reference() {
        let limit = INLINE_VALUE_BYTES_MAX;
        assert!(matches!(RecordValue::of(&vec![0; limit].into()), RecordValue::Inline(_)));
        let above = RecordValue::of(&vec![0; limit + 1].into());
        assert_eq!(above, RecordValue::Reference { bytes: limit as u64 + 1 });
    }
}
