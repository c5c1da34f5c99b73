//! Shares of a node's memory, from which bytes are taken before they are used.
//!
//! Bound to no runtime: whoever finds too little waits in a future, first come, first served. A share
//! may be a part of a larger one, as a connection's is of the node's; bytes are then taken from both,
//! the smaller first, so that who uses up his own waits for himself and holds up nobody else.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::channel::oneshot;

/// Those who wait for one share at most: more than a node works on at once.
const WAITING_MAX: usize = 64 * 1024;

/// See the module's head. Clones are the same share.
#[derive(Clone)]
pub struct Share(Arc<Inner>);

struct Inner {
    bytes_max: u64,
    part_of: Option<Share>,
    state: Mutex<State>,
    refused: AtomicU64,
}

#[derive(Default)]
struct State {
    used: u64,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    bytes: u64,
    tell: oneshot::Sender<Part>,
}

/// Bytes of a share and of all that it is a part of, given back when it is dropped.
#[must_use]
pub struct Taken(Vec<Part>);

/// Bytes of one share.
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
        let (state, refused) = (Mutex::default(), AtomicU64::new(0));
        Share(Arc::new(Inner { bytes_max, part_of, state, refused }))
    }

    pub fn bytes_max(&self) -> u64 {
        self.0.bytes_max
    }

    pub fn used(&self) -> u64 {
        self.state().used
    }

    /// Number of refusals.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Somebody was sent away for want of bytes.
    pub fn count_refusal(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
        if let Some(whole) = &self.0.part_of {
            whole.count_refusal();
        }
    }

    /// The bytes if they are there at once. What is larger than the share takes all of it.
    pub fn try_take(&self, bytes: u64) -> Option<Taken> {
        let bytes = bytes.min(self.0.bytes_max);
        let mut taken = Taken(Vec::new());
        let mut next = Some(self);
        while let Some(share) = next {
            taken.0.push(share.try_take_here(bytes)?);
            next = share.0.part_of.as_ref();
        }
        Some(taken)
    }

    /// Waits for the bytes. `None` if too many wait already.
    pub async fn take(&self, bytes: u64) -> Option<Taken> {
        let own = self.take_own(bytes).await?;
        self.take_rest(bytes, own).await
    }

    /// Waits for what the taker alone uses up: the share, and those that it is a part of but for the
    /// whole. `None` if too many wait already.
    pub async fn take_own(&self, bytes: u64) -> Option<Taken> {
        let bytes = bytes.min(self.0.bytes_max);
        let mut taken = Taken(Vec::new());
        let mut share = self;
        while let Some(part_of) = &share.0.part_of {
            taken.0.push(share.take_here(bytes).await?);
            share = part_of;
        }
        Some(taken)
    }

    /// Waits for what all use up together, and adds it to what [`Share::take_own`] took.
    pub async fn take_rest(&self, bytes: u64, mut own: Taken) -> Option<Taken> {
        let bytes = bytes.min(self.0.bytes_max);
        let mut whole = self;
        while let Some(part_of) = &whole.0.part_of {
            whole = part_of;
        }
        own.0.push(whole.take_here(bytes).await?);
        Some(own)
    }

    fn try_take_here(&self, bytes: u64) -> Option<Part> {
        let mut state = self.state();
        if !state.waiting.is_empty() || bytes > self.0.bytes_max - state.used {
            return None;
        }
        state.used += bytes;
        drop(state);
        Some(Part { share: self.clone(), bytes })
    }

    async fn take_here(&self, bytes: u64) -> Option<Part> {
        if let Some(part) = self.try_take_here(bytes) {
            return Some(part);
        }
        let (tell, told) = oneshot::channel();
        {
            let mut state = self.state();
            // Those who gave up must not hold the places of those who wait.
            if state.waiting.len() >= WAITING_MAX {
                state.waiting.retain(|waiting| !waiting.tell.is_canceled());
            }
            if state.waiting.len() >= WAITING_MAX {
                return None;
            }
            state.waiting.push_back(Waiting { bytes, tell });
        }
        // Room may have come between the look and the place in the queue.
        self.grant();
        told.await.ok()
    }

    fn give_back(&self, bytes: u64) {
        let mut state = self.state();
        state.used -= bytes;
        let is_waited_for = !state.waiting.is_empty();
        drop(state);
        if is_waited_for {
            self.grant();
        }
    }

    /// Hands out what is free to the first of those who wait.
    fn grant(&self) {
        loop {
            let mut state = self.state();
            while state.waiting.front().is_some_and(|first| first.tell.is_canceled()) {
                state.waiting.pop_front();
            }
            let free = self.0.bytes_max - state.used;
            if state.waiting.front().is_none_or(|first| first.bytes > free) {
                return;
            }
            let Some(Waiting { bytes, tell }) = state.waiting.pop_front() else { return };
            state.used += bytes;
            drop(state);
            // One who gave up in this moment gives it back.
            let _ = tell.send(Part { share: self.clone(), bytes });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no panic holds it")
    }
}

impl Taken {
    /// Gives back what is above `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        for part in &mut self.0 {
            let excess = part.bytes.saturating_sub(bytes);
            if excess > 0 {
                part.bytes -= excess;
                part.share.give_back(excess);
            }
        }
    }

    pub fn bytes(&self) -> u64 {
        self.0.first().map_or(0, |part| part.bytes)
    }

    /// Makes one of both. They must be of the same share.
    pub fn add(&mut self, other: Taken) {
        for (mine, mut theirs) in self.0.iter_mut().zip(other.0) {
            mine.bytes += std::mem::take(&mut theirs.bytes);
        }
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
