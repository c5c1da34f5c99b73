//! Resolution of another transaction's lock.
//!
//! A lock is an uncommitted write whose fate is decided at one key, its transaction's primary. Who
//! meets a lock asks there what became of the transaction, and the answer settles what comes next:
//!
//! | fate        | reader of the newest | reader at a timestamp   | writer            |
//! |-------------|----------------------|-------------------------|-------------------|
//! | committed   | finish it, again     | finish it, again        | finish it, again  |
//! | rolled back | finish it, again     | finish it, again        | finish it, again  |
//! | alive       | pass it (one key)    | pushed: pass it         | wait, then again  |
//! | alive, asynchronous commit | wait, then again | pass it if it commits later, else wait | wait, then again |
//!
//! A transaction whose client is dead is rolled back by whoever asks once its lock has expired, by
//! the oracle's time; so nobody waits longer than a lock lives. A living one that a reader at T meets
//! is pushed: it may only commit above T from then on, so T can be read as if it was not there.
//!
//! A transaction of an asynchronous commit is committed as soon as all of its locks stand, so nobody
//! pushes it, and a reader of the newest cannot tell from its primary alone that it is not. Once its
//! time is up, all of its locks are looked at (`secondaries.rs`).
//!
//! A reader of the newest value of one key passes only locks that it met in the same request: those
//! were uncommitted after the request began, so it may be ordered before them. Of a page of keys
//! that would not do: asked for again, it would show what was committed meanwhile, perhaps by
//! whoever heard that the passed transaction is committed, and hide that one. Such a reader takes a
//! timestamp when it meets the first lock, and reads the page as of then.
//!
//! Fates are remembered, because one transaction leaves many locks. None of what is remembered can
//! become wrong: the two ends are final, and the least commit timestamp of a living one only rises.

mod finish;
mod secondaries;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rangedb_proto::Timestamp;
use rangedb_proto::v1::{
    self, RangeDescriptor, TransactionStatus, command, command_reply, request, response,
    transaction_status::State,
};

use crate::command::{self as commands, Reply, unexpected_reply};
use crate::error::{Error, Result};
use crate::retry::{Effect, Retry};
use crate::router::Place;
use crate::sender::{Reached, Sender};
use crate::timestamps::Timestamps;

/// Transactions whose fate is remembered: some tens of kilobytes, and more than a client meets
/// unfinished at one time. Beyond, the oldest is forgotten, which costs asking again.
const FATES_MAX: usize = 1024;

/// A request for the range that a descriptor describes, at a timestamp or (0) of the newest, passing
/// locks of these transactions.
type BuildRead<'a> = &'a (dyn Fn(&RangeDescriptor, u64, &[u64]) -> Result<request::Body> + Sync);

/// How much a request reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Key,
    /// Several keys, which must be seen at one moment.
    Page,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Committed {
        commit_ts: u64,
    },
    RolledBack,
    /// Not decided at its primary; it can only commit from here on. 0: not known.
    Alive {
        min_commit_ts: u64,
        /// It may be committed by its locks, all taken together.
        is_async: bool,
    },
}

impl Fate {
    fn of(status: &TransactionStatus) -> Fate {
        match status.state() {
            State::Committed => Fate::Committed { commit_ts: status.commit_ts },
            State::RolledBack => Fate::RolledBack,
            State::Alive => {
                Fate::Alive { min_commit_ts: status.min_commit_ts, is_async: status.async_commit }
            }
        }
    }
}

struct Known {
    fate: Fate,
    /// Number of times that locks of it were met that had to be finished.
    finished: u32,
}

pub(crate) struct Resolver {
    sender: Arc<Sender>,
    timestamps: Timestamps,
    /// By start timestamp and primary: what was decided at one primary says nothing of locks under
    /// another, which a foreign client may have left.
    fates: Mutex<BTreeMap<(u64, Bytes), Known>>,
}

impl Resolver {
    pub fn new(sender: Arc<Sender>, timestamps: Timestamps) -> Self {
        Resolver { sender, timestamps, fates: Mutex::default() }
    }

    /// Asks the range at a place to read something, at `read_ts` or (0) the newest.
    pub async fn read(
        &self,
        place: Place<'_>,
        extent: Extent,
        mut read_ts: u64,
        deadline: Duration,
        build: BuildRead<'_>,
    ) -> Result<(Arc<RangeDescriptor>, response::Body)> {
        let mut retry = Retry::new(&*self.sender.net, Effect::Read, deadline);
        let mut passed = Vec::new();
        loop {
            let with_passed = |descriptor: &RangeDescriptor| build(descriptor, read_ts, &passed);
            let lock = match self.sender.to_range(place, &with_passed, &mut retry).await? {
                (descriptor, Reached::Answer(answer)) => return Ok((descriptor, answer)),
                (_, Reached::Locked(lock)) => lock,
            };
            match self.fate(&lock, read_ts, deadline).await? {
                Fate::Alive { .. } if read_ts == 0 && extent == Extent::Page => {
                    let now = self.timestamps.next(deadline).await;
                    read_ts = now.map_err(|error| self.out_of_time(error, &lock, deadline))?.0;
                    retry.unblocked();
                }
                Fate::Alive { min_commit_ts, is_async } => {
                    let passable = match read_ts {
                        0 => !is_async,
                        read_ts => min_commit_ts > read_ts,
                    };
                    if passable && !passed.contains(&lock.start_ts) {
                        passed.push(lock.start_ts);
                        retry.unblocked();
                    } else {
                        retry.blocked(lock.into()).await;
                    }
                }
                decided => {
                    self.finish(&lock, &[], decided, deadline).await?;
                    // Its other locks hide nothing either.
                    if decided == Fate::RolledBack && !passed.contains(&lock.start_ts) {
                        passed.push(lock.start_ts);
                    }
                    retry.unblocked();
                }
            }
        }
    }

    /// For a writer: true if the lock is gone now, false if its transaction lives. Gone are also
    /// those that the transaction has on `keys`, which the writer would meet next.
    pub async fn clear(
        &self,
        lock: &v1::KeyLocked,
        keys: &[Bytes],
        deadline: Duration,
    ) -> Result<bool> {
        match self.fate(lock, 0, deadline).await? {
            Fate::Alive { .. } => Ok(false),
            decided => {
                self.finish(lock, keys, decided, deadline).await?;
                Ok(true)
            }
        }
    }

    /// For one who looks at the state as of a timestamp: true if the lock may be passed there,
    /// because its transaction commits later or never. False also if it was finished just now.
    pub async fn push(
        &self,
        lock: &v1::KeyLocked,
        above_ts: u64,
        deadline: Duration,
    ) -> Result<bool> {
        match self.fate(lock, above_ts, deadline).await? {
            Fate::Alive { min_commit_ts, .. } => Ok(min_commit_ts > above_ts),
            decided => {
                self.finish(lock, &[], decided, deadline).await?;
                Ok(decided == Fate::RolledBack)
            }
        }
    }

    /// What became of the transaction that holds the lock. A living one is pushed above
    /// `push_above_ts`, unless that is 0.
    async fn fate(
        &self,
        lock: &v1::KeyLocked,
        push_above_ts: u64,
        deadline: Duration,
    ) -> Result<Fate> {
        let fate = self.ask_for_fate(lock, push_above_ts, deadline).await;
        fate.map_err(|error| self.out_of_time(error, lock, deadline))
    }

    /// Out of time, the lock is what it was spent on.
    fn out_of_time(&self, error: Error, lock: &v1::KeyLocked, deadline: Duration) -> Error {
        match self.sender.net.now() >= deadline {
            true => lock.clone().into(),
            false => error,
        }
    }

    async fn ask_for_fate(
        &self,
        lock: &v1::KeyLocked,
        push_above_ts: u64,
        deadline: Duration,
    ) -> Result<Fate> {
        match self.fates.lock().unwrap().get(&place_of(lock)).map(|known| known.fate) {
            Some(Fate::Alive { min_commit_ts, .. })
                if push_above_ts == 0 || min_commit_ts <= push_above_ts => {}
            Some(fate) => return Ok(fate),
            None => {}
        }
        #[cfg(feature = "planted")]
        if rangedb_planted::Bug::PrimaryNotAsked.is_planted() {
            return Ok(Fate::RolledBack);
        }
        let (status, now) = self.check_transaction(lock, push_above_ts, deadline).await?;
        let is_over = now.millis() > status.alive_until_ms;
        let fate = match Fate::of(&status) {
            Fate::Alive { is_async: true, .. } if is_over => {
                self.settle(lock, status, deadline).await?
            }
            fate => fate,
        };
        self.remember(lock, fate);
        Ok(fate)
    }

    /// What the primary says, and as of when.
    async fn check_transaction(
        &self,
        lock: &v1::KeyLocked,
        push_above_ts: u64,
        deadline: Duration,
    ) -> Result<(TransactionStatus, Timestamp)> {
        let now = self.timestamps.next(deadline).await?;
        let check = v1::CheckTransaction {
            primary: lock.primary.clone(),
            start_ts: lock.start_ts,
            now_ts: now.0,
            push_above_ts,
            met_alive_until_ms: lock.alive_until_ms,
        };
        let build = |_: &RangeDescriptor| Some(command::Body::CheckTransaction(check.clone()));
        let mut retry = Retry::new(&*self.sender.net, Effect::Read, deadline);
        match commands::send(&self.sender, &lock.primary, &build, &mut retry).await? {
            Reply::From(_, command_reply::Body::TransactionStatus(status)) => Ok((status, now)),
            _ => Err(unexpected_reply(&retry)),
        }
    }

    fn remember(&self, lock: &v1::KeyLocked, fate: Fate) {
        let mut fates = self.fates.lock().unwrap();
        fates.entry(place_of(lock)).or_insert(Known { fate, finished: 0 }).fate = fate;
        if fates.len() > FATES_MAX {
            fates.pop_first();
        }
    }

    /// Number of times that this was said of the transaction.
    fn note_finished(&self, lock: &v1::KeyLocked) -> u32 {
        let mut fates = self.fates.lock().unwrap();
        fates.get_mut(&place_of(lock)).map_or(1, |known| {
            known.finished += 1;
            known.finished
        })
    }
}

/// Where the fate of a lock's transaction is decided.
fn place_of(lock: &v1::KeyLocked) -> (u64, Bytes) {
    (lock.start_ts, lock.primary.clone())
}
