//! Lock queues of this node: requests that wait for a lock, in one queue for each key.
//!
//! A request that meets another transaction's lock may wait here instead of retrying in a loop.
//! When the lock is released, one waiter gets its turn: that of the oldest transaction. So a
//! request that lost its place to a time-out gets it back when it returns, and no transaction
//! starves, because later ones are younger. The waiter proposes its command again, and the outcome
//! decides who is next:
//!
//! - The waiter acquired the lock: the others now wait for its transaction.
//! - The waiter met a lock again: it goes back to its place.
//! - Anything else: the lock is free, and the next waiter gets its turn.
//!
//! The queues learn of locks only from the answers that pass through this node. So a lock may be
//! released without notice here, if another node led or an answer was lost. Therefore the first
//! waiter of a queue retries by itself now and then (`waiting.rs`).
//!
//! Bound to no clock: every waiter brings its own timer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use futures::channel::oneshot;
use parking_lot::{Mutex, MutexGuard};
use rangedb_proto::v1::{Deadlock, LockWait};

/// Requests that wait on one node at most: some megabytes. Beyond that, a command that meets a lock
/// is answered at once.
const WAITERS_MAX: usize = 10_000;

/// Recently released locks that are remembered. A request may be answered with a lock just before
/// the release, and enter the queue just after it. The bound is more than can be released in
/// between.
const RELEASED_MAX: usize = 4_096;

/// Reason why a wait ended.
#[derive(Debug, PartialEq)]
pub(super) enum Wake {
    /// Ask the range again.
    Turn,
    Deadlock(Deadlock),
}

/// Requests that wait for locks, in one queue for each key.
#[derive(Default)]
pub(super) struct LockQueues(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    queues: BTreeMap<Bytes, BTreeMap<QueuePosition, Waiter>>,
    waiters: usize,
    last_ticket: u64,
    /// Key and holder of recently released locks; `released_in_order` has them in order of release.
    released: BTreeSet<(Bytes, u64)>,
    released_in_order: VecDeque<(Bytes, u64)>,
    /// Waits that were reported to the control plane and have ended.
    ended: Vec<LockWait>,
    waits_begun: u64,
    deadlocks: u64,
}

/// QueuePosition in a queue: the oldest transaction comes first, then the earliest request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct QueuePosition {
    start_ts: u64,
    ticket: u64,
}

struct Waiter {
    holder_start_ts: u64,
    /// The holder that was last reported to the control plane for this wait.
    told: Option<u64>,
    /// `None` if the waiter was woken and its request is in flight.
    wake: Option<oneshot::Sender<Wake>>,
}

/// A request's place in a queue. Dropping it removes the request from the queue.
pub(super) struct QueuedRequest<'a> {
    queues: &'a LockQueues,
    key: Bytes,
    place: QueuePosition,
}

/// Current number of waiters, and counts since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockWaitCounts {
    pub waiting: u64,
    pub begun: u64,
    pub deadlocks: u64,
}

impl LockQueues {
    /// Takes a place in the key's queue. `None` if too many requests wait already.
    pub fn enter(
        &self,
        key: &Bytes,
        start_ts: u64,
        holder_start_ts: u64,
    ) -> Option<QueuedRequest<'_>> {
        let mut inner = self.lock();
        if inner.waiters >= WAITERS_MAX {
            return None;
        }
        inner.waiters += 1;
        inner.waits_begun += 1;
        inner.last_ticket += 1;
        let place = QueuePosition { start_ts, ticket: inner.last_ticket };
        let waiter = Waiter { holder_start_ts, told: None, wake: None };
        inner.queues.entry(key.clone()).or_default().insert(place, waiter);
        Some(QueuedRequest { queues: self, key: key.clone(), place })
    }

    /// Records that the transaction has no lock on these keys any more, and wakes the next waiters.
    pub fn released(&self, start_ts: u64, keys: &[Bytes]) {
        let mut inner = self.lock();
        for key in keys {
            inner.note_released(key, start_ts);
            inner.wake_first(key);
        }
    }

    /// Wakes a waiter in each queue in which a request waits for the transaction. For commands that
    /// removed its locks in a span without listing the keys.
    pub fn all_released(&self, start_ts: u64) {
        let mut inner = self.lock();
        let waits_for_it = |queue: &BTreeMap<QueuePosition, Waiter>| {
            queue.values().any(|waiter| waiter.holder_start_ts == start_ts)
        };
        let queues = inner.queues.iter().filter(|(_, queue)| waits_for_it(queue));
        let keys: Vec<Bytes> = queues.map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| inner.wake_first(key));
    }

    /// Records that the transaction holds the locks on these keys now: other waiters wait for it.
    pub fn taken(&self, start_ts: u64, keys: &[&Bytes]) {
        let mut inner = self.lock();
        for key in keys {
            for waiter in inner.queues.get_mut(*key).into_iter().flat_map(BTreeMap::values_mut) {
                waiter.holder_start_ts = start_ts;
            }
        }
    }

    /// Takes the waits that the control plane does not know in their present form, or all waits if
    /// `all`. They count as reported from here on.
    pub fn take_begun(&self, all: bool) -> Vec<LockWait> {
        let mut begun = Vec::new();
        for (key, queue) in &mut self.lock().queues {
            for (place, waiter) in queue {
                let holder_start_ts = waiter.holder_start_ts;
                if holder_start_ts == place.start_ts {
                    continue;
                }
                if all || waiter.told != Some(holder_start_ts) {
                    waiter.told = Some(holder_start_ts);
                    let waiter_start_ts = place.start_ts;
                    begun.push(LockWait { waiter_start_ts, holder_start_ts, key: key.clone() });
                }
            }
        }
        begun
    }

    /// Takes the waits that were reported to the control plane and have ended.
    pub fn take_ended(&self) -> Vec<LockWait> {
        std::mem::take(&mut self.lock().ended)
    }

    /// True if there is nothing to report, now or later.
    pub fn is_idle(&self) -> bool {
        let inner = self.lock();
        inner.queues.is_empty() && inner.ended.is_empty()
    }

    /// Ends the wait that the deadlock begins with, if its waiter still waits for the reported
    /// holder.
    pub fn break_deadlock(&self, deadlock: Deadlock) {
        let Some(victim) = deadlock.cycle.first() else { return };
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(queue) = inner.queues.get_mut(&victim.key) else { return };
        let of_victim = |(place, waiter): &(&QueuePosition, &mut Waiter)| {
            place.start_ts == victim.waiter_start_ts
                && waiter.holder_start_ts == victim.holder_start_ts
        };
        if let Some((_, waiter)) = queue.iter_mut().find(of_victim)
            && let Some(wake) = waiter.wake.take()
        {
            inner.deadlocks += 1;
            let _ = wake.send(Wake::Deadlock(deadlock));
        }
    }

    pub fn counts(&self) -> LockWaitCounts {
        let inner = self.lock();
        LockWaitCounts {
            waiting: inner.waiters as u64,
            begun: inner.waits_begun,
            deadlocks: inner.deadlocks,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock()
    }
}

impl Inner {
    fn wake_first(&mut self, key: &Bytes) {
        let first = self.queues.get_mut(key).and_then(|queue| queue.values_mut().next());
        if let Some(wake) = first.and_then(|waiter| waiter.wake.take()) {
            let _ = wake.send(Wake::Turn);
        }
    }

    fn note_released(&mut self, key: &Bytes, holder: u64) {
        if self.released.insert((key.clone(), holder)) {
            self.released_in_order.push_back((key.clone(), holder));
        }
        if self.released_in_order.len() > RELEASED_MAX {
            let oldest = self.released_in_order.pop_front().expect("just counted");
            self.released.remove(&oldest);
        }
    }
}

impl QueuedRequest<'_> {
    /// Registers the wait for a lock of this holder: from here on, its release wakes the request.
    /// The receiver resolves at once if the lock is known to be released.
    pub fn until_woken(&self, holder_start_ts: u64) -> oneshot::Receiver<Wake> {
        let (wake, woken) = oneshot::channel();
        let mut inner = self.queues.lock();
        let gone = inner.released.remove(&(self.key.clone(), holder_start_ts));
        if gone {
            let entry = (self.key.clone(), holder_start_ts);
            inner.released_in_order.retain(|released| *released != entry);
        }
        let waiter = inner.queues.get_mut(&self.key).and_then(|queue| queue.get_mut(&self.place));
        let waiter = waiter.expect("a place is kept until it is dropped");
        waiter.holder_start_ts = holder_start_ts;
        if gone {
            let _ = wake.send(Wake::Turn);
        } else {
            waiter.wake = Some(wake);
        }
        woken
    }

    pub fn is_first(&self) -> bool {
        let inner = self.queues.lock();
        let queue = inner.queues.get(&self.key);
        queue.and_then(|queue| queue.keys().next()) == Some(&self.place)
    }
}

impl Drop for QueuedRequest<'_> {
    fn drop(&mut self) {
        let mut inner = self.queues.lock();
        let inner = &mut *inner;
        inner.waiters -= 1;
        let queue = inner.queues.get_mut(&self.key).expect("a place is kept until it is dropped");
        let waiter = queue.remove(&self.place).expect("a place is kept until it is dropped");
        if queue.is_empty() {
            inner.queues.remove(&self.key);
        }
        if let Some(holder_start_ts) = waiter.told {
            let (waiter_start_ts, key) = (self.place.start_ts, self.key.clone());
            inner.ended.push(LockWait { waiter_start_ts, holder_start_ts, key });
        }
        // If the waiter had its turn and did not get the lock, the next one gets the turn: this
        // queue does not know who holds the lock now.
        if waiter.wake.is_none() && waiter.holder_start_ts != self.place.start_ts {
            inner.wake_first(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Bytes {
        Bytes::from_static(b"k")
    }

    /// True if the waiter was woken for its turn.
    fn has_turn(woken: &mut oneshot::Receiver<Wake>) -> bool {
        woken.try_recv().expect("not dropped") == Some(Wake::Turn)
    }

    #[test]
    fn the_oldest_transaction_has_its_turn_first() {
        let queues = LockQueues::default();
        let young = queues.enter(&key(), 30, 10).unwrap();
        let old = queues.enter(&key(), 20, 10).unwrap();
        let (mut young_woken, mut old_woken) = (young.until_woken(10), old.until_woken(10));
        queues.released(10, &[key()]);
        assert!(has_turn(&mut old_woken));
        assert!(!has_turn(&mut young_woken));
        assert!(old.is_first() && !young.is_first());
    }

    #[test]
    fn the_next_has_its_turn_when_the_first_ends_without_the_lock() {
        let queues = LockQueues::default();
        let (first, second) = (queues.enter(&key(), 20, 10), queues.enter(&key(), 30, 10));
        let (first, second) = (first.unwrap(), second.unwrap());
        let (_first_woken, mut second_woken) = (first.until_woken(10), second.until_woken(10));
        queues.released(10, &[key()]);
        drop(first);
        assert!(has_turn(&mut second_woken));
    }

    #[test]
    fn the_others_wait_for_whoever_got_the_lock() {
        let queues = LockQueues::default();
        let (first, second) = (queues.enter(&key(), 20, 10), queues.enter(&key(), 30, 10));
        let (first, second) = (first.unwrap(), second.unwrap());
        let (_first_woken, mut second_woken) = (first.until_woken(10), second.until_woken(10));
        assert_eq!(queues.take_begun(false).len(), 2);
        queues.released(10, &[key()]);
        queues.taken(20, &[&key()]);
        drop(first);
        assert!(!has_turn(&mut second_woken));
        let wait = LockWait { waiter_start_ts: 30, holder_start_ts: 20, key: key() };
        assert_eq!(queues.take_begun(false), [wait]);
        assert_eq!(queues.take_ended().len(), 1);
        queues.released(20, &[key()]);
        assert!(has_turn(&mut second_woken));
    }

    #[test]
    fn a_lock_that_went_just_before_is_not_waited_for() {
        let queues = LockQueues::default();
        queues.released(10, &[key()]);
        let waiting = queues.enter(&key(), 20, 10).unwrap();
        assert!(has_turn(&mut waiting.until_woken(10)));
        assert!(!has_turn(&mut waiting.until_woken(10)), "it is known once");
    }

    #[test]
    fn a_deadlock_ends_the_wait_that_it_begins_with_and_no_other() {
        let queues = LockQueues::default();
        let victim = queues.enter(&key(), 20, 10).unwrap();
        let mut woken = victim.until_woken(10);
        let wait = |holder_start_ts| LockWait { waiter_start_ts: 20, holder_start_ts, key: key() };
        queues.break_deadlock(Deadlock { cycle: vec![wait(11)] });
        assert_eq!(woken.try_recv(), Ok(None));
        let deadlock = Deadlock { cycle: vec![wait(10)] };
        queues.break_deadlock(deadlock.clone());
        assert_eq!(woken.try_recv(), Ok(Some(Wake::Deadlock(deadlock))));
        assert_eq!(queues.counts(), LockWaitCounts { waiting: 1, begun: 1, deadlocks: 1 });
    }

    #[test]
    fn who_leaves_is_forgotten() {
        let queues = LockQueues::default();
        let waiting = queues.enter(&key(), 20, 10).unwrap();
        assert!(!queues.is_idle());
        drop(waiting);
        assert!(queues.is_idle() && queues.take_ended().is_empty(), "nobody was told");
    }
}
