//! Shares of a node's memory, from which bytes are taken before they are used.
//!
//! Bound to no runtime: whoever finds too little waits in a future, first come, first served. A share
//! may be a part of a larger one, as a connection's is of the node's; bytes are then taken from both,
//! the smaller first, so that who uses up his own waits for himself and holds up nobody else.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::channel::oneshot;

/// Those who wait for one share at most: more than a node works on at once.
const WAITING_MAX: usize = 64 * 1024;

/// See the module's head. Clones are the same share.
#[derive(Clone)]
pub struct Share(Arc<Inner>);

/// Bytes are taken and given back without a lock while nobody waits, as every request does both. All
/// orderings are sequential: whoever gives back sees who began to wait before, or is seen by him.
struct Inner {
    bytes_max: u64,
    part_of: Option<Share>,
    used: AtomicU64,
    /// Length of `waiting`.
    count: AtomicUsize,
    waiting: Mutex<VecDeque<Waiting>>,
    refused: AtomicU64,
}

struct Waiting {
    bytes: u64,
    tell: oneshot::Sender<Part>,
}

/// Bytes of a share and of all that it is a part of, given back when it is dropped.
#[must_use]
pub struct Taken {
    share: Share,
    bytes: u64,
}

/// Bytes of a share and of what it is a part of, but not yet of the whole.
#[must_use]
pub struct Own(Vec<Part>);

/// Bytes of one share alone.
struct Part {
    share: Share,
    bytes: u64,
}

impl Share {
    pub fn new(bytes_max: u64) -> Share {
        Self::of(bytes_max, None)
    }

    /// A share that is not bounded: for what others bound already.
    pub fn unbounded() -> Share {
        Self::new(u64::MAX)
    }

    /// A share of this one.
    pub fn part(&self, bytes_max: u64) -> Share {
        Self::of(bytes_max.min(self.0.bytes_max), Some(self.clone()))
    }

    fn of(bytes_max: u64, part_of: Option<Share>) -> Share {
        Share(Arc::new(Inner {
            bytes_max,
            part_of,
            used: AtomicU64::new(0),
            count: AtomicUsize::new(0),
            waiting: Mutex::default(),
            refused: AtomicU64::new(0),
        }))
    }

    pub fn bytes_max(&self) -> u64 {
        self.0.bytes_max
    }

    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::SeqCst)
    }

    /// Number of refusals.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Somebody was sent away for want of bytes.
    pub fn count_refusal(&self) {
        self.levels().for_each(|share| {
            share.0.refused.fetch_add(1, Ordering::Relaxed);
        });
    }

    /// The share, what it is a part of, and so on up to the whole.
    fn levels(&self) -> impl Iterator<Item = &Share> {
        std::iter::successors(Some(self), |share| share.0.part_of.as_ref())
    }

    /// The bytes if they are there at once. What is larger than the share takes all of it.
    pub fn try_take(&self, bytes: u64) -> Option<Taken> {
        let bytes = bytes.min(self.0.bytes_max);
        for (level, share) in self.levels().enumerate() {
            let is_free = share.0.count.load(Ordering::SeqCst) == 0 && share.count_in(bytes);
            if !is_free {
                self.levels().take(level).for_each(|share| share.give_back(bytes));
                return None;
            }
        }
        Some(Taken { share: self.clone(), bytes })
    }

    /// Waits for the bytes. `None` if too many wait already.
    pub async fn take(&self, bytes: u64) -> Option<Taken> {
        if let Some(taken) = self.try_take(bytes) {
            return Some(taken);
        }
        let own = self.take_own(bytes).await?;
        self.take_rest(bytes, own).await
    }

    /// Waits for what the taker alone uses up: the share, and those that it is a part of but for the
    /// whole. `None` if too many wait already.
    pub async fn take_own(&self, bytes: u64) -> Option<Own> {
        let bytes = bytes.min(self.0.bytes_max);
        let mut own = Own(Vec::new());
        for share in self.levels().filter(|share| share.0.part_of.is_some()) {
            own.0.push(share.take_here(bytes).await?);
        }
        Some(own)
    }

    /// Waits for what all use up together, and adds it to what [`Share::take_own`] took.
    pub async fn take_rest(&self, bytes: u64, mut own: Own) -> Option<Taken> {
        let bytes = bytes.min(self.0.bytes_max);
        for whole in self.levels().filter(|share| share.0.part_of.is_none()) {
            own.0.push(whole.take_here(bytes).await?);
        }
        // From here on they belong together.
        own.0.iter_mut().for_each(|part| part.bytes = 0);
        Some(Taken { share: self.clone(), bytes })
    }

    /// Counts the bytes in if there is room.
    fn count_in(&self, bytes: u64) -> bool {
        let with = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.0.bytes_max);
        self.0.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, with).is_ok()
    }

    async fn take_here(&self, bytes: u64) -> Option<Part> {
        if self.0.count.load(Ordering::SeqCst) == 0 && self.count_in(bytes) {
            return Some(Part { share: self.clone(), bytes });
        }
        let (tell, told) = oneshot::channel();
        {
            let mut waiting = self.0.waiting.lock().expect("no panic holds it");
            // Those who gave up must not hold the places of those who wait.
            if waiting.len() >= WAITING_MAX {
                waiting.retain(|waiting| !waiting.tell.is_canceled());
            }
            if waiting.len() >= WAITING_MAX {
                return None;
            }
            waiting.push_back(Waiting { bytes, tell });
            self.0.count.store(waiting.len(), Ordering::SeqCst);
        }
        // Room may have come between the look and the place in the queue.
        self.grant();
        told.await.ok()
    }

    fn give_back(&self, bytes: u64) {
        self.0.used.fetch_sub(bytes, Ordering::SeqCst);
        if self.0.count.load(Ordering::SeqCst) > 0 {
            self.grant();
        }
    }

    /// Hands out what is free to the first of those who wait.
    fn grant(&self) {
        loop {
            let mut waiting = self.0.waiting.lock().expect("no panic holds it");
            while waiting.front().is_some_and(|first| first.tell.is_canceled()) {
                waiting.pop_front();
            }
            let is_due = waiting.front().is_some_and(|first| self.count_in(first.bytes));
            let first = if is_due { waiting.pop_front() } else { None };
            self.0.count.store(waiting.len(), Ordering::SeqCst);
            drop(waiting);
            let Some(Waiting { bytes, tell }) = first else { return };
            // One who gave up in this moment gives it back.
            let _ = tell.send(Part { share: self.clone(), bytes });
        }
    }
}

impl Taken {
    /// Gives back what is above `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let excess = self.bytes.saturating_sub(bytes);
        if excess > 0 {
            self.bytes -= excess;
            self.share.levels().for_each(|share| share.give_back(excess));
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes one of both, if they are of the same share; else the other one is given back.
    pub fn add(&mut self, mut other: Taken) {
        if Arc::ptr_eq(&self.share.0, &other.share.0) {
            self.bytes += std::mem::take(&mut other.bytes);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.share.give_back(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;

    use super::*;

    #[test]
    fn what_is_taken_is_given_back_and_never_more_than_there_is() {
        let share = Share::new(100);
        let mut all = share.try_take(1000).unwrap();
        assert_eq!((all.bytes(), share.used()), (100, 100));
        assert!(share.try_take(1).is_none());
        all.shrink_to(60);
        assert_eq!(share.used(), 60);
        let rest = share.try_take(40).unwrap();
        drop((all, rest));
        assert_eq!(share.used(), 0);
    }

    #[test]
    fn who_waits_comes_first_and_in_order() {
        let share = Share::new(100);
        let held = share.try_take(80).unwrap();
        let mut large = pin!(share.take(90));
        let mut small = pin!(share.take(10));
        assert!(large.as_mut().now_or_never().is_none());
        assert!(small.as_mut().now_or_never().is_none(), "it comes behind");
        assert!(share.try_take(1).is_none(), "nobody passes those who wait");
        drop(held);
        let large = large.now_or_never().flatten().unwrap();
        let small = small.now_or_never().flatten().unwrap();
        assert_eq!(share.used(), 100);
        drop((large, small));
        assert_eq!(share.used(), 0);
    }

    #[test]
    fn who_gives_up_holds_up_nobody_and_keeps_nothing() {
        let share = Share::new(100);
        let held = share.try_take(100).unwrap();
        let mut gone = Box::pin(share.take(100));
        assert!(gone.as_mut().now_or_never().is_none());
        let mut next = pin!(share.take(50));
        assert!(next.as_mut().now_or_never().is_none());
        // Granted, and never fetched.
        drop(held);
        drop(gone);
        let next = next.now_or_never().flatten().unwrap();
        assert_eq!(share.used(), 50);
        drop(next);
        assert_eq!(share.used(), 0);
    }

    #[test]
    fn one_part_that_is_used_up_leaves_the_others_theirs() {
        let whole = Share::new(100);
        let (slow, quick) = (whole.part(40), whole.part(40));
        let held = slow.try_take(40).unwrap();
        assert!(slow.try_take(1).is_none());
        let mut waits = Box::pin(slow.take(10));
        assert!(waits.as_mut().now_or_never().is_none());
        let taken = quick.try_take(40).unwrap();
        assert_eq!((whole.used(), quick.used()), (80, 40));
        slow.count_refusal();
        assert_eq!((whole.refused(), quick.refused()), (1, 0));
        drop((held, taken, waits));
        assert_eq!((whole.used(), slow.used(), quick.used()), (0, 0, 0));
    }
}
