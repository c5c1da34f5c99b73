//! Interactive transactions over any keys: [`Client::begin`], or [`Client::transaction`], which also
//! begins again after a conflict.
//!
//! # How a transaction works
//!
//! It takes a timestamp when it begins and reads everything as of then (`merged_range.rs`, reads of
//! [`Transaction`]), or of when its turn came at a key that many want (`turn.rs`, `snapshot.rs`).
//! Writes wait in the client (`buffer.rs`), where the transaction's own reads find them. What was
//! read is remembered (`read_set.rs`). Commit (`commit.rs`) then looks where the keys lie: in one
//! range, one command checks and writes everything in one round (`../one_range.rs`); in several,
//! two phases with a validation in between do (`two_phase.rs`). Nothing is locked before the
//! commit, except what [`Transaction::get_for_update`] locks (`locking.rs`). A transaction can go
//! back to what it had written before (`savepoints.rs`), and be put away for another process to
//! take up (`suspended.rs`).
//!
//! # What it promises
//!
//! * A transaction that commits is applied whole, at one timestamp, under its [`Isolation`].
//! * One that fails, is dropped or rolled back leaves nothing. Locks that it held go at once if the
//!   client lives, and after at most ten seconds if it does not.
//! * [`Error::Undetermined`] from [`Transaction::commit`] is the only case where the outcome is not
//!   known. Nothing in this crate retries behind it.
//!
//! # What is left out
//!
//! Nothing is written before the commit, so a transaction is as large as the client's memory allows it
//! ([`TRANSACTION_BYTES_MAX`]). Two transactions that validate what the other has locked are not found
//! as a deadlock: the younger gives way after a tenth of a second.

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

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use rangedb_proto::{Timestamp, v1};

use crate::client::{Client, GET_MANY_CONCURRENCY};
use crate::error::{Error, Result};
use crate::key_value::KeyValue;
use crate::keys::{Span, check_value};
use crate::range::RangeOptions;
use buffer::{Buffer, Write};
use heartbeat::OracleClock;
use locking::Locks;
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

/// How a transaction is run. The default: serializable, optimistic, reading and writing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionOptions {
    pub isolation: Isolation,
    /// Refuses writes and locks. Nothing is remembered of what is read, and there is nothing to
    /// commit.
    pub read_only: bool,
    /// Read as of this timestamp; the transaction is read-only.
    pub at: Option<Timestamp>,
    /// Time for each read and for the commit with all its rounds; the client's by default. A large
    /// transaction needs more.
    pub timeout: Option<Duration>,
    /// Time to wait for a key that another transaction has locked; `timeout` by default.
    pub lock_wait: Option<Duration>,
    /// Lock every key when it is written, so that what has been written cannot fail for a conflict on
    /// that key any more.
    pub pessimistic: bool,
}

impl TransactionOptions {
    fn is_read_only(&self) -> bool {
        self.read_only || self.at.is_some()
    }

    /// Reads of a transaction that may write are remembered; so is nothing of others.
    fn remembers_reads(&self) -> bool {
        !self.is_read_only() && self.isolation == Isolation::Serializable
    }
}

/// An open transaction. Dropping it rolls it back.
///
/// Reads of keys that it has written itself show what it wrote, with version 0 and timestamps of 0:
/// those are given at commit.
pub struct Transaction {
    inner: Arc<Inner>,
    /// Committed by [`Client::transaction`], not by whoever holds this.
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
    /// What ended it before its time.
    failed: Option<Error>,
    buffer: Buffer,
    reads: ReadSet,
    locks: Locks,
    /// Of a batch: checked where the keys are, when the transaction commits.
    conditions: Vec<v1::Condition>,
}

impl Client {
    /// Begins a transaction. Takes a timestamp, unless the options name one, and nothing else.
    pub async fn begin(&self, options: TransactionOptions) -> Result<Transaction> {
        let asked_at = self.sender.net.now();
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
        let snapshot = Snapshot::new(&self.holds, start_ts, asked_at);
        let inner = Inner::new(self, options, snapshot, clock, State::default());
        Ok(Transaction { inner: Arc::new(inner), managed: false })
    }
}

impl Transaction {
    /// For people: eight hexadecimal digits, the same for the whole life of the transaction. Others
    /// may have the same; its [`Transaction::start_ts`] is its own alone.
    pub fn id(&self) -> String {
        suspended::short_id(self.inner.start_ts())
    }

    /// What its reads see: all that was committed up to here. Not before the first read or the first
    /// call of this is it settled.
    pub fn start_ts(&self) -> Timestamp {
        Timestamp(self.inner.start_ts())
    }

    /// The key's value as of the transaction's start, or what the transaction itself wrote.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<KeyValue>> {
        self.inner.get(key.into()).await
    }

    /// The values of many keys, in the order of the keys, all as of the same time.
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

    /// Rows in key order, as of the transaction's start, with what it wrote itself up to now.
    pub fn range(&self, options: RangeOptions) -> TransactionRange {
        TransactionRange::new(self.inner.clone(), options)
    }

    /// Sets a key when the transaction commits.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] beyond [`TRANSACTION_BYTES_MAX`] or [`TRANSACTION_KEYS_MAX`]. With
    /// pessimistic options, as [`Transaction::get_for_update`].
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        let value = value.into();
        check_value(&value)?;
        self.inner.write(key.into(), Write::Put { value }).await
    }

    /// Deletes a key when the transaction commits; it need not exist.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<()> {
        self.inner.write(key.into(), Write::Delete).await
    }

    /// Deletes every key of `[start, end)`, which are read for that; an empty `end` is behind every
    /// key. Returns how many there were.
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

    /// Sets the key to `new` if its value is `expected` (none: if it has none). Otherwise the answer
    /// is [`Error::Conflict`] with what stands there, and the transaction may go on.
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

    /// Locks the key until the transaction ends, and returns its newest value. Nobody else writes it
    /// meanwhile; readers are not held up.
    ///
    /// The value may be newer than what [`Transaction::get`] shows. A serializable transaction that
    /// reads the same key both ways and sees it change fails at commit.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] if another transaction held the key for all of the wait timeout.
    /// [`Error::Deadlock`] if it waits for this one in turn: this one is rolled back then, so that the
    /// others go on.
    ///
    /// # Cancellation
    ///
    /// Dropped before its answer while it takes the transaction's first lock, it ends the transaction:
    /// nobody knows then where that is to be decided. To wait for less long, set
    /// [`TransactionOptions::lock_wait`].
    pub async fn get_for_update(&self, key: impl Into<Bytes>) -> Result<Option<KeyValue>> {
        let key = key.into();
        let locked = self.inner.lock_key(&key).await?;
        let own = self.inner.state.lock().unwrap().buffer.get(&key).map(|write| write.row(&key));
        Ok(own.unwrap_or(locked))
    }

    /// Makes all writes visible at once, or none. Returns the timestamp of that; a transaction that
    /// wrote nothing keeps the one it read at.
    ///
    /// # Errors
    ///
    /// [`Error::Undetermined`]: it may be committed. After every other error it is not and never will
    /// be; [`Error::is_transaction_conflict`] tells whether it is worth beginning anew.
    pub async fn commit(self) -> Result<Timestamp> {
        self.check_not_managed()?;
        let committed = self.inner.commit().await;
        self.inner.turn.end();
        committed
    }

    /// Forgets all writes, and returns once the locks are gone.
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

    /// The transaction's name in the cluster, and what it reads as of. Settled once it was asked for.
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

    fn open(&self) -> Result<std::sync::MutexGuard<'_, State>> {
        let state = self.state.lock().unwrap();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        if state.ended {
            return Err(Error::invalid("transaction", "it has ended"));
        }
        Ok(state)
    }
}
