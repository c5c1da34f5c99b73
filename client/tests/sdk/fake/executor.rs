//! Executor in one thread, over a clock that jumps to the next timer for which a task waits.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use rangedb_client::net::BoxFuture;

#[derive(Default)]
pub struct Clock {
    state: Mutex<ClockState>,
}

#[derive(Default)]
struct ClockState {
    now: Duration,
    random: u64,
    timers: BTreeMap<(Duration, u64), Waker>,
    timers_made: u64,
    spawned: Vec<BoxFuture<'static, ()>>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Clock {
    pub fn now(&self) -> Duration {
        self.state.lock().now
    }

    pub fn seed(&self, seed: u64) {
        self.state.lock().random = seed;
    }

    pub fn random(&self) -> u64 {
        let mut state = self.state.lock();
        // Knuth's multiplier, which suffices for jitter.
        state.random =
            state.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state.random >> 33
    }

    pub fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.state.lock().spawned.push(task);
    }

    pub fn sleep(self: &Arc<Self>, duration: Duration) -> BoxFuture<'static, ()> {
        let until = self.now() + duration;
        let mut state = self.state.lock();
        state.timers_made += 1;
        Box::pin(Sleep { clock: self.clone(), place: (until, state.timers_made) })
    }

    pub fn run<T>(&self, task: impl Future<Output = T>) -> T {
        let mut task = pin!(task);
        let mut background: Vec<BoxFuture<'static, ()>> = Vec::new();
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(woken.clone());
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(output) = task.as_mut().poll(&mut context) {
                return output;
            }
            background.extend(std::mem::take(&mut self.state.lock().spawned));
            background.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
            let spawned = !self.state.lock().spawned.is_empty();
            if !woken.0.swap(false, Ordering::SeqCst) && !spawned {
                self.advance();
            }
        }
    }

    fn advance(&self) {
        let mut state = self.state.lock();
        let ((until, _), waker) =
            state.timers.pop_first().expect("a task waits for what never happens");
        state.now = state.now.max(until);
        drop(state);
        waker.wake();
    }
}

struct Sleep {
    clock: Arc<Clock>,
    /// Time at which the sleep ends, and its order among those that end then.
    place: (Duration, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.clock.state.lock();
        if state.now >= self.place.0 {
            return Poll::Ready(());
        }
        state.timers.insert(self.place, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.clock.state.lock().timers.remove(&self.place);
    }
}
