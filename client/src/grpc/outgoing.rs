//! Queue of requests to a link, bounded in requests and bytes. A request can be withdrawn from it
//! until it is sent.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use futures::future::{Either, select};
use rangedb_proto::v1::{self, request, response};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::net::CallError;
use crate::trace::TraceContext;

/// Requests that wait for one node at most: a tenth of a second of what a node can answer. Further
/// requests are better refused at once.
const QUEUE_REQUESTS_MAX: usize = 16 * 1024;

/// Bytes that wait for one node at most: some of the largest commands (8 MiB), and no more memory
/// than a small machine can spare for each of a few silent nodes.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// State of a request. Sender and link decide with one atomic exchange whether it was sent.
const WAITING: u8 = 0;
const SENT: u8 = 1;
const TAKEN_BACK: u8 = 2;

type Answer = Result<response::Body, CallError>;

/// One request, as its link sees it.
pub(super) struct Outgoing {
    body: request::Body,
    timeout: Duration,
    /// Trace context of the span that makes the request.
    trace: Option<TraceContext>,
    pub bytes: usize,
    state: Arc<AtomicU8>,
    answer: oneshot::Sender<Answer>,
    /// The request's share of the queue's bytes, given back when it leaves the queue.
    permit: Option<OwnedSemaphorePermit>,
}

/// One request, as its caller sees it. Dropping it withdraws the request if that is still possible.
pub(super) struct Pending {
    state: Arc<AtomicU8>,
    answer: oneshot::Receiver<Answer>,
}

impl Outgoing {
    pub fn new(body: request::Body, timeout: Duration) -> (Outgoing, Pending) {
        let (give, answer) = oneshot::channel();
        let state = Arc::new(AtomicU8::new(WAITING));
        let pending = Pending { state: state.clone(), answer };
        let bytes = body.encoded_len();
        let trace = TraceContext::current();
        (Outgoing { body, timeout, trace, bytes, state, answer: give, permit: None }, pending)
    }

    /// Returns the request for the wire and the channel for its answer; none if it was withdrawn.
    pub fn send(self, id: u64) -> Option<(v1::Request, oneshot::Sender<Answer>)> {
        let exchange =
            self.state.compare_exchange(WAITING, SENT, Ordering::AcqRel, Ordering::Acquire);
        exchange.ok()?;
        let timeout_ms = u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX);
        let traceparent = self.trace.map(|trace| trace.to_string()).unwrap_or_default();
        Some((v1::Request { id, timeout_ms, traceparent, body: Some(self.body) }, self.answer))
    }

    /// Fails a request that could not be sent.
    pub fn fail(self, reason: &str) {
        let _ = self.answer.send(Err(CallError::NotSent(reason.to_owned())));
    }
}

impl Pending {
    /// Waits for the answer, or until `given_up` returns the reason to stop waiting.
    pub async fn answer_unless(mut self, given_up: impl Future<Output = String>) -> Answer {
        let reason = match select(&mut self.answer, pin!(given_up)).await {
            Either::Left((Ok(answer), _)) => return answer,
            Either::Left((Err(_), _)) => "the client is stopping".to_owned(),
            Either::Right((reason, _)) => reason,
        };
        Err(if self.take_back() { CallError::NotSent(reason) } else { CallError::Lost(reason) })
    }

    /// Withdraws the request. True if it has not been sent, and now never will be.
    fn take_back(&self) -> bool {
        let exchange =
            self.state.compare_exchange(WAITING, TAKEN_BACK, Ordering::AcqRel, Ordering::Acquire);
        exchange != Err(SENT)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.take_back();
    }
}

/// The callers' end of a link's queue.
#[derive(Clone)]
pub(super) struct LinkQueue {
    requests: mpsc::Sender<Outgoing>,
    bytes: Arc<Semaphore>,
}

pub(super) fn channel() -> (LinkQueue, mpsc::Receiver<Outgoing>) {
    let (requests, waiting) = mpsc::channel(QUEUE_REQUESTS_MAX);
    (LinkQueue { requests, bytes: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)) }, waiting)
}

impl LinkQueue {
    pub fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    pub fn try_send(&self, mut outgoing: Outgoing) -> Result<(), TrySendError<()>> {
        let bytes = u32::try_from(outgoing.bytes).map_err(|_| TrySendError::Full(()))?;
        let permit = self.bytes.clone().try_acquire_many_owned(bytes);
        outgoing.permit = Some(permit.map_err(|_| TrySendError::Full(()))?);
        self.requests.try_send(outgoing).map_err(|error| match error {
            TrySendError::Full(_) => TrySendError::Full(()),
            TrySendError::Closed(_) => TrySendError::Closed(()),
        })
    }
}
