//! Time and randomness of the world: one queue of everything that is going to happen, and one
//! generator of all random numbers. Everything that schedules occurrences shares them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::network::Network;
use crate::occurrence::{Host, Occurrence};
use crate::trace::Trace;

/// Virtual time in microseconds since the world began.
pub type Micros = u64;

pub const MILLISECOND: Micros = 1_000;
pub const SECOND: Micros = 1_000_000;

struct Inner {
    now: Micros,
    /// Last number given out. It orders occurrences at one time: first scheduled, first come.
    turns: u64,
    queue: BTreeMap<(Micros, u64), (Host, Occurrence)>,
    rng: fastrand::Rng,
    trace: Trace,
    network: Network,
    /// True once the world has ended: no more occurrences are accepted.
    closed: bool,
}

/// Queue of occurrences, generator, network and trace of the world. Cheap to clone.
///
/// The lock is never held while foreign code runs: a waker or a destructor may schedule something.
#[derive(Clone)]
pub struct Schedule(Arc<Mutex<Inner>>);

impl Schedule {
    pub fn new(rng: fastrand::Rng, network: Network, trace: Trace) -> Self {
        let (now, turns, queue) = (0, 0, BTreeMap::new());
        Schedule(Arc::new(Mutex::new(Inner {
            now,
            turns,
            queue,
            rng,
            trace,
            network,
            closed: false,
        })))
    }

    pub fn now(&self) -> Micros {
        self.lock().now
    }

    /// Returns a number above all that were returned before. Orders events of one instant.
    pub fn stamp(&self) -> u64 {
        let mut inner = self.lock();
        inner.turns += 1;
        inner.turns
    }

    pub fn random<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.lock().rng)
    }

    /// Draws a time between the two, bounds included.
    pub fn between(&self, low: Micros, high: Micros) -> Micros {
        self.random(|rng| rng.u64(low..=high))
    }

    pub fn network<T>(&self, use_it: impl FnOnce(&mut Network, &mut fastrand::Rng) -> T) -> T {
        let inner = &mut *self.lock();
        use_it(&mut inner.network, &mut inner.rng)
    }

    /// Schedules an occurrence at a time, or now if the time is past.
    pub fn at(&self, at: Micros, host: Host, occurrence: Occurrence) {
        let mut inner = self.lock();
        if inner.closed {
            drop(inner);
            drop(occurrence);
            return;
        }
        inner.turns += 1;
        let place = (at.max(inner.now), inner.turns);
        inner.queue.insert(place, (host, occurrence));
    }

    pub fn after(&self, delay: Micros, host: Host, occurrence: Occurrence) {
        self.at(self.now() + delay, host, occurrence);
    }

    /// Sends an occurrence over the network, which may delay or lose it. False if it is lost.
    pub fn send(&self, from: usize, to: usize, host: Host, occurrence: Occurrence) -> bool {
        let now = self.now();
        let is_raft = matches!(occurrence, Occurrence::Raft { .. });
        let link = (from, to);
        let at = self.network(|network, rng| network.arrival(rng, now, link, !is_raft));
        let Some(at) = at else { return false };
        self.at(at, host, occurrence);
        true
    }

    /// Returns the next occurrence and moves time on to it.
    pub fn next(&self) -> Option<(Host, Occurrence)> {
        let inner = &mut *self.lock();
        let ((at, _), (host, occurrence)) = inner.queue.pop_first()?;
        inner.now = at;
        Some((host, occurrence))
    }

    /// Adds an occurrence at a host to the trace.
    pub fn trace(&self, host: Host, occurrence: &Occurrence) {
        let inner = &mut *self.lock();
        inner.trace.occurrence(inner.now, || format!("{host:?} {}", occurrence.describe()));
        host.trace(&mut inner.trace);
        occurrence.trace(&mut inner.trace);
    }

    pub fn remark(&self, line: impl FnOnce() -> String) {
        let inner = &mut *self.lock();
        inner.trace.remark(inner.now, line);
    }

    /// Adds a word to the hash of the trace, such as a result of earlier occurrences.
    pub fn trace_word(&self, word: u64) {
        self.lock().trace.word(word);
    }

    pub fn trace_hash(&self) -> u64 {
        self.lock().trace.hash()
    }

    pub fn occurrences(&self) -> u64 {
        self.lock().trace.occurrences()
    }

    /// Drops all scheduled occurrences and accepts no more. Occurrences hold what scheduled them,
    /// so both would otherwise leak.
    pub fn close(&self) {
        let queue = {
            let mut inner = self.lock();
            inner.closed = true;
            std::mem::take(&mut inner.queue)
        };
        drop(queue);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock()
    }
}
