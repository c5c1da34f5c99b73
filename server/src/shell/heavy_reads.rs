//! Thread pool for reads whose cost grows with the data they look at: scans, validations, listings
//! of locks.
//!
//! The pool has one thread per core, so that heavy reads never hold up the threads of stores and
//! sockets. Its threads have a lower priority, so that those other threads run first where cores
//! are few. Callers are served round robin: a caller with a thousand scans waits for them itself,
//! and does not delay a caller with one.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::node::HeavyReads;
use crate::shell::niceness;

/// Maximum number of waiting reads, of all callers. Each read holds a view of the state, which
/// keeps the engine from forgetting what was dropped since.
const WAITING_MAX: usize = 16 * 1024;

/// Maximum number of waiting reads of one caller, so that one caller cannot fill the queue.
const WAITING_OF_CALLER_MAX: usize = WAITING_MAX / 4;

type Work = Box<dyn FnOnce() + Send>;

/// Threads for heavy reads, and their queue. The threads end when the pool is dropped.
pub(crate) struct HeavyReadPool(Arc<Shared>);

#[derive(Default)]
struct Shared {
    turns: Mutex<Turns>,
    filled: Condvar,
}

/// Waiting reads of each caller, and the order in which callers are served.
#[derive(Default)]
struct Turns {
    /// Contains no empty queue.
    waiting: BTreeMap<u64, VecDeque<Work>>,
    /// Callers with a waiting read, each once.
    next: VecDeque<u64>,
    count: usize,
    ended: bool,
}

impl HeavyReadPool {
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let pool = HeavyReadPool(Arc::default());
        for number in 0..threads.max(1) {
            let shared = pool.0.clone();
            let thread = std::thread::Builder::new().name(format!("read-{number}"));
            thread.spawn(move || shared.work())?;
        }
        Ok(pool)
    }

    /// Returns the number of reads that wait for a thread.
    pub fn waiting(&self) -> usize {
        self.0.turns.lock().count
    }
}

impl HeavyReads for HeavyReadPool {
    fn run(&self, caller: u64, work: Work) -> bool {
        let taken = self.0.turns.lock().add(caller, work);
        if taken {
            self.0.filled.notify_one();
        }
        taken
    }
}

impl Drop for HeavyReadPool {
    fn drop(&mut self) {
        let mut turns = self.0.turns.lock();
        turns.ended = true;
        // Dropping a read tells its caller that no answer will come.
        turns.waiting.clear();
        drop(turns);
        self.0.filled.notify_all();
    }
}

impl Shared {
    fn work(&self) {
        niceness::of_this_thread(niceness::HEAVY_READS);
        loop {
            let mut turns = self.turns.lock();
            self.filled.wait_while(&mut turns, |turns| turns.count == 0 && !turns.ended);
            if turns.ended {
                return;
            }
            let work = turns.take();
            drop(turns);
            // A read changes nothing. So its panic concerns only its caller, who learns that no
            // answer comes.
            if let Some(work) = work
                && std::panic::catch_unwind(AssertUnwindSafe(work)).is_err()
            {
                tracing::error!("a read ended in a panic, see the lines before");
            }
        }
    }
}

impl Turns {
    fn add(&mut self, caller: u64, work: Work) -> bool {
        let of_caller = self.waiting.get(&caller).map_or(0, VecDeque::len);
        if self.ended || self.count >= WAITING_MAX || of_caller >= WAITING_OF_CALLER_MAX {
            return false;
        }
        if of_caller == 0 {
            self.next.push_back(caller);
        }
        self.waiting.entry(caller).or_default().push_back(work);
        self.count += 1;
        true
    }

    /// Takes the oldest read of the next caller. The caller then moves behind the other callers.
    fn take(&mut self) -> Option<Work> {
        let caller = self.next.pop_front()?;
        let queue = self.waiting.get_mut(&caller)?;
        let work = queue.pop_front()?;
        match queue.is_empty() {
            true => drop(self.waiting.remove(&caller)),
            false => self.next.push_back(caller),
        }
        self.count -= 1;
        Some(work)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn callers_take_turns() {
        let (tell, told) = mpsc::channel();
        let mut turns = Turns::default();
        for (caller, name) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (3, "c1"), (2, "b2")] {
            let tell = tell.clone();
            assert!(turns.add(caller, Box::new(move || tell.send(name).unwrap())));
        }
        while let Some(work) = turns.take() {
            work();
        }
        let order: Vec<_> = told.try_iter().collect();
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert_eq!((turns.count, turns.next.len(), turns.waiting.len()), (0, 0, 0));
    }

    #[test]
    fn one_caller_leaves_places_for_others() {
        let mut turns = Turns::default();
        for _ in 0..WAITING_OF_CALLER_MAX {
            assert!(turns.add(1, Box::new(|| ())));
        }
        assert!(!turns.add(1, Box::new(|| ())));
        assert!(turns.add(2, Box::new(|| ())));
    }

    #[test]
    fn a_panic_ends_one_read_and_no_thread() {
        let pool = HeavyReadPool::start(1).unwrap();
        let (tell, told) = mpsc::channel();
        assert!(pool.run(1, Box::new(|| panic!("on purpose"))));
        assert!(pool.run(1, Box::new(move || tell.send(1).unwrap())));
        assert_eq!(told.recv(), Ok(1));
    }

    #[test]
    fn what_is_asked_for_is_done_on_another_thread_until_the_end() {
        let pool = HeavyReadPool::start(2).unwrap();
        let (tell, told) = mpsc::channel();
        let here = std::thread::current().id();
        for _ in 0..100 {
            let tell = tell.clone();
            let work = move || tell.send(std::thread::current().id()).unwrap();
            assert!(pool.run(7, Box::new(work)));
        }
        assert!(told.iter().take(100).all(|thread| thread != here));
    }
}
