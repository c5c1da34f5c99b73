//! Lock queues of this node: requests that wait for a lock, in one queue for each key.
//!
//! A request that meets another transaction's lock may wait here instead of asking again and again.
//! When the lock goes, one waiter has its turn, that of the oldest transaction: whoever lost its
//! place to a time-out finds it again, and nobody starves, because later ones are younger. It asks
//! the range again, and what comes of that decides who is next:
//!
//! - it holds the lock now: the others wait for its transaction from here on;
//! - it was held up again: it goes back to its place;
//! - anything else: the lock is free, and the next has its turn.
//!
//! What the queues know comes from the answers that passed through this node, so a lock may be gone
//! without a word of it here (another node led, an answer got lost). Therefore the first of a queue
//! asks again by itself now and then (`waiting.rs`).
//!
//! Bound to no clock: whoever waits brings its own timer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use futures::channel::oneshot;
use rangedb_proto::v1::{Deadlock, LockWait};

/// Requests that wait on one node: some megabytes. Beyond, a lock is answered at once.
const WAITERS_MAX: usize = 10_000;

/// Locks that went lately, for requests that were told of one just before it did. More than can be
/// answered between the two.
const RELEASED_MAX: usize = 4_096;

/// Reason why a wait ended.
#[derive(Debug, PartialEq)]
pub(super) enum Wake {
    /// Ask the range again.
    Turn,
    Deadlock(Deadlock),
}

/// See the module's head.
#[derive(Default)]
pub(super) struct LockQueues(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    queues: BTreeMap<Bytes, BTreeMap<Place, Waiter>>,
    waiters: usize,
    last_ticket: u64,
    /// Key and holder, and the same in the order in which they went.
    released: BTreeSet<(Bytes, u64)>,
    released_in_order: VecDeque<(Bytes, u64)>,
    /// Waits that the cluster was told of and that are over.
    ended: Vec<LockWait>,
    waits_begun: u64,
    deadlocks: u64,
}

/// Oldest transaction first, then whoever came first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Place {
    start_ts: u64,
    ticket: u64,
}

struct Waiter {
    holder_start_ts: u64,
    /// The holder that the cluster was told this one waits for.
    told: Option<u64>,
    /// None: it was woken, and its request is on its way.
    wake: Option<oneshot::Sender<Wake>>,
}

/// A request's place in a queue. Dropping it leaves the queue.
pub(super) struct Waiting<'a> {
    queues: &'a LockQueues,
    key: Bytes,
    place: Place,
}

/// Figures since the process began, and of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockWaitCounts {
    pub waiting: u64,
    pub begun: u64,
    pub deadlocks: u64,
}

impl LockQueues {
    /// Takes a place in the key's queue; none if too many wait already.
    pub fn enter(&self, key: &Bytes, start_ts: u64, holder_start_ts: u64) -> Option<Waiting<'_>> {
        let mut inner = self.lock();
        if inner.waiters >= WAITERS_MAX {
            return None;
        }
        inner.waiters += 1;
        inner.waits_begun += 1;
        inner.last_ticket += 1;
        let place = Place { start_ts, ticket: inner.last_ticket };
        let waiter = Waiter { holder_start_ts, told: None, wake: None };
        inner.queues.entry(key.clone()).or_default().insert(place, waiter);
        Some(Waiting { queues: self, key: key.clone(), place })
    }

    /// The transaction has no lock on these keys any more.
    pub fn released(&self, start_ts: u64, keys: &[Bytes]) {
        let mut inner = self.lock();
        for key in keys {
            inner.note_released(key, start_ts);
            inner.wake_first(key);
        }
    }

    /// The transaction has no locks any more in a span nobody has listed.
    pub fn all_released(&self, start_ts: u64) {
        let mut inner = self.lock();
        let waits_for_it = |queue: &BTreeMap<Place, Waiter>| {
            queue.values().any(|waiter| waiter.holder_start_ts == start_ts)
        };
        let queues = inner.queues.iter().filter(|(_, queue)| waits_for_it(queue));
        let keys: Vec<Bytes> = queues.map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| inner.wake_first(key));
    }

    /// The transaction has got the locks that others may wait for.
    pub fn taken(&self, start_ts: u64, keys: &[Bytes]) {
        let mut inner = self.lock();
        for key in keys {
            for waiter in inner.queues.get_mut(key).into_iter().flat_map(BTreeMap::values_mut) {
                waiter.holder_start_ts = start_ts;
            }
        }
    }

    /// Waits that the cluster does not know as they are now: all of them if `all`. They count as told
    /// from here on.
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

    /// Waits that the cluster was told of and that are over.
    pub fn take_ended(&self) -> Vec<LockWait> {
        std::mem::take(&mut self.lock().ended)
    }

    /// True if there is anything to tell, now or later.
    pub fn is_idle(&self) -> bool {
        let inner = self.lock();
        inner.queues.is_empty() && inner.ended.is_empty()
    }

    /// The wait that a deadlock begins with is over, if it still goes on as it was reported.
    pub fn break_deadlock(&self, deadlock: Deadlock) {
        let Some(victim) = deadlock.cycle.first() else { return };
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(queue) = inner.queues.get_mut(&victim.key) else { return };
        let of_victim = |(place, waiter): &(&Place, &mut Waiter)| {
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
        self.0.lock().expect("no panic holds it")
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

impl Waiting<'_> {
    /// From here on a release wakes this request. Says whom it waits for; resolves at once if that
    /// lock is known to be gone.
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

impl Drop for Waiting<'_> {
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
        // Its turn, if it had one, goes on to the next: who holds the lock now is not known here.
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

    /// True if it was woken for its turn.
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
        queues.taken(20, &[key()]);
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
