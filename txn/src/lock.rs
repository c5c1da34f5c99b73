//! Lock records: what a transaction over ranges leaves at a key until it is decided.
//!
//! ```text
//! lock   escaped key   ->   01  kind:1  start_ts:8  min_commit_ts:8  alive_until_ms:8
//!                           for_update_ts:8  primary length:2  primary
//!                           commit:1  [secondaries:2  { length:2  key }]  [body]
//!
//! commit 0, two phases   no secondaries
//! commit 1, asynchronous the secondaries: at the primary all, elsewhere none
//!
//! kind 0, delete         body: nothing
//! kind 1, put inline     body: lease id:8, value
//! kind 2, put elsewhere  body: lease id:8, length:8
//! kind 3, pessimistic    body: nothing
//! ```
//!
//! All numbers are big-endian. Locks are few and live briefly, so the record is simple rather than
//! small. A long value goes to the value family at once, under the transaction's start_ts. Its
//! version will look for it there, so committing moves no value.

use bytes::Bytes;
use rangedb_proto::v1::KeyLocked;
use rangedb_storage::{ColumnFamily, Error, Reader, RecordValue, Result, keys};

use crate::read::ReadAt;
use crate::versions::at_key;

const FORMAT: u8 = 1;
const TWO_PHASES: u8 = 0;
const ASYNCHRONOUS: u8 = 1;
const DELETE: u8 = 0;
const PUT_INLINE: u8 = 1;
const PUT_ELSEWHERE: u8 = 2;
const PESSIMISTIC: u8 = 3;

/// An uncommitted write, or the reservation of one.
///
/// Invariant: `min_commit_ts > start_ts`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Lock {
    /// Identifies the transaction that holds the lock.
    pub(crate) start_ts: u64,
    /// Lowest timestamp at which the transaction may commit. Readers below it do not wait for the
    /// lock.
    pub(crate) min_commit_ts: u64,
    /// Milliseconds of the oracle up to which the transaction lives without a heartbeat. Only the
    /// value in the primary's lock counts.
    pub(crate) alive_until_ms: u64,
    /// For a pessimistic lock: it was taken over versions committed up to this timestamp.
    pub(crate) for_update_ts: u64,
    /// The key whose lock decides the transaction.
    pub(crate) primary: Bytes,
    /// For an asynchronous commit: at the primary, the other keys that it locks; elsewhere empty.
    /// The transaction is committed when all of them are locked, so from then on neither time nor a
    /// reader can change its outcome.
    pub(crate) async_commit: Option<Vec<Bytes>>,
    pub(crate) kind: LockKind,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum LockKind {
    /// The key's next version; the lease id of a deletion is 0.
    Write { value: RecordValue, lease_id: u64 },
    /// Nothing is written yet, but no other transaction may write.
    Pessimistic,
}

impl Lock {
    /// Reads the lock at the key, of whichever transaction.
    pub(crate) fn read(reader: &dyn Reader, key: &[u8]) -> Result<Option<Self>> {
        match reader.get(ColumnFamily::Lock, &keys::lock(key))? {
            None => Ok(None),
            Some(stored) => at_key(key, Self::decode(&stored)).map(Some),
        }
    }

    pub(crate) fn is_pessimistic(&self) -> bool {
        self.kind == LockKind::Pessimistic
    }

    /// True if a read has to wait for the transaction's outcome: the transaction may commit a
    /// version that the read would have to show. A pessimistic lock has no version to commit.
    pub(crate) fn hides_a_version(&self, at: ReadAt) -> bool {
        let soon_enough = match at {
            ReadAt::Latest => true,
            ReadAt::Timestamp(ts) => self.min_commit_ts <= ts.0,
        };
        soon_enough && !self.is_pessimistic()
    }

    /// Returns the min_commit_ts promised to readers; 0 for a pessimistic lock that is not the
    /// primary, on which no reader relies. A late copy of a lock request may take such a lock again
    /// after the transaction has committed, and with higher timestamps. A commit must still be able
    /// to remove that lock.
    pub(crate) fn promise(&self, key: &[u8]) -> u64 {
        match self.is_pessimistic() && self.primary != key {
            true => 0,
            false => self.min_commit_ts,
        }
    }

    /// Describes this lock to a client that it blocks.
    pub(crate) fn in_the_way(&self, key: impl Into<Bytes>) -> KeyLocked {
        KeyLocked {
            key: key.into(),
            primary: self.primary.clone(),
            start_ts: self.start_ts,
            alive_until_ms: self.alive_until_ms,
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        assert!(
            self.min_commit_ts > self.start_ts,
            "a lock of {} that may commit at {}",
            self.start_ts,
            self.min_commit_ts
        );
        let (kind, inline): (u8, &[u8]) = match &self.kind {
            LockKind::Write { value: RecordValue::Deleted, .. } => (DELETE, &[]),
            LockKind::Write { value: RecordValue::Inline(value), .. } => (PUT_INLINE, value),
            LockKind::Write { value: RecordValue::Reference { .. }, .. } => (PUT_ELSEWHERE, &[]),
            LockKind::Pessimistic => (PESSIMISTIC, &[]),
        };
        let mut out = vec![FORMAT, kind];
        for number in [self.start_ts, self.min_commit_ts, self.alive_until_ms, self.for_update_ts] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        put_key(&mut out, &self.primary);
        match &self.async_commit {
            None => out.push(TWO_PHASES),
            Some(secondaries) => {
                out.push(ASYNCHRONOUS);
                put_length(&mut out, secondaries.len());
                secondaries.iter().for_each(|key| put_key(&mut out, key));
            }
        }
        if let LockKind::Write { value, lease_id } = &self.kind
            && *value != RecordValue::Deleted
        {
            out.extend_from_slice(&lease_id.to_be_bytes());
            if let RecordValue::Reference { bytes } = value {
                out.extend_from_slice(&bytes.to_be_bytes());
            }
            out.extend_from_slice(inline);
        }
        out.into()
    }

    /// Decodes a stored lock.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if [`Lock::encode`] did not make these bytes.
    pub(crate) fn decode(stored: &[u8]) -> Result<Self> {
        decode(stored)
            .ok_or_else(|| Error::damaged(format!("lock record \"{}\"", stored.escape_ascii())))
    }
}

fn decode(stored: &[u8]) -> Option<Lock> {
    let [FORMAT, kind, rest @ ..] = stored else { return None };
    let mut rest = rest;
    let start_ts = take_number(&mut rest)?;
    let min_commit_ts = take_number(&mut rest).filter(|ts| *ts > start_ts)?;
    let alive_until_ms = take_number(&mut rest)?;
    let for_update_ts = take_number(&mut rest)?;
    let primary = take_key(&mut rest)?;
    let commit = rest.split_off_first()?;
    let async_commit = match *commit {
        TWO_PHASES => None,
        ASYNCHRONOUS => {
            let count = take_length(&mut rest)?;
            Some((0..count).map(|_| take_key(&mut rest)).collect::<Option<Vec<_>>>()?)
        }
        _ => return None,
    };
    let kind = match *kind {
        DELETE if rest.is_empty() => LockKind::Write { value: RecordValue::Deleted, lease_id: 0 },
        PUT_INLINE => {
            let lease_id = take_number(&mut rest)?;
            let value = RecordValue::of(&Bytes::copy_from_slice(rest));
            matches!(value, RecordValue::Inline(_))
                .then_some(LockKind::Write { value, lease_id })?
        }
        PUT_ELSEWHERE => {
            let lease_id = take_number(&mut rest)?;
            let bytes = take_number(&mut rest)?;
            let value = RecordValue::Reference { bytes };
            rest.is_empty().then_some(LockKind::Write { value, lease_id })?
        }
        PESSIMISTIC if rest.is_empty() => LockKind::Pessimistic,
        _ => return None,
    };
    Some(Lock {
        start_ts,
        min_commit_ts,
        alive_until_ms,
        for_update_ts,
        primary,
        async_commit,
        kind,
    })
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    let length = u16::try_from(length).expect("keys are shorter, and their number is smaller");
    out.extend_from_slice(&length.to_be_bytes());
}

fn put_key(out: &mut Vec<u8>, key: &[u8]) {
    put_length(out, key.len());
    out.extend_from_slice(key);
}

fn take_length(bytes: &mut &[u8]) -> Option<usize> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    *bytes = rest;
    Some(u16::from_be_bytes(*length).into())
}

fn take_key(bytes: &mut &[u8]) -> Option<Bytes> {
    let length = take_length(bytes)?;
    let (key, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(Bytes::copy_from_slice(key))
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(u64::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(kind: LockKind) -> Lock {
        Lock {
            start_ts: 5,
            min_commit_ts: 9,
            alive_until_ms: 1_000,
            for_update_ts: 7,
            primary: "p".into(),
            async_commit: None,
            kind,
        }
    }

    fn locks() -> [Lock; 7] {
        let put = |value| lock(LockKind::Write { value, lease_id: 3 });
        let inline = || put(RecordValue::Inline("value".into()));
        [
            lock(LockKind::Write { value: RecordValue::Deleted, lease_id: 0 }),
            put(RecordValue::Inline(Bytes::new())),
            inline(),
            put(RecordValue::Reference { bytes: 600 }),
            lock(LockKind::Pessimistic),
            Lock { async_commit: Some(Vec::new()), ..inline() },
            Lock { async_commit: Some(vec!["a".into(), "bc".into()]), ..inline() },
        ]
    }

    #[test]
    fn records_are_as_the_storage_format_draws_them() {
        let stored = locks()[2].encode();
        let head =
            b"\x01\x01\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\x03\xe8\0\0\0\0\0\0\0\x07";
        let body = b"\0\x01p\0\0\0\0\0\0\0\0\x03value";
        assert_eq!(stored, [&head[..], body].concat());

        let body = b"\0\x01p\x01\0\x02\0\x01a\0\x02bc\0\0\0\0\0\0\0\x03value";
        assert_eq!(locks()[6].encode(), [&head[..], body].concat());
    }

    #[test]
    fn records_come_back_and_cut_ones_are_corrupt() {
        for lock in locks() {
            let stored = lock.encode();
            assert_eq!(Lock::decode(&stored).unwrap(), lock);
            // A cut inline value decodes as a shorter value; the engine's checksums detect that.
            let inline = matches!(&lock.kind,
                LockKind::Write { value: RecordValue::Inline(value), .. } if !value.is_empty());
            let whole = if inline { stored.len() - "value".len() } else { stored.len() };
            for cut in 0..whole {
                assert!(Lock::decode(&stored[..cut]).is_err(), "{lock:?} cut to {cut}");
            }
            let is_put_inline = stored[1] == PUT_INLINE;
            let longer = [&stored[..], b"x"].concat();
            assert_eq!(Lock::decode(&longer).is_ok(), is_put_inline, "{lock:?}");
        }
    }

    #[test]
    fn unknown_formats_and_kinds_are_corrupt() {
        let stored = locks()[0].encode();
        for (place, byte) in [(0, 0), (0, 2), (1, 4)] {
            let mut other = stored.to_vec();
            other[place] = byte;
            assert!(Lock::decode(&other).is_err(), "byte {place} is {byte}");
        }
    }

    #[test]
    fn a_read_waits_for_writes_that_may_commit_at_or_below_it() {
        let at = |ts| ReadAt::Timestamp(rangedb_proto::Timestamp(ts));
        let write = &locks()[0];
        assert!(write.hides_a_version(ReadAt::Latest));
        assert!(write.hides_a_version(at(9)));
        assert!(!write.hides_a_version(at(8)));
        assert!(!locks()[4].hides_a_version(ReadAt::Latest));
    }
}
