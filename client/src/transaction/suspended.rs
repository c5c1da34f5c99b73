//! Suspended transactions: a transaction is put away and resumed, by another process if need be.
//! The command line keeps a transaction over several invocations in this way.
//!
//! A transaction consists of its start timestamp, its writes and reads, and its locks. Of these
//! only the locks stand on a server, so [`Transaction::suspend`] only takes the transaction out of
//! the client, and [`Client::resume`] puts it back. Nobody sends heartbeats meanwhile: locks live
//! on for ten seconds, and the commit notices a lost lock, as for a client that was cut off.
//!
//! # As bytes
//!
//! [`SuspendedTransaction::to_bytes`] is `rangedb-txn`, a byte of version, a CRC-32 and a protobuf
//! message. The bytes may come from anywhere: malformed bytes are refused, and so is content that
//! no transaction may hold. The bytes are not secret from anybody who can read them. Anybody who
//! can change them has the owner's power over the transaction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use prost::Message;
use rangedb_proto::v1::{self, operation};
use rangedb_proto::{KEY_BYTES_MAX, Timestamp};

use super::buffer::{Buffer, TRANSACTION_BYTES_MAX, TRANSACTION_KEYS_MAX, Write};
use super::heartbeat::{OracleClock, beat};
use super::locking::PessimisticLocks;
use super::read_set::{ReadSet, TRANSACTION_READ_BYTES_MAX};
use super::snapshot::Snapshot;
use super::{Inner, Isolation, State, Transaction, TransactionOptions};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::keys::{Span, View, check_value};
use crate::range::RangeOptions;

const MAGIC: &[u8] = b"rangedb-txn";

/// Version of the format, raised when the bytes after it change their meaning.
const VERSION: u8 = 1;

/// Bytes of magic, version and checksum.
const HEAD_BYTES: usize = MAGIC.len() + 1 + 4;

/// Bytes of a suspended transaction at most, far above what the limits of a transaction come to.
/// Longer input is not decoded.
const SUSPENDED_BYTES_MAX: usize = 4 * (TRANSACTION_BYTES_MAX + TRANSACTION_READ_BYTES_MAX);

/// An open transaction outside of any client. Made by [`Transaction::suspend`], resumed by
/// [`Client::resume`]. Dropping it leaves its locks to expire.
///
/// It should be resumed once. If two clients resume it and both commit, neither need be refused:
/// writes of keys that it has not read are then made twice, the second time over writes of others
/// in between.
#[derive(Clone, Debug, PartialEq)]
pub struct SuspendedTransaction {
    cluster_id: u64,
    start_ts: u64,
    options: TransactionOptions,
    buffer: Buffer,
    reads: ReadSet,
    primary: Option<Bytes>,
    /// As [`PessimisticLocks::keys`].
    locked: BTreeMap<Bytes, u64>,
}

impl Transaction {
    /// Takes the transaction out of this client without a rollback. Its locks stay for ten seconds,
    /// and [`Client::resume`] resumes it.
    ///
    /// # Errors
    ///
    /// If the cluster's id cannot be fetched; the transaction is then rolled back.
    pub async fn suspend(self) -> Result<SuspendedTransaction> {
        self.check_not_managed()?;
        let inner = &self.inner;
        let cluster_id = inner.client.cluster_id().await?;
        let State { mut buffer, reads, locks, .. } = inner.end()?;
        buffer.forget_savepoints();
        inner.turn.end();
        let PessimisticLocks { primary, keys: locked, .. } = locks;
        if let Some(primary) = &primary {
            beat(&inner.client.sender, primary, inner.start_ts(), inner.clock).await;
        }
        let (start_ts, options) = (inner.start_ts(), inner.options.clone());
        Ok(SuspendedTransaction { cluster_id, start_ts, options, buffer, reads, primary, locked })
    }
}

impl Client {
    /// Resumes a transaction that this client or another one suspended, and sends heartbeats for
    /// its locks again.
    ///
    /// # Errors
    ///
    /// [`Error::FailedPrecondition`] if it was begun in another cluster.
    pub async fn resume(&self, suspended: SuspendedTransaction) -> Result<Transaction> {
        let cluster_id = self.cluster_id().await?;
        if suspended.cluster_id != cluster_id {
            let theirs = suspended.cluster_id;
            let message = format!(
                "the transaction was begun in cluster {theirs:016x}, this is {cluster_id:016x}"
            );
            return Err(Error::FailedPrecondition(message));
        }
        let SuspendedTransaction { start_ts, options, buffer, reads, primary, locked, .. } =
            suspended;
        for key in buffer.keys().chain(locked.keys()) {
            self.view.check_key(key)?;
        }
        let is_read_only = options.is_read_only();
        // Expiry of locks is counted from a timestamp of now; only writers have locks.
        let now = if is_read_only { Timestamp(start_ts) } else { self.timestamp().await? };
        let clock = OracleClock::new(now, &*self.sender.net);
        let locks = PessimisticLocks::resumed(primary, locked);
        let state = State { buffer, reads, locks, ..State::default() };
        let snapshot = Snapshot::new(&self.holds, Timestamp(start_ts), self.sender.net.now());
        let inner = Arc::new(Inner::new(self, options, snapshot, clock, state));
        // The transaction may have read at its timestamp before, so settle it.
        inner.start_ts();
        inner.keep_resumed_locks();
        Ok(Transaction { inner, managed: false })
    }
}

impl SuspendedTransaction {
    /// As [`Transaction::id`].
    pub fn id(&self) -> String {
        short_id(self.start_ts)
    }

    /// As [`Transaction::start_ts`].
    pub fn start_ts(&self) -> Timestamp {
        Timestamp(self.start_ts)
    }

    /// Id of the cluster in which the transaction was begun.
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    pub fn options(&self) -> &TransactionOptions {
        &self.options
    }

    /// Returns the transaction as it is once it has read all rows of a scan. For a caller that
    /// shows rows while they arrive and may end before the scanning transaction is suspended again.
    /// The commit then validates the whole span, also behind the rows that were shown.
    ///
    /// # Errors
    ///
    /// For spans that no scan may read, and [`Error::TooLarge`] as for the scan itself.
    pub fn with_scan(mut self, scan: &RangeOptions) -> Result<Self> {
        let pieces = View::User.check_scan(&scan.span)?;
        if self.options.remembers_reads() {
            pieces.into_iter().try_for_each(|piece| self.reads.add(piece))?;
        }
        Ok(self)
    }

    /// Keys that the transaction puts or deletes.
    pub fn written(&self) -> impl Iterator<Item = &Bytes> {
        self.buffer.keys()
    }

    /// Keys that the transaction has locked, or has tried to lock.
    pub fn locked(&self) -> impl Iterator<Item = &Bytes> {
        self.locked.keys()
    }

    pub fn to_bytes(&self) -> Bytes {
        let body = Saved::of(self).encode_to_vec();
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.put_slice(MAGIC);
        bytes.put_u8(VERSION);
        bytes.put_u32_le(crc32fast::hash(&body));
        bytes.put_slice(&body);
        bytes.into()
    }

    /// Decodes the bytes of [`SuspendedTransaction::to_bytes`].
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] or [`Error::TooLarge`] for all other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > SUSPENDED_BYTES_MAX {
            return Err(refused("too long"));
        }
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| refused("something else"))?;
        let (version, rest) = rest.split_first().ok_or_else(|| refused("cut short"))?;
        if *version != VERSION {
            return Err(refused(&format!(
                "of version {version}, which this program does not know"
            )));
        }
        let (checksum, body) = rest.split_first_chunk().ok_or_else(|| refused("cut short"))?;
        if u32::from_le_bytes(*checksum) != crc32fast::hash(body) {
            return Err(refused("damaged"));
        }
        Saved::decode(body).map_err(|error| refused(&error.to_string()))?.into_transaction()
    }
}

/// Id for people and prompts: eight hexadecimal digits that differ for transactions of the same
/// time.
pub(super) fn short_id(start_ts: u64) -> String {
    // Fibonacci hashing: the lowest bits, which differ most, affect all of the upper ones.
    format!("{:08x}", start_ts.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32)
}

#[derive(Clone, PartialEq, Message)]
struct Saved {
    #[prost(fixed64, tag = "1")]
    cluster_id: u64,
    #[prost(uint64, tag = "2")]
    start_ts: u64,
    #[prost(bool, tag = "3")]
    snapshot_isolation: bool,
    #[prost(bool, tag = "4")]
    read_only: bool,
    #[prost(bool, tag = "5")]
    at: bool,
    #[prost(bool, tag = "6")]
    pessimistic: bool,
    #[prost(uint64, optional, tag = "7")]
    timeout_us: Option<u64>,
    #[prost(uint64, optional, tag = "8")]
    lock_wait_us: Option<u64>,
    #[prost(message, repeated, tag = "9")]
    writes: Vec<v1::Operation>,
    #[prost(message, repeated, tag = "10")]
    reads: Vec<SavedSpan>,
    #[prost(message, repeated, tag = "11")]
    locks: Vec<SavedLock>,
    #[prost(bytes = "bytes", tag = "12")]
    primary: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct SavedSpan {
    #[prost(bytes = "bytes", tag = "1")]
    start: Bytes,
    /// Empty: behind every key.
    #[prost(bytes = "bytes", tag = "2")]
    end: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct SavedLock {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(uint64, tag = "2")]
    seen_ts: u64,
}

impl Saved {
    fn of(transaction: &SuspendedTransaction) -> Saved {
        let TransactionOptions { isolation, read_only, at, timeout, lock_wait, pessimistic } =
            transaction.options;
        let lock =
            |(key, seen_ts): (&Bytes, &u64)| SavedLock { key: key.clone(), seen_ts: *seen_ts };
        let span =
            |(start, end): (&Bytes, &Bytes)| SavedSpan { start: start.clone(), end: end.clone() };
        Saved {
            cluster_id: transaction.cluster_id,
            start_ts: transaction.start_ts,
            snapshot_isolation: isolation == Isolation::Snapshot,
            read_only,
            at: at.is_some(),
            pessimistic,
            timeout_us: timeout.map(micros),
            lock_wait_us: lock_wait.map(micros),
            writes: transaction.buffer.operations().collect(),
            reads: transaction.reads.spans().map(span).collect(),
            locks: transaction.locked.iter().map(lock).collect(),
            primary: transaction.primary.clone().unwrap_or_default(),
        }
    }

    fn into_transaction(self) -> Result<SuspendedTransaction> {
        let start_ts = self.start_ts;
        if start_ts == 0 || i64::try_from(start_ts).is_err() {
            return Err(refused("without a time"));
        }
        let options = TransactionOptions {
            isolation: match self.snapshot_isolation {
                true => Isolation::Snapshot,
                false => Isolation::Serializable,
            },
            read_only: self.read_only,
            at: self.at.then_some(Timestamp(start_ts)),
            timeout: self.timeout_us.map(Duration::from_micros),
            lock_wait: self.lock_wait_us.map(Duration::from_micros),
            pessimistic: self.pessimistic,
        };
        let is_read_only = self.read_only || self.at;
        if is_read_only && !(self.writes.is_empty() && self.locks.is_empty()) {
            return Err(refused("read-only, and writes"));
        }
        let mut buffer = Buffer::default();
        for write in self.writes {
            let (key, write) = match write.body {
                Some(operation::Body::Put(put)) if put.lease_id == 0 => {
                    check_value(&put.value)?;
                    (put.key, Write::Put { value: put.value })
                }
                Some(operation::Body::Delete(delete)) => (delete.key, Write::Delete),
                Some(operation::Body::Put(_) | operation::Body::DeleteRange(_)) | None => {
                    return Err(refused("malformed"));
                }
            };
            View::System.check_key(&key)?;
            buffer.set(key, write)?;
        }
        let mut reads = ReadSet::default();
        for SavedSpan { start, end } in self.reads {
            let span = Span::new(start, end);
            if span.is_empty() || span.start.len().max(span.end.len()) > KEY_BYTES_MAX + 1 {
                return Err(refused("malformed"));
            }
            reads.add(span)?;
        }
        if self.locks.len() > TRANSACTION_KEYS_MAX {
            let what = format!("a transaction that locks {} keys", self.locks.len());
            return Err(Error::TooLarge { what, limit: TRANSACTION_KEYS_MAX as u64 });
        }
        let mut locked = BTreeMap::new();
        for SavedLock { key, seen_ts } in self.locks {
            View::System.check_key(&key)?;
            locked.insert(key, seen_ts);
        }
        let primary = Some(self.primary).filter(|primary| !primary.is_empty());
        if primary.as_ref().is_some_and(|primary| !locked.contains_key(primary)) {
            return Err(refused("malformed"));
        }
        let cluster_id = self.cluster_id;
        Ok(SuspendedTransaction { cluster_id, start_ts, options, buffer, reads, primary, locked })
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn refused(why: &str) -> Error {
    Error::invalid("transaction", format!("what was kept of it is {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suspended() -> SuspendedTransaction {
        let mut buffer = Buffer::default();
        buffer.set("a".into(), Write::Put { value: "1".into() }).unwrap();
        buffer.set("z".into(), Write::Delete).unwrap();
        let mut reads = ReadSet::default();
        reads.add(Span::new("", "c")).unwrap();
        reads.add(Span::new("x", "")).unwrap();
        let options = TransactionOptions {
            isolation: Isolation::Snapshot,
            lock_wait: Some(Duration::from_millis(1500)),
            pessimistic: true,
            ..Default::default()
        };
        SuspendedTransaction {
            cluster_id: 3,
            start_ts: 99,
            options,
            buffer,
            reads,
            primary: Some("z".into()),
            locked: [("m".into(), 0), ("z".into(), 101)].into(),
        }
    }

    fn framed(body: &[u8]) -> Vec<u8> {
        [MAGIC, &[VERSION], &crc32fast::hash(body).to_le_bytes(), body].concat()
    }

    #[test]
    fn nothing_is_lost_on_the_way_through_bytes() {
        let before = suspended();
        assert_eq!(SuspendedTransaction::from_bytes(&before.to_bytes()).unwrap(), before);
        let options = TransactionOptions { at: Some(Timestamp(99)), ..Default::default() };
        let (buffer, locked) = Default::default();
        let before = SuspendedTransaction { options, buffer, locked, primary: None, ..before };
        assert_eq!(SuspendedTransaction::from_bytes(&before.to_bytes()).unwrap(), before);
    }

    #[test]
    fn bytes_that_were_cut_or_changed_are_refused() {
        let bytes = suspended().to_bytes();
        for length in 0..bytes.len() {
            SuspendedTransaction::from_bytes(&bytes[..length]).unwrap_err();
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1 << (at % 8);
            let error = SuspendedTransaction::from_bytes(&changed).unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }), "{error}");
        }
    }

    #[test]
    fn bytes_that_fit_their_checksum_are_refused_or_make_a_transaction_that_can_be_kept() {
        let mut random = fastrand::Rng::with_seed(1);
        let bytes = suspended().to_bytes();
        let mut kept = 0;
        for _ in 0..20_000 {
            let mut body = bytes[HEAD_BYTES..].to_vec();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..body.len());
                match random.u8(..3) {
                    0 => body[at] = random.u8(..),
                    1 => drop(body.remove(at)),
                    _ => body.insert(at, random.u8(..)),
                }
            }
            if let Ok(decoded) = SuspendedTransaction::from_bytes(&framed(&body)) {
                let again = SuspendedTransaction::from_bytes(&decoded.to_bytes());
                assert_eq!(again.unwrap(), decoded);
                kept += 1;
            }
        }
        assert!(kept > 100, "{kept}");
        for length in 0..200 {
            let body: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            let _ = SuspendedTransaction::from_bytes(&framed(&body));
        }
    }

    #[test]
    fn what_no_transaction_holds_is_refused() {
        let saved = Saved::of(&suspended());
        let refused = [
            Saved { start_ts: 0, ..saved.clone() },
            Saved { start_ts: u64::MAX, ..saved.clone() },
            Saved { read_only: true, ..saved.clone() },
            Saved { primary: "b".into(), ..saved.clone() },
            Saved {
                reads: vec![SavedSpan { start: "b".into(), end: "a".into() }],
                ..saved.clone()
            },
            Saved { writes: vec![v1::Operation::default()], ..saved.clone() },
            Saved { locks: vec![SavedLock::default()], ..saved },
        ];
        for saved in refused {
            let body = saved.encode_to_vec();
            SuspendedTransaction::from_bytes(&framed(&body)).unwrap_err();
        }
    }

    #[test]
    fn a_scan_ahead_is_validated_if_reads_are_and_never_among_the_keys_of_the_system() {
        let serializable = TransactionOptions::default();
        let fresh =
            |options| SuspendedTransaction { options, reads: ReadSet::default(), ..suspended() };
        let spans = |options, scan| -> Vec<(Bytes, Bytes)> {
            let ahead = fresh(options).with_scan(&scan).unwrap();
            ahead.reads.spans().map(|(start, end)| (start.clone(), end.clone())).collect()
        };
        let all = RangeOptions::new("", "").limit(3).reverse();
        let users = [("".into(), "_/".into()), ("_0".into(), "".into())];
        assert_eq!(spans(serializable.clone(), all.clone()), users);
        let snapshot =
            TransactionOptions { isolation: Isolation::Snapshot, ..serializable.clone() };
        assert_eq!(spans(snapshot, all.clone()), []);
        let read_only = TransactionOptions { read_only: true, ..serializable.clone() };
        assert_eq!(spans(read_only, all), []);
        let denied = fresh(serializable).with_scan(&RangeOptions::prefix("_/"));
        assert!(matches!(denied, Err(Error::PermissionDenied(_))));
    }

    #[test]
    fn ids_of_transactions_that_began_one_after_the_other_differ() {
        let start = Timestamp::from_millis(1_800_000_000_000).0;
        let ids: std::collections::BTreeSet<String> =
            (0..10_000).map(|n| short_id(start + n)).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.len() == 8));
    }
}
