//! Turns at a key for which many writers of this client contend: one goes, the others wait in a
//! queue.
//!
//! Of many writers that want to replace the same version, one can succeed. Sent all together, the
//! others cost the range as much as that one, and their next attempts collide in the same way. So
//! they go one after the other, in order of arrival. Nearly every commit under contention then
//! succeeds.
//!
//! A turn is advice and no lock: the range decides whether a write takes effect, as if there were
//! no turns. Writers in other processes know nothing of turns.
//!
//! # Conditional writes
//!
//! Conditional writes always take turns, and hold theirs until they are answered. The row at the
//! key is then known. Waiters whose condition this row breaks are answered with it, without a
//! request of their own.
//!
//! Such an answer is correct. A write takes effect, or is found not to, at some moment after it was
//! sent. A waiter that already waited when the write was sent (`early`) may be answered as if its
//! condition had been checked at that same moment, which lies between its call and its answer. A
//! waiter that came later may not: it might know of something newer. It takes its turn.
//!
//! # Transactions
//!
//! Transactions take turns at hot keys, at which one of them met a conflict lately (`turns/hot.rs`,
//! `../transaction/turn.rs`). The caller decides what a transaction does with its turn, so the
//! transaction loses it after [`TURN_MAX`] if others wait.
//!
//! # No deadlocks
//!
//! A transaction requests one turn at a time and gives it back before it requests another. A write
//! needs only its own turn. A closure that waits for a second transaction at the same key waits for
//! itself, until its turn is over.
//!
//! # Without turns
//!
//! Writes of several keys, and conditions that many writers can meet at once ([`Test::Exists`]
//! alone), take no turns. Waiters need no bound of their own: each is a call in which its caller
//! waits.
//!
//! [`Test::Exists`]: crate::Test::Exists

mod conditional;
mod hot;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::{Either, poll_fn, select};
use parking_lot::Mutex;
use rangedb_proto::v1;

use crate::net::SharedNet;
use hot::HotKeys;

pub(crate) use conditional::{first_broken, key_of, left_by};

/// Time for which a transaction keeps its turn while others wait: several rounds over a slow
/// network or disk. Beyond that the caller causes the delay, and must not stop the others.
pub(crate) const TURN_MAX: Duration = Duration::from_millis(250);

/// Queues of turns, by key. Clones share them.
#[derive(Clone)]
pub(crate) struct Turns {
    net: SharedNet,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Queues by key. A key is listed as long as somebody has its turn.
    queues: BTreeMap<Bytes, Queue>,
    last_ticket: u64,
    hot: HotKeys,
}

struct Queue {
    /// Ticket of the holder of the turn.
    holder: u64,
    /// Time from which the turn can be taken away; none: never.
    ends_at: Option<Duration>,
    waiting: VecDeque<Waiter>,
}

struct Waiter {
    taker: Taker,
    /// True if the waiter came before the write in flight was sent.
    early: bool,
    notify: oneshot::Sender<Notification>,
}

/// Kind of a participant in turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taker {
    /// A conditional write: holds the turn for one request, and may be answered while it waits.
    Write,
    Transaction,
}

/// End of a wait.
enum Notification {
    Turn(Turn),
    /// For early writes: the row that the write in flight found.
    Found(Option<v1::KeyValue>),
}

/// Result of waiting for a turn.
pub(crate) enum Entered {
    Turn {
        turn: Turn,
        /// True if others had the turn first.
        waited: bool,
    },
    /// For writes: the row at the key at some moment of the wait; none: no row.
    Found(Option<v1::KeyValue>),
    TimeUp,
}

/// The right to go next at a key. Passed on when it is dropped.
pub(crate) struct Turn {
    turns: Turns,
    key: Bytes,
    ticket: u64,
    passed_on: bool,
}

impl Turns {
    pub fn new(net: SharedNet) -> Self {
        Turns { net, state: Arc::default() }
    }

    /// Waits for the key's turn, until a moment at most.
    pub async fn enter(&self, key: &Bytes, taker: Taker, until: Duration) -> Entered {
        let mut wait = match self.join(key, taker) {
            Ok(turn) => return Entered::Turn { turn, waited: false },
            Err(wait) => wait,
        };
        loop {
            let now = self.net.now();
            if now >= until {
                return Entered::TimeUp;
            }
            // A transaction that gets the turn meanwhile keeps it for at least `TURN_MAX`.
            let look_at = self.end_overdue(key, now).unwrap_or(now + TURN_MAX).min(until);
            match select(wait, self.net.sleep(look_at - now)).await {
                Either::Left((Ok(Notification::Turn(turn)), _)) => {
                    return Entered::Turn { turn, waited: true };
                }
                Either::Left((Ok(Notification::Found(row)), _)) => return Entered::Found(row),
                Either::Left((Err(_), _)) => return Entered::TimeUp,
                Either::Right((_, still)) => wait = still,
            }
        }
    }

    fn join(&self, key: &Bytes, taker: Taker) -> Result<Turn, oneshot::Receiver<Notification>> {
        let now = self.net.now();
        let state = &mut *self.state.lock();
        if let Some(queue) = state.queues.get_mut(key) {
            let (notify, wait) = oneshot::channel();
            queue.waiting.push_back(Waiter { taker, early: false, notify });
            state.hot.keep_hot(key, now);
            return Err(wait);
        }
        state.last_ticket += 1;
        let (holder, ends_at) = (state.last_ticket, taker.ends_at(now));
        state.queues.insert(key.clone(), Queue { holder, ends_at, waiting: VecDeque::new() });
        Ok(self.turn(key, holder))
    }

    fn turn(&self, key: &Bytes, ticket: u64) -> Turn {
        Turn { turns: self.clone(), key: key.clone(), ticket, passed_on: false }
    }

    /// Takes the turn away from a holder that has had it for too long. Returns the time at which
    /// the current holder's turn ends; none: never.
    fn end_overdue(&self, key: &Bytes, now: Duration) -> Option<Duration> {
        let look = || {
            let state = self.state.lock();
            let queue = state.queues.get(key)?;
            queue.ends_at.map(|ends_at| (queue.holder, ends_at))
        };
        let (holder, due) = look()?;
        if now < due {
            return Some(due);
        }
        self.pass_on(key, holder);
        look().map(|(_, due)| due)
    }

    /// Passes the turn from its holder `from`, unless it has lost it, to the first that still
    /// waits.
    fn pass_on(&self, key: &Bytes, mut from: u64) {
        let now = self.net.now();
        loop {
            let waiter = {
                let state = &mut *self.state.lock();
                let queue = state.queues.get_mut(key);
                let Some(queue) = queue.filter(|queue| queue.holder == from) else { return };
                state.hot.changed(key, now);
                let Some(waiter) = queue.waiting.pop_front() else {
                    state.queues.remove(key);
                    return;
                };
                state.last_ticket += 1;
                from = state.last_ticket;
                queue.holder = from;
                queue.ends_at = waiter.taker.ends_at(now);
                waiter
            };
            match waiter.notify.send(Notification::Turn(self.turn(key, from))) {
                Ok(()) => return,
                // The waiter has left. The returned turn must not pass anything on when it is
                // dropped.
                Err(Notification::Turn(mut back)) => back.passed_on = true,
                Err(Notification::Found(_)) => unreachable!("a turn was sent"),
            }
        }
    }

    /// Notes that a transaction met a conflict at the key.
    pub fn met_conflict(&self, key: &Bytes) {
        let now = self.net.now();
        self.state.lock().hot.heat(key, now);
    }

    /// True if transactions take turns at the key.
    pub fn is_hot(&self, key: &Bytes) -> bool {
        let now = self.net.now();
        self.state.lock().hot.is_hot(key, now)
    }

    /// True if a turn of a hot key ended, or a conflict was met there, at `since` or later.
    pub fn has_changed_since(&self, key: &Bytes, since: Duration) -> bool {
        self.state.lock().hot.has_changed_since(key, since)
    }
}

impl Taker {
    fn ends_at(self, now: Duration) -> Option<Duration> {
        match self {
            Taker::Write => None,
            Taker::Transaction => Some(now + TURN_MAX),
        }
    }
}

impl Turn {
    /// True if the turn is of this key and was not taken away.
    pub fn is_held_of(&self, key: &Bytes) -> bool {
        let state = self.turns.state.lock();
        self.key == *key && state.queues.get(key).is_some_and(|queue| queue.holder == self.ticket)
    }

    /// For writes, before the write is sent for the first time: marks the waiting writes as early.
    /// True if there is one.
    pub fn sending(&self) -> bool {
        let mut state = self.turns.state.lock();
        let queue = state.queues.get_mut(&self.key).expect("it stays while a write has the turn");
        // Waiters that have left do not count.
        queue.waiting.retain(|waiter| !waiter.notify.is_canceled());
        for waiter in &mut queue.waiting {
            waiter.early = waiter.taker == Taker::Write;
        }
        queue.waiting.iter().any(|waiter| waiter.early)
    }

    /// Ends the turn of a write, and answers the early waiters with the row that the write found.
    pub fn found(self, row: Option<&v1::KeyValue>) {
        let early = {
            let mut state = self.turns.state.lock();
            let queue =
                state.queues.get_mut(&self.key).expect("it stays while a write has the turn");
            let all = std::mem::take(&mut queue.waiting);
            let (early, late) = all.into_iter().partition::<Vec<_>, _>(|waiter| waiter.early);
            queue.waiting = late.into();
            early
        };
        for waiter in early {
            // A waiter that has left needs no answer.
            let _ = waiter.notify.send(Notification::Found(row.cloned()));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.passed_on {
            self.turns.pass_on(&self.key, self.ticket);
        }
    }
}

/// Lets all other ready tasks run first. A caller that had a turn and wants the next one then goes
/// behind those that waited meanwhile.
pub(crate) async fn step_back() {
    let mut stepped = false;
    poll_fn(|context| {
        if stepped {
            return Poll::Ready(());
        }
        stepped = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests;
