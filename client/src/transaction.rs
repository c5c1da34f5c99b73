//! Interactive transactions over any keys: [`Client::begin`], or [`Client::transaction`], which
//! also begins again after a conflict.
//!
//! # Life of a transaction
//!
//! A transaction takes a timestamp when it begins and reads everything as of that timestamp
//! (`merged_range.rs`, reads of [`Transaction`]). At a hot key it first waits for its turn, and may
//! then take a later timestamp (`turn.rs`, `snapshot.rs`). Writes are buffered in the client
//! (`buffer.rs`), where the transaction's own reads find them. Reads are tracked (`read_set.rs`).
//! The commit (`commit.rs`) depends on where the keys lie:
//!
//! * In one range, one command checks and writes everything in one round (`../one_range.rs`).
//! * In several ranges, it takes two phases with a validation in between (`two_phase.rs`).
//!
//! Nothing is locked before the commit, except by [`Transaction::get_for_update`] and by writes of
//! a pessimistic transaction (`locking.rs`). A transaction can return to a savepoint
//! (`savepoints.rs`), and be suspended for another process to resume (`suspended.rs`).
//!
//! # Guarantees
//!
//! * A transaction that commits is applied whole, at one timestamp, under its [`Isolation`].
//! * A transaction that fails, is dropped or rolled back leaves nothing. Its locks go at once if
//!   the client lives, and after at most ten seconds if it does not.
//! * [`Error::Undetermined`] from [`Transaction::commit`] is the only case where the outcome is not
//!   known. Nothing in this crate retries after it.
//!
//! # Limits
//!
//! Nothing is written before the commit, so the client's memory bounds the size of a transaction
//! ([`TRANSACTION_BYTES_MAX`]). Two transactions that each validate a key locked by the other are
//! not detected as a deadlock: the younger gives way after a tenth of a second.

mod buffer;
pub(crate) mod chunks;
mod commit;
pub(crate) mod heartbeat;
mod isolation;
mod locking;
mod merged_range;
pub(crate) mod over_ranges;
mod phases;
mod prewrite;
mod read_set;
mod retrying;
mod rollback;
mod savepoints;
mod snapshot;
mod suspended;
mod turn;
mod two_phase;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use rangedb_proto::{Timestamp, v1};

use crate::client::{Client, GET_MANY_CONCURRENCY};
use crate::error::{Error, Result};
use crate::key_value::KeyValue;
use crate::keys::{Span, check_value};
use crate::range::RangeOptions;
use buffer::{Buffer, Write};
use heartbeat::OracleClock;
use locking::PessimisticLocks;
use phases::{Phase, Phases};
use read_set::ReadSet;
use snapshot::Snapshot;
use turn::TransactionTurn;

pub use buffer::{TRANSACTION_BYTES_MAX, TRANSACTION_KEYS_MAX};
pub use isolation::Isolation;
pub use merged_range::TransactionRange;
pub use over_ranges::DELETE_RANGE_KEYS_MAX;
pub use read_set::{TRANSACTION_READ_BYTES_MAX, TRANSACTION_READS_MAX};
pub use retrying::TRANSACTION_ATTEMPTS_MAX;
pub use savepoints::{SAVEPOINTS_MAX, Savepoint};
pub use suspended::SuspendedTransaction;

/// Options of a transaction. The default: serializable, optimistic, read-write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionOptions {
    pub isolation: Isolation,
    /// Refuses writes and locks. Reads are not tracked, and there is nothing to commit.
    pub read_only: bool,
    /// Read as of this timestamp; the transaction is read-only.
    pub at: Option<Timestamp>,
    /// Time for each read and for the commit with all its rounds; the client's by default. A large
    /// transaction needs more.
    pub timeout: Option<Duration>,
    /// Time to wait for a key that another transaction has locked; `timeout` by default.
    pub lock_wait: Option<Duration>,
    /// Lock every key when it is written, so that a later conflict on that key cannot fail the
    /// transaction.
    pub pessimistic: bool,
}

impl TransactionOptions {
    fn is_read_only(&self) -> bool {
        self.read_only || self.at.is_some()
    }

    /// True if reads are tracked: only for serializable read-write transactions.
    fn remembers_reads(&self) -> bool {
        !self.is_read_only() && self.isolation == Isolation::Serializable
    }
}

/// An open transaction. Dropping it rolls it back.
///
/// A read of a key that the transaction has written shows its own write, with version 0 and
/// timestamps of 0: the commit assigns them.
pub struct Transaction {
    inner: Arc<Inner>,
    /// Committed by [`Client::transaction`], not by the holder of this handle.
    managed: bool,
}

pub(crate) struct Inner {
    client: Client,
    options: TransactionOptions,
    snapshot: Snapshot,
    clock: OracleClock,
    state: Mutex<State>,
    phases: Arc<Phases>,
    turn: TransactionTurn,
    /// Held while a key is being locked.
    locking: futures::lock::Mutex<()>,
}

#[derive(Default)]
struct State {
    ended: bool,
    /// The error that ended the transaction early.
    failed: Option<Error>,
    buffer: Buffer,
    reads: ReadSet,
    locks: PessimisticLocks,
    /// Conditions of a batch: checked in the ranges of their keys, when the transaction commits.
    conditions: Vec<v1::Condition>,
}

impl Client {
    /// Begins a transaction. Takes a timestamp, unless the options name one, and nothing else.
    pub async fn begin(&self, options: TransactionOptions) -> Result<Transaction> {
        let requested_at = self.sender.net.now();
        let start_ts = match options.at {
            Some(Timestamp::ZERO) => {
                return Err(Error::invalid("at", "0 is before every commit"));
            }
            Some(at) => at,
            None => {
                let timeout = options.timeout.unwrap_or(self.timeout);
                let deadline = self.sender.net.now().saturating_add(timeout);
                self.timestamps.next(deadline).await?
            }
        };
        let clock = OracleClock::new(start_ts, &*self.sender.net);
        let snapshot = Snapshot::new(&self.holds, start_ts, requested_at);
        let inner = Inner::new(self, options, snapshot, clock, State::default());
        Ok(Transaction { inner: Arc::new(inner), managed: false })
    }
}

impl Transaction {
    /// Id for people: eight hexadecimal digits, the same for the whole life of the transaction. It
    /// is not unique; [`Transaction::start_ts`] is.
    pub fn id(&self) -> String {
        suspended::short_id(self.inner.start_ts())
    }

    /// Start timestamp: reads see everything that was committed up to it. It may still change until
    /// the first read or the first call of this function.
    pub fn start_ts(&self) -> Timestamp {
        Timestamp(self.inner.start_ts())
    }

    /// Reads the key's value as of the transaction's start, or the transaction's own write.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<KeyValue>> {
        self.inner.get(key.into()).await
    }

    /// Reads the values of many keys, in the order of the keys, all as of the same time.
    pub async fn get_many<K: Into<Bytes>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<KeyValue>>> {
        let reads: Vec<_> = keys.into_iter().map(|key| self.inner.get(key.into())).collect();
        stream::iter(reads).buffered(GET_MANY_CONCURRENCY).try_collect().await
    }

    /// True if the key has a value.
    pub async fn exists(&self, key: impl Into<Bytes>) -> Result<bool> {
        Ok(self.get(key).await?.is_some())
    }

    /// Scans rows in key order, as of the transaction's start, with its own writes up to now.
    pub fn range(&self, options: RangeOptions) -> TransactionRange {
        TransactionRange::new(self.inner.clone(), options)
    }

    /// Sets a key when the transaction commits.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] beyond [`TRANSACTION_BYTES_MAX`] or [`TRANSACTION_KEYS_MAX`]. With
    /// pessimistic options, also the errors of [`Transaction::get_for_update`].
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        let value = value.into();
        check_value(&value)?;
        self.inner.write(key.into(), Write::Put { value }).await
    }

    /// Deletes a key when the transaction commits; it need not exist.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<()> {
        self.inner.write(key.into(), Write::Delete).await
    }

    /// Reads and deletes every key of `[start, end)`; an empty `end` is behind every key. Returns
    /// the number of deleted keys.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] beyond [`DELETE_RANGE_KEYS_MAX`].
    pub async fn delete_range(
        &self,
        start: impl Into<Bytes>,
        end: impl Into<Bytes>,
    ) -> Result<u64> {
        over_ranges::delete_range(self, Span::new(start, end)).await
    }

    /// Sets the key to `new` if its value is `expected` (none: if it has none). Otherwise returns
    /// [`Error::Conflict`] with the current row, and the transaction may go on.
    pub async fn compare_and_swap(
        &self,
        key: impl Into<Bytes>,
        expected: Option<Bytes>,
        new: impl Into<Bytes>,
    ) -> Result<()> {
        let key = key.into();
        let actual = self.get(key.clone()).await?;
        if actual.as_ref().map(|kv| &kv.value) != expected.as_ref() {
            return Err(Error::Conflict { key, condition_index: 0, actual: actual.map(Box::new) });
        }
        self.put(key, new).await
    }

    /// Locks the key until the transaction ends, and returns its newest value. No other transaction
    /// writes the key meanwhile; readers are not blocked.
    ///
    /// The value may be newer than what [`Transaction::get`] shows. A serializable transaction that
    /// reads the same key both ways and sees it change fails at commit.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] if another transaction held the key for all of the wait timeout.
    /// [`Error::Deadlock`] if that transaction waits for this one in turn: this one is then rolled
    /// back, so that the others go on.
    ///
    /// # Cancellation
    ///
    /// If the call that takes the transaction's first lock is dropped before its answer, the
    /// transaction ends: it is then unknown whether its primary is locked. For a shorter wait, set
    /// [`TransactionOptions::lock_wait`].
    pub async fn get_for_update(&self, key: impl Into<Bytes>) -> Result<Option<KeyValue>> {
        let key = key.into();
        let locked = self.inner.lock_key(&key).await?;
        let own = self.inner.state.lock().buffer.get(&key).map(|write| write.row(&key));
        Ok(own.unwrap_or(locked))
    }

    /// Makes all writes visible at once, or none. Returns the commit timestamp; a transaction that
    /// neither wrote nor locked returns its start timestamp.
    ///
    /// # Errors
    ///
    /// [`Error::Undetermined`]: the transaction may be committed. After every other error it is not
    /// committed and never will be; [`Error::is_transaction_conflict`] tells whether a retry is
    /// worthwhile.
    pub async fn commit(self) -> Result<Timestamp> {
        self.check_not_managed()?;
        let committed = self.inner.commit().await;
        self.inner.turn.end();
        committed
    }

    /// Discards all writes and removes the locks. Returns after half a second at most; a rollback
    /// that takes longer goes on in the background.
    pub async fn rollback(self) -> Result<()> {
        self.check_not_managed()?;
        self.inner.turn.end();
        self.inner.roll_back().await
    }

    fn check_not_managed(&self) -> Result<()> {
        if self.managed {
            let message = "it is committed when the closure returns Ok, rolled back after Err";
            return Err(Error::invalid("transaction", message));
        }
        Ok(())
    }
}

impl Inner {
    fn new(
        client: &Client,
        options: TransactionOptions,
        snapshot: Snapshot,
        clock: OracleClock,
        state: State,
    ) -> Self {
        let client = match options.timeout {
            Some(timeout) => client.with_timeout(timeout),
            None => client.clone(),
        };
        let (state, locking, phases) = (Mutex::new(state), Default::default(), Arc::default());
        let turn = TransactionTurn::default();
        Inner { client, options, snapshot, clock, state, phases, turn, locking }
    }

    /// Start timestamp, which identifies the transaction and as of which it reads. Settled by the
    /// first call.
    fn start_ts(&self) -> u64 {
        self.snapshot.start_ts()
    }

    async fn get(&self, key: Bytes) -> Result<Option<KeyValue>> {
        self.client.view.check_key(&key)?;
        {
            let mut state = self.open()?;
            if let Some(write) = state.buffer.get(&key) {
                return Ok(write.row(&key));
            }
            if self.remembers_reads() {
                state.reads.add_key(&key)?;
            }
        }
        let net = &*self.client.sender.net;
        self.take_turn(&key).await;
        let read = self.client.read(key, self.start_ts());
        self.phases.time(Phase::Reads, net, read).await
    }

    async fn write(self: &Arc<Self>, key: Bytes, write: Write) -> Result<()> {
        self.client.view.check_key(&key)?;
        self.check_writable()?;
        if self.options.pessimistic {
            self.lock_written(&key).await?;
        }
        self.open()?.buffer.set(key, write)
    }

    fn remembers_reads(&self) -> bool {
        self.options.remembers_reads()
    }

    fn is_read_only(&self) -> bool {
        self.options.is_read_only()
    }

    fn check_writable(&self) -> Result<()> {
        if self.is_read_only() {
            return Err(Error::invalid("transaction", "it is read-only"));
        }
        Ok(())
    }

    fn open(&self) -> Result<parking_lot::MutexGuard<'_, State>> {
        let state = self.state.lock();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        if state.ended {
            return Err(Error::invalid("transaction", "it has ended"));
        }
        Ok(state)
    }
}
