//! Executor of async tasks in one thread. Each task belongs to a host, and ends with that host. It
//! is polled after it was woken, in the order of the schedule.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;
use rangedb_client::net::BoxFuture;

use crate::occurrence::{Host, Occurrence};
use crate::schedule::{Micros, Schedule};

pub type TaskId = u64;

/// Maximum time until a woken task is polled: enough that tasks woken together run in any order.
const WAKE_DELAY_MAX: Micros = 20;

/// Waker of a task, which schedules one poll however often it is woken.
struct Woken {
    task: TaskId,
    host: Host,
    schedule: Schedule,
    queued: AtomicBool,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            let delay = self.schedule.between(0, WAKE_DELAY_MAX);
            self.schedule.after(delay, self.host, Occurrence::Poll(self.task));
        }
    }
}

struct Task {
    host: Host,
    future: BoxFuture<'static, ()>,
    woken: Arc<Woken>,
}

#[derive(Default)]
pub struct Executor {
    tasks: BTreeMap<TaskId, Task>,
    last: TaskId,
}

impl Executor {
    /// Takes a task in and polls it for the first time.
    pub fn spawn(&mut self, schedule: &Schedule, host: Host, future: BoxFuture<'static, ()>) {
        self.last += 1;
        let task = self.last;
        let woken = Woken { task, host, schedule: schedule.clone(), queued: true.into() };
        self.tasks.insert(task, Task { host, future, woken: Arc::new(woken) });
        self.poll(task);
    }

    pub fn poll(&mut self, task: TaskId) {
        let Some(mut running) = self.tasks.remove(&task) else { return };
        running.woken.queued.store(false, Ordering::Relaxed);
        let waker = Waker::from(running.woken.clone());
        if running.future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.tasks.insert(task, running);
        }
    }

    /// Drops every task of a host.
    pub fn end(&mut self, host: Host) {
        self.tasks.extract_if(.., |_, task| task.host == host).for_each(drop);
    }

    pub fn clear(&mut self) {
        std::mem::take(&mut self.tasks);
    }
}

/// The end of a sleep, shared by the sleeper and the schedule.
#[derive(Default)]
pub struct Timer(Mutex<TimerState>);

#[derive(Default)]
struct TimerState {
    over: bool,
    waker: Option<Waker>,
}

impl Timer {
    pub fn fire(&self) {
        let waker = {
            let mut state = self.0.lock();
            state.over = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Future that is ready after a time of the schedule.
pub struct Sleep(Arc<Timer>);

impl Sleep {
    pub fn new(schedule: &Schedule, host: Host, duration: Micros) -> Self {
        let timer = Arc::new(Timer::default());
        schedule.after(duration, host, Occurrence::Timer(Arc::downgrade(&timer)));
        Sleep(timer)
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.0.lock();
        if state.over {
            return Poll::Ready(());
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
