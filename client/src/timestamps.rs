//! Timestamps of the oracle, fetched for many requests at once.
//!
//! Requests gather while a call is in flight; the next call serves all of them. So the oracle sees
//! one call per client and round trip, however many transactions there are.
//!
//! Invariant: a request only gets a timestamp of a call that began after the request arrived. An
//! older timestamp could order its commit before a write that was already acknowledged.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::{Either, select};
use parking_lot::Mutex;
use rangedb_proto::v1::{self, request, response};
use rangedb_proto::{CONTROL_PREFIX, Timestamp};

use crate::error::{Error, Result};
use crate::routing::router::RouteTarget;
use crate::routing::sender::{Sender, unexpected_response};

/// Timestamps in one call. A 60th of what the oracle has in a millisecond, so that one client
/// cannot exhaust it.
const BATCH_MAX: usize = 4096;

/// Requests that wait at most; the next one is refused. Two full batches: a request behind them
/// would wait for three round trips.
const WAITING_MAX: usize = 2 * BATCH_MAX;

/// Interval at which the oracle's node is looked up while it is not known. Until then other nodes
/// forward the calls, which is slower but works.
const LOOK_UP_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Timestamps {
    shared: Arc<Shared>,
}

struct Shared {
    sender: Arc<Sender>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<WaitingRequest>,
    /// True while a task serves `waiting`, until that is empty.
    served: bool,
    /// The highest timestamp received.
    last: u64,
    look_up_at: Duration,
}

/// A request that waits for a timestamp.
struct WaitingRequest {
    deadline: Duration,
    answer: oneshot::Sender<Result<Timestamp>>,
}

impl Timestamps {
    pub fn new(sender: Arc<Sender>) -> Self {
        Timestamps { shared: Arc::new(Shared { sender, state: Mutex::default() }) }
    }

    /// Returns a timestamp above all that were handed out to anybody before this call.
    pub async fn next(&self, deadline: Duration) -> Result<Timestamp> {
        let net = &self.shared.sender.net;
        let timestamp = self.enqueue(deadline)?;
        let left = deadline.saturating_sub(net.now());
        match select(timestamp, net.sleep(left)).await {
            Either::Left((Ok(timestamp), _)) => timestamp,
            Either::Left((Err(_), _)) => Err(Error::Unavailable("the client is stopping".into())),
            Either::Right(_) => Err(Error::Unavailable("no timestamp in time".into())),
        }
    }

    fn enqueue(&self, deadline: Duration) -> Result<oneshot::Receiver<Result<Timestamp>>> {
        let (answer, timestamp) = oneshot::channel();
        let mut state = self.shared.state.lock();
        // Requests that were given up must not take the places of live ones.
        if state.waiting.len() >= WAITING_MAX {
            state.waiting.retain(|waiting| !waiting.answer.is_canceled());
        }
        if state.waiting.len() >= WAITING_MAX {
            let message = format!("{WAITING_MAX} requests wait for a timestamp");
            return Err(Error::TooBusy { message, retry_after: Duration::from_millis(10) });
        }
        state.waiting.push_back(WaitingRequest { deadline, answer });
        if !state.served {
            state.served = true;
            let serving = Serving { shared: self.shared.clone(), finished: false };
            self.shared.sender.net.spawn(Box::pin(serving.run()));
        }
        Ok(timestamp)
    }
}

/// The task that fetches timestamps.
struct Serving {
    shared: Arc<Shared>,
    /// True if no request waited any more; the next one starts another task.
    finished: bool,
}

impl Serving {
    async fn run(mut self) {
        while let Some(batch) = self.take_batch() {
            // As long as any of the requests waits. Each gives up at its own deadline.
            let deadline = batch.iter().map(|waiting| waiting.deadline).max().unwrap_or_default();
            let first = self.shared.fetch(batch.len(), deadline).await;
            for (offset, waiting) in batch.into_iter().enumerate() {
                let timestamp = first.clone().map(|first| Timestamp(first + offset as u64));
                // A request that no longer waits leaves a gap, which does no harm.
                let _ = waiting.answer.send(timestamp);
            }
            self.shared.look_up_oracle();
        }
    }

    fn take_batch(&mut self) -> Option<Vec<WaitingRequest>> {
        let mut state = self.shared.state.lock();
        state.waiting.retain(|waiting| !waiting.answer.is_canceled());
        let count = state.waiting.len().min(BATCH_MAX);
        if count == 0 {
            state.served = false;
            self.finished = true;
            return None;
        }
        Some(state.waiting.drain(..count).collect())
    }
}

impl Drop for Serving {
    /// Runs early if an executor that stops drops the task: the waiting requests must not wait for
    /// ever.
    fn drop(&mut self) {
        if !self.finished {
            let mut state = self.shared.state.lock();
            state.waiting.clear();
            state.served = false;
        }
    }
}

impl Shared {
    /// Fetches `count` timestamps until `deadline` and returns the first.
    async fn fetch(&self, count: usize, deadline: Duration) -> Result<u64> {
        let wanted = v1::Timestamps { count: count as u32 };
        let body = request::Body::Timestamps(wanted);
        let response = self.sender.to_cluster(deadline, &body).await?;
        let response::Body::Timestamps(reply) = response else {
            return Err(unexpected_response("the oracle"));
        };
        let mut state = self.state.lock();
        let first = (reply.last + 1).checked_sub(count as u64);
        let first = first.filter(|first| reply.count == wanted.count && *first > state.last);
        let Some(first) = first else {
            let (last, before) = (reply.last, state.last);
            let message = format!("the oracle gave {count} timestamps up to {last} after {before}");
            return Err(Error::protocol(message));
        };
        state.last = reply.last;
        Ok(first)
    }

    /// Looks up the oracle's node in the background, so that no request for a timestamp waits for
    /// it.
    fn look_up_oracle(self: &Arc<Self>) {
        let now = self.sender.net.now();
        let mut state = self.state.lock();
        if self.sender.router.leader(CONTROL_PREFIX).is_some() || now < state.look_up_at {
            return;
        }
        state.look_up_at = now + LOOK_UP_EVERY;
        drop(state);
        let shared = self.clone();
        self.sender.net.spawn(Box::pin(async move {
            if !shared.sender.look_up(RouteTarget::Key(CONTROL_PREFIX), LOOK_UP_EVERY).await {
                tracing::debug!("the oracle's node is not known yet");
            }
        }));
    }
}
