//! Turns at a key that many writers of this client want at the same time: one goes, the others wait.
//!
//! Of many that want to replace the same version, one can succeed. Sent all together, the others cost
//! the range as much as that one, and their next attempts meet in the same way. So they go one after
//! the other, in the order in which they came. In a crowd nearly every commit then is a success.
//!
//! A turn is advice and nothing else: whether a write may take effect is decided by the range, as if
//! there were no turns. Writers in other processes know nothing of them.
//!
//! # Conditional writes
//!
//! They always take turns, and hold theirs until they are answered. What stands at the key then is
//! known, and those who wait and whose condition this breaks are answered with it, without a request
//! of their own.
//!
//! Why an answer of somebody else's is right: a write takes effect, or is found not to, at some moment
//! after it was sent. Whoever waited already when it was sent (`early`) may be answered as if it had
//! been looked at in that same moment, which lies between its call and its answer. Whoever came later
//! may not: it might know of something newer. It takes its turn.
//!
//! # Transactions
//!
//! They take turns at keys that are hot: where one of them met a conflict lately (`turns/hot.rs`,
//! `transaction/turn.rs`). What a transaction does with its turn is up to its caller, so it loses it
//! after [`TURN_MAX`] if others wait.
//!
//! # No deadlocks
//!
//! A transaction asks for one turn at a time and gives it back before it asks for another, and a write
//! needs none but its own. A closure that waits for a second transaction at the same key waits for
//! itself: until its turn is over.
//!
//! # What is left out
//!
//! Writes of several keys, and conditions that many can meet at once ([`Test::Exists`] alone): these
//! go their own ways. Waiters need no bound of their own: each is a call that its caller waits in.
//!
//! [`Test::Exists`]: crate::Test::Exists

mod conditional;
mod hot;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::{Either, poll_fn, select};
use rangedb_proto::v1;

use crate::net::SharedNet;
use hot::HotKeys;

pub(crate) use conditional::{first_broken, key_of, left_by};

/// Time for which a transaction keeps its turn while others wait: several rounds over a slow network or
/// disk. Beyond that it is the caller who takes so long, and must not stop the others.
pub(crate) const TURN_MAX: Duration = Duration::from_millis(250);

/// Whose turn it is, by key. Clones are the same.
#[derive(Clone)]
pub(crate) struct Turns {
    net: SharedNet,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// A key is here as long as somebody has its turn.
    queues: BTreeMap<Bytes, Queue>,
    last_ticket: u64,
    hot: HotKeys,
}

struct Queue {
    /// The ticket of who has the turn.
    holder: u64,
    /// When it can be taken away; none: never.
    ends_at: Option<Duration>,
    waiting: VecDeque<Waiter>,
}

struct Waiter {
    taker: Taker,
    /// It waited before the write was sent that is under way.
    early: bool,
    told: oneshot::Sender<Told>,
}

/// Who takes a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taker {
    /// A conditional write: holds it for one request, and may be answered while it waits.
    Write,
    Transaction,
}

enum Told {
    YourTurn(Turn),
    Found(Option<v1::KeyValue>),
}

/// How a wait ended.
pub(crate) enum Entered {
    Turn {
        turn: Turn,
        /// Others had it first.
        waited: bool,
    },
    /// For writes: what stood at the key at some moment of the wait; none: nothing.
    Found(Option<v1::KeyValue>),
    TimeUp,
}

/// The right to go next. Passed on when it is dropped.
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

    /// Waits for the key's turn until a moment.
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
            // Whoever gets the turn meanwhile keeps it for at least as long as this.
            let look_at = self.end_overdue(key, now).unwrap_or(now + TURN_MAX).min(until);
            match select(wait, self.net.sleep(look_at - now)).await {
                Either::Left((Ok(Told::YourTurn(turn)), _)) => {
                    return Entered::Turn { turn, waited: true };
                }
                Either::Left((Ok(Told::Found(row)), _)) => return Entered::Found(row),
                Either::Left((Err(_), _)) => return Entered::TimeUp,
                Either::Right((_, still)) => wait = still,
            }
        }
    }

    fn join(&self, key: &Bytes, taker: Taker) -> Result<Turn, oneshot::Receiver<Told>> {
        let now = self.net.now();
        let state = &mut *self.state.lock().unwrap();
        if let Some(queue) = state.queues.get_mut(key) {
            let (told, wait) = oneshot::channel();
            queue.waiting.push_back(Waiter { taker, early: false, told });
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

    /// Takes the turn away from whoever has it for too long. Returns when that is due for who has it
    /// then; none: never.
    fn end_overdue(&self, key: &Bytes, now: Duration) -> Option<Duration> {
        let look = || {
            let state = self.state.lock().unwrap();
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

    /// From who has the turn, unless it has lost it, to the first who still waits.
    fn pass_on(&self, key: &Bytes, mut from: u64) {
        let now = self.net.now();
        loop {
            let waiter = {
                let state = &mut *self.state.lock().unwrap();
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
            match waiter.told.send(Told::YourTurn(self.turn(key, from))) {
                Ok(()) => return,
                // It went away. What came back must not pass anything on by itself.
                Err(Told::YourTurn(mut back)) => back.passed_on = true,
                Err(Told::Found(_)) => unreachable!("a turn was sent"),
            }
        }
    }

    /// A transaction met a conflict at the key.
    pub fn met_conflict(&self, key: &Bytes) {
        let now = self.net.now();
        self.state.lock().unwrap().hot.heat(key, now);
    }

    /// True if transactions take turns at the key.
    pub fn is_hot(&self, key: &Bytes) -> bool {
        let now = self.net.now();
        self.state.lock().unwrap().hot.is_hot(key, now)
    }

    /// True if somebody had the turn of a hot key then or later.
    pub fn has_changed_since(&self, key: &Bytes, since: Duration) -> bool {
        self.state.lock().unwrap().hot.has_changed_since(key, since)
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
    /// True if it is of this key, and was not taken away.
    pub fn is_held_of(&self, key: &Bytes) -> bool {
        let state = self.turns.state.lock().unwrap();
        self.key == *key && state.queues.get(key).is_some_and(|queue| queue.holder == self.ticket)
    }

    /// For writes, to be called before the write is sent for the first time. Whether a write waits
    /// for its end.
    pub fn sending(&self) -> bool {
        let mut state = self.turns.state.lock().unwrap();
        let queue = state.queues.get_mut(&self.key).expect("it stays while a write has the turn");
        // Those who went away do not count.
        queue.waiting.retain(|waiter| !waiter.told.is_canceled());
        for waiter in &mut queue.waiting {
            waiter.early = waiter.taker == Taker::Write;
        }
        queue.waiting.iter().any(|waiter| waiter.early)
    }

    /// For writes: it has ended, and this stood at the key then.
    pub fn found(self, row: Option<&v1::KeyValue>) {
        let early = {
            let mut state = self.turns.state.lock().unwrap();
            let queue =
                state.queues.get_mut(&self.key).expect("it stays while a write has the turn");
            let all = std::mem::take(&mut queue.waiting);
            let (early, late) = all.into_iter().partition::<Vec<_>, _>(|waiter| waiter.early);
            queue.waiting = late.into();
            early
        };
        for waiter in early {
            // One that has gone away needs no answer.
            let _ = waiter.told.send(Told::Found(row.cloned()));
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

/// Lets all others go on first that are ready to: whoever had a turn and wants the next one stands
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
