//! Shares of a node's memory: bytes are taken from a share before they are used.
//!
//! Bound to no runtime. A taker that finds too few bytes waits in a future, first come, first
//! served. A share may be a part of a larger one, as a connection's share is of the node's. Bytes
//! are then taken from both, the smaller share first. So a taker that uses up its own share waits
//! for itself and delays nobody else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures::channel::oneshot;
use parking_lot::Mutex;

/// Takers that may wait for one share: more than a node works on at once.
const WAITING_MAX: usize = 64 * 1024;

/// A number of bytes that takers share. Clones are the same share.
#[derive(Clone)]
pub struct Share(Arc<Inner>);

/// While nobody waits, bytes are taken and given back without a lock, because every request does
/// both. The orderings of `used` and `count` are `SeqCst`: either the giver sees that a taker began
/// to wait, or the taker sees the bytes that were given back.
struct Inner {
    bytes_max: u64,
    part_of: Option<Share>,
    used: AtomicU64,
    /// Length of `waiting`.
    count: AtomicUsize,
    waiting: Mutex<VecDeque<Taker>>,
    refused: AtomicU64,
}

struct Taker {
    bytes: u64,
    tell: oneshot::Sender<Part>,
}

/// Bytes of a share and of all shares that it is a part of. Given back on drop.
#[must_use]
pub struct Taken {
    share: Share,
    bytes: u64,
}

/// Bytes of a share and of the shares that it is a part of, without the outermost one.
#[must_use]
pub struct Own(Vec<Part>);

/// Bytes of a single share.
struct Part {
    share: Share,
    bytes: u64,
}

impl Share {
    pub fn new(bytes_max: u64) -> Share {
        Self::of(bytes_max, None)
    }

    /// Creates a share without a bound, for uses that are bounded elsewhere.
    pub fn unbounded() -> Share {
        Self::new(u64::MAX)
    }

    /// Creates a share that is a part of this one.
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

    /// Counts a refusal for lack of bytes.
    pub fn count_refusal(&self) {
        self.levels().for_each(|share| {
            share.0.refused.fetch_add(1, Ordering::Relaxed);
        });
    }

    /// The share, the one that it is a part of, and so on up to the outermost.
    fn levels(&self) -> impl Iterator<Item = &Share> {
        std::iter::successors(Some(self), |share| share.0.part_of.as_ref())
    }

    /// Takes the bytes if they are free at once. A request for more than the share takes all of it.
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

    /// Waits for the bytes. `None` if too many takers wait already.
    pub async fn take(&self, bytes: u64) -> Option<Taken> {
        if let Some(taken) = self.try_take(bytes) {
            return Some(taken);
        }
        let own = self.take_own(bytes).await?;
        self.take_rest(bytes, own).await
    }

    /// Waits for the bytes of the inner shares, which the taker alone uses up: this share and those
    /// that it is a part of, without the outermost one. `None` if too many takers wait already.
    pub async fn take_own(&self, bytes: u64) -> Option<Own> {
        let bytes = bytes.min(self.0.bytes_max);
        let mut own = Own(Vec::new());
        for share in self.levels().filter(|share| share.0.part_of.is_some()) {
            own.0.push(share.take_here(bytes).await?);
        }
        Some(own)
    }

    /// Waits for the bytes of the outermost share, which all takers use up together, and adds them
    /// to those of [`Share::take_own`].
    pub async fn take_rest(&self, bytes: u64, mut own: Own) -> Option<Taken> {
        let bytes = bytes.min(self.0.bytes_max);
        for whole in self.levels().filter(|share| share.0.part_of.is_none()) {
            own.0.push(whole.take_here(bytes).await?);
        }
        // From here on the returned `Taken` gives the bytes of all shares back together.
        own.0.iter_mut().for_each(|part| part.bytes = 0);
        Some(Taken { share: self.clone(), bytes })
    }

    /// Adds the bytes to `used` if they fit into the share.
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
            let mut waiting = self.0.waiting.lock();
            // Takers that gave up must not hold the places of those that wait.
            if waiting.len() >= WAITING_MAX {
                waiting.retain(|waiting| !waiting.tell.is_canceled());
            }
            if waiting.len() >= WAITING_MAX {
                return None;
            }
            waiting.push_back(Taker { bytes, tell });
            self.0.count.store(waiting.len(), Ordering::SeqCst);
        }
        // Bytes may have been given back between the check and the entry into the queue.
        self.grant();
        told.await.ok()
    }

    fn give_back(&self, bytes: u64) {
        self.0.used.fetch_sub(bytes, Ordering::SeqCst);
        if self.0.count.load(Ordering::SeqCst) > 0 {
            self.grant();
        }
    }

    /// Grants free bytes to the first takers in the queue.
    fn grant(&self) {
        loop {
            let mut waiting = self.0.waiting.lock();
            while waiting.front().is_some_and(|first| first.tell.is_canceled()) {
                waiting.pop_front();
            }
            let is_due = waiting.front().is_some_and(|first| self.count_in(first.bytes));
            let first = if is_due { waiting.pop_front() } else { None };
            self.0.count.store(waiting.len(), Ordering::SeqCst);
            drop(waiting);
            let Some(Taker { bytes, tell }) = first else { return };
            // A taker that gives up in this moment drops the `Part`, which gives the bytes back.
            let _ = tell.send(Part { share: self.clone(), bytes });
        }
    }
}

impl Taken {
    /// Gives back the bytes above `bytes`.
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

    /// Merges the other bytes into these if both are of the same share. Otherwise gives the others
    /// back.
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
        // The bytes are granted and never fetched.
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
