//! What to do about another transaction's lock.
//!
//! A lock is an uncommitted write whose fate is decided at one key, its transaction's primary. Who
//! meets a lock asks there what became of the transaction, and the answer settles what comes next:
//!
//! | fate        | reader of the newest | reader at a timestamp   | writer            |
//! |-------------|----------------------|-------------------------|-------------------|
//! | committed   | finish it, again     | finish it, again        | finish it, again  |
//! | rolled back | finish it, again     | finish it, again        | finish it, again  |
//! | alive       | pass it              | pushed: pass it         | wait, then again  |
//!
//! A transaction whose client is dead is rolled back by whoever asks once its lock has expired, by
//! the oracle's time; so nobody waits longer than a lock lives. A living one that a reader at T meets
//! is pushed: it may only commit above T from then on, so T can be read as if it was not there.
//!
//! A reader of the newest passes only locks that it met in the same request: those were uncommitted
//! after the request began, so it may be ordered before them.
//!
//! Fates are remembered, because one transaction leaves many locks. None of what is remembered can
//! become wrong: the two ends are final, and the least commit timestamp of a living one only rises.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{
    self, RangeDescriptor, command, command_reply, request, response, transaction_status::State,
};

use crate::command::{self as commands, Reply, unexpected_reply};
use crate::error::Result;
use crate::retry::{Effect, Retry};
use crate::router::Place;
use crate::sender::{Reached, Sender};
use crate::timestamps::Timestamps;

/// Transactions whose fate is remembered: some tens of kilobytes, and more than a client meets
/// unfinished at one time. Beyond, the oldest is forgotten, which costs asking again.
const FATES_MAX: usize = 1024;

/// A request for the range that a descriptor describes, passing locks of these transactions.
type BuildRead<'a> = &'a (dyn Fn(&RangeDescriptor, &[u64]) -> Result<request::Body> + Sync);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Committed {
        commit_ts: u64,
    },
    RolledBack,
    /// Not decided; it can only commit from here on.
    Alive {
        min_commit_ts: u64,
    },
}

pub(crate) struct Resolver {
    sender: Arc<Sender>,
    timestamps: Timestamps,
    /// By start timestamp.
    fates: Mutex<BTreeMap<u64, Fate>>,
}

impl Resolver {
    pub fn new(sender: Arc<Sender>, timestamps: Timestamps) -> Self {
        Resolver { sender, timestamps, fates: Mutex::default() }
    }

    /// Asks the range at a place to read something, at `read_ts` or (0) the newest.
    pub async fn read(
        &self,
        place: Place<'_>,
        read_ts: u64,
        deadline: Duration,
        build: BuildRead<'_>,
    ) -> Result<(Arc<RangeDescriptor>, response::Body)> {
        let mut retry = Retry::new(&*self.sender.net, Effect::Read, deadline);
        let mut passed = Vec::new();
        loop {
            let with_passed = |descriptor: &RangeDescriptor| build(descriptor, &passed);
            let lock = match self.sender.to_range(place, &with_passed, &mut retry).await? {
                (descriptor, Reached::Answer(answer)) => return Ok((descriptor, answer)),
                (_, Reached::Locked(lock)) => lock,
            };
            match self.fate(&lock, read_ts, deadline).await? {
                Fate::Alive { min_commit_ts } => {
                    let passable = read_ts == 0 || min_commit_ts > read_ts;
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

    /// What became of the transaction that holds the lock. A living one is pushed above
    /// `push_above_ts`, unless that is 0.
    async fn fate(
        &self,
        lock: &v1::KeyLocked,
        push_above_ts: u64,
        deadline: Duration,
    ) -> Result<Fate> {
        let fate = self.ask_for_fate(lock, push_above_ts, deadline).await;
        // Out of time, the lock is what it was spent on.
        fate.map_err(|error| match self.sender.net.now() >= deadline {
            true => lock.clone().into(),
            false => error,
        })
    }

    async fn ask_for_fate(
        &self,
        lock: &v1::KeyLocked,
        push_above_ts: u64,
        deadline: Duration,
    ) -> Result<Fate> {
        match self.fates.lock().unwrap().get(&lock.start_ts) {
            Some(Fate::Alive { min_commit_ts })
                if push_above_ts == 0 || *min_commit_ts <= push_above_ts => {}
            Some(fate) => return Ok(*fate),
            None => {}
        }
        #[cfg(feature = "planted")]
        if rangedb_planted::Bug::PrimaryNotAsked.is_planted() {
            return Ok(Fate::RolledBack);
        }
        let now_ts = self.timestamps.next(deadline).await?.0;
        let check = v1::CheckTransaction {
            primary: lock.primary.clone(),
            start_ts: lock.start_ts,
            now_ts,
            push_above_ts,
            met_alive_until_ms: 0,
        };
        let build = |_: &RangeDescriptor| Some(command::Body::CheckTransaction(check.clone()));
        let mut retry = Retry::new(&*self.sender.net, Effect::Read, deadline);
        let reply = commands::send(&self.sender, &lock.primary, &build, &mut retry).await?;
        let Reply::From(_, command_reply::Body::TransactionStatus(status)) = reply else {
            return Err(unexpected_reply(&retry));
        };
        let fate = match status.state() {
            State::Committed => Fate::Committed { commit_ts: status.commit_ts },
            State::RolledBack => Fate::RolledBack,
            State::Alive => Fate::Alive { min_commit_ts: status.min_commit_ts },
        };
        self.remember(lock.start_ts, fate);
        Ok(fate)
    }

    /// Does to the lock, and to those on `others` in the same range, what was decided of their
    /// transaction.
    async fn finish(
        &self,
        lock: &v1::KeyLocked,
        others: &[Bytes],
        fate: Fate,
        deadline: Duration,
    ) -> Result<()> {
        let commit_ts = match fate {
            Fate::Committed { commit_ts } => commit_ts,
            Fate::RolledBack => 0,
            Fate::Alive { .. } => return Ok(()),
        };
        let keys: BTreeSet<&Bytes> = others.iter().chain([&lock.key]).collect();
        let build = |range: &RangeDescriptor| {
            let keys = keys.iter().filter(|key| range.contains(key)).map(|key| (*key).clone());
            let (start_ts, keys) = (lock.start_ts, keys.collect());
            Some(command::Body::ResolveLocks(v1::ResolveLocks {
                start_ts,
                commit_ts,
                keys,
                ..Default::default()
            }))
        };
        let mut retry = Retry::new(&*self.sender.net, Effect::Read, deadline);
        match commands::send(&self.sender, &lock.key, &build, &mut retry).await? {
            Reply::From(_, command_reply::Body::Resolved(_)) => Ok(()),
            _ => Err(unexpected_reply(&retry)),
        }
    }

    fn remember(&self, start_ts: u64, fate: Fate) {
        let mut fates = self.fates.lock().unwrap();
        fates.insert(start_ts, fate);
        if fates.len() > FATES_MAX {
            fates.pop_first();
        }
    }
}
