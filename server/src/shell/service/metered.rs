//! Memory of calls in flight, whatever the method. The bytes of requests are taken from the
//! connection's share as they arrive, and kept until their message was handled. The bytes of
//! answers are given back once HTTP/2 has taken them.
//!
//! A connection whose share is used up is not read further, and HTTP/2 makes the caller wait.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream};
use http_body::{Frame, SizeHint};
use parking_lot::{Mutex, MutexGuard};
use rangedb_client::status::to_status;
use rangedb_proto::v1;
use tokio::time::Sleep;

use super::origin::Origin;
use crate::memory::{Share, Taken};

/// Maximum time in which a message must be complete, or its call is aborted. Otherwise unfinished
/// messages of many callers could keep all others from completing theirs.
const MESSAGE_TIME_MAX: Duration = Duration::from_secs(30);

/// Cost of a call beside its messages: a stream of HTTP/2, a task, headers.
const CALL_BYTES: usize = 8 * 1024;

/// Time after which a call without memory is refused, and the pause before a retry that the refusal
/// suggests.
const CALL_WAIT_MAX: Duration = Duration::from_millis(500);
pub(super) const RETRY_AFTER_MS: u32 = 200;

/// Path prefix of the methods that only nodes call, for Raft messages and snapshots.
const PEER_METHODS: &str = "/rangedb.v1.Peer/";

/// Length of the prefix of each gRPC message: a flag, and the length of the message.
const PREFIX_BYTES: usize = 5;

/// Takes memory for a call, and meters the bodies of its request and response.
pub(super) async fn meter(request: Request, next: Next) -> Response {
    // Every listener gives its connections an origin. Raft messages wait for no memory: commands
    // that fill the memory wait for Raft messages, and each stream of Raft messages holds only one
    // at a time.
    let origin = request.extensions().get::<Origin>().cloned();
    let is_of_peers = request.uri().path().starts_with(PEER_METHODS);
    let Some(origin) = origin.filter(|_| !is_of_peers) else { return next.run(request).await };
    let taking = tokio::time::timeout(CALL_WAIT_MAX, origin.tasks.take(CALL_BYTES as u64));
    let Ok(Some(call)) = taking.await else {
        origin.tasks.count_refusal();
        let message = "no memory for the call: others that are under way take it up";
        return to_status(&v1::Error::too_busy(RETRY_AFTER_MS, message)).into_http();
    };
    let kept = Kept::default();
    let metered = Metered::new(Body::empty(), origin.requests, kept.clone());
    let mut request = request.map(|body| Body::new(Metered { body, ..metered }));
    request.extensions_mut().insert(kept.clone());
    let mut response = next.run(request).await;
    let answer = response.extensions_mut().remove::<AnswerMemory>();
    response.map(|body| Body::new(Holding { body, _held: (call, kept, answer) }))
}

/// Memory of the answer to a unary call. As an extension of the response it is kept until the
/// answer is sent.
#[derive(Clone)]
#[expect(dead_code, reason = "it is kept, not looked at")]
struct AnswerMemory(Arc<Taken>);

/// Attaches to the response of a unary call the memory that it takes.
pub(super) fn with_memory<T>(
    mut response: tonic::Response<T>,
    taken: Option<Taken>,
) -> tonic::Response<T> {
    if let Some(taken) = taken {
        response.extensions_mut().insert(AnswerMemory(Arc::new(taken)));
    }
    response
}

/// Memory of a call's messages, kept until the next messages of the call arrive or the call is
/// over. Requests carry it as an extension.
#[derive(Clone, Default)]
pub(super) struct Kept(Arc<Mutex<Option<Taken>>>);

impl Kept {
    /// Takes the memory out. A handler that uses a message beyond the arrival of the next one has
    /// to keep the memory itself.
    pub fn take(&self) -> Option<Taken> {
        self.slot().take()
    }

    fn slot(&self) -> MutexGuard<'_, Option<Taken>> {
        self.0.lock()
    }
}

/// Request body that takes memory for the bytes that arrive.
struct Metered {
    body: Body,
    requests: Share,
    kept: Kept,
    framing: Framing,
    /// Frame that waits for memory.
    waiting: Option<(Frame<Bytes>, BoxFuture<'static, Option<Taken>>)>,
    /// Maximum time from the beginning of a message to its end.
    message_time: Duration,
    /// Deadline of the message that has begun.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Metered {
    fn new(body: Body, requests: Share, kept: Kept) -> Self {
        let framing = Framing::default();
        let message_time = MESSAGE_TIME_MAX;
        Metered { body, requests, kept, framing, waiting: None, message_time, deadline: None }
    }

    fn keep(&self, taken: Taken) {
        let mut kept = self.kept.slot();
        match &mut *kept {
            Some(kept) => kept.add(taken),
            None => *kept = Some(taken),
        }
    }

    /// Frame that has waited for memory. An error if too many others wait already.
    fn poll_waiting(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some((_, taking)) = &mut self.waiting else { return Poll::Ready(None) };
        let taken = ready!(taking.poll_unpin(context));
        let waited = self.waiting.take().map(|(frame, _)| frame);
        Poll::Ready(waited.map(|frame| match taken {
            Some(taken) => {
                self.keep(taken);
                Ok(frame)
            }
            None => {
                self.requests.count_refusal();
                Err(axum::Error::new(std::io::Error::other("too many messages wait for memory")))
            }
        }))
    }
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.poll_unpin(context).is_ready()
        {
            let late = std::io::Error::new(std::io::ErrorKind::TimedOut, "an unfinished message");
            return Poll::Ready(Some(Err(axum::Error::new(late))));
        }
        if let Some(frame) = ready!(self.poll_waiting(context)) {
            return Poll::Ready(Some(frame));
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other),
        };
        let Some(data) = frame.data_ref() else { return Poll::Ready(Some(Ok(frame))) };
        // A reader that asks for more has handled every complete message.
        if self.framing.is_between() {
            drop(self.kept.take());
        }
        let bytes = data.len();
        self.framing.take(data);
        if self.framing.is_between() {
            self.deadline = None;
        } else if self.deadline.is_none() {
            let mut deadline = Box::pin(tokio::time::sleep(self.message_time));
            // The first poll makes the deadline wake this task.
            let _ = deadline.poll_unpin(context);
            self.deadline = Some(deadline);
        }
        if let Some(taken) = self.requests.try_take(bytes as u64) {
            self.keep(taken);
            return Poll::Ready(Some(Ok(frame)));
        }
        let requests = self.requests.clone();
        let taking = async move { requests.take(bytes as u64).await }.boxed();
        self.waiting = Some((frame, taking));
        self.poll_waiting(context)
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Position in the messages of a body.
#[derive(Default)]
struct Framing {
    prefix: Vec<u8>,
    /// Bytes still to come of the message that has begun.
    left: usize,
}

impl Framing {
    /// True if every message that has begun is complete.
    fn is_between(&self) -> bool {
        self.prefix.is_empty() && self.left == 0
    }

    fn take(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.left > 0 {
                let part = self.left.min(data.len());
                self.left -= part;
                data = &data[part..];
                continue;
            }
            let part = (PREFIX_BYTES - self.prefix.len()).min(data.len());
            self.prefix.extend_from_slice(&data[..part]);
            data = &data[part..];
            if let [_, length @ ..] = &self.prefix[..]
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                self.left = u32::from_be_bytes(length) as usize;
                self.prefix.clear();
            }
        }
    }
}

/// Response body, with a value that is held until the body is sent.
struct Holding<T> {
    body: Body,
    _held: T,
}

impl<T: Unpin> HttpBody for Holding<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Stream of messages with the memory that each takes. The memory is given back when HTTP/2 asks
/// for the next message: HTTP/2 asks once it has sent the last one.
pub(super) struct Outgoing<S> {
    messages: S,
    sending: Option<Taken>,
}

impl<S> Outgoing<S> {
    pub fn new(messages: S) -> Self {
        Outgoing { messages, sending: None }
    }
}

impl<S, M> Stream for Outgoing<S>
where
    S: Stream<Item = (M, Option<Taken>)> + Unpin,
{
    type Item = M;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<M>> {
        self.sending = None;
        let next = ready!(Pin::new(&mut self.messages).poll_next(context));
        Poll::Ready(next.map(|(message, taken)| {
            self.sending = taken;
            message
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::{StreamExt, stream};

    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut message = vec![0];
        message.extend_from_slice(&(length as u32).to_be_bytes());
        message.resize(PREFIX_BYTES + length, b'x');
        message
    }

    #[test]
    fn messages_are_told_apart_wherever_frames_are_cut() {
        let bytes = [message(0), message(3), message(300)].concat();
        for cut in 1..bytes.len() {
            let mut framing = Framing::default();
            framing.take(&bytes[..cut]);
            let ends = [5, 13, 318];
            assert_eq!(framing.is_between(), ends.contains(&cut), "cut at {cut}");
            framing.take(&bytes[cut..]);
            assert!(framing.is_between());
        }
    }

    fn metered(frames: Vec<Vec<u8>>, requests: &Share) -> Metered {
        let frames = frames.into_iter().map(|data| Ok::<_, axum::Error>(Bytes::from(data)));
        Metered::new(Body::from_stream(stream::iter(frames)), requests.clone(), Kept::default())
    }

    async fn next(body: &mut Metered) -> Option<usize> {
        let frame =
            std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
        Some(frame.unwrap().into_data().unwrap().len())
    }

    #[tokio::test]
    async fn memory_is_kept_until_the_message_was_handled() {
        let requests = Share::new(1000);
        let mut body = metered(vec![message(95), message(45), message(15)], &requests);
        assert_eq!(next(&mut body).await, Some(100));
        assert_eq!(requests.used(), 100);
        assert_eq!(next(&mut body).await, Some(50));
        assert_eq!(requests.used(), 50, "the first one was handled");
        drop(body);
        assert_eq!(requests.used(), 0);
    }

    #[tokio::test]
    async fn a_message_in_parts_is_kept_as_a_whole() {
        let requests = Share::new(1000);
        let whole = message(95);
        let (first, second) = whole.split_at(60);
        let mut body = metered(vec![first.to_vec(), second.to_vec()], &requests);
        assert_eq!(next(&mut body).await, Some(60));
        assert_eq!(next(&mut body).await, Some(40));
        assert_eq!(requests.used(), 100);
    }

    #[tokio::test]
    async fn without_memory_nothing_is_read() {
        let requests = Share::new(120);
        let held = requests.try_take(100).unwrap();
        let mut body = metered(vec![message(45)], &requests);
        {
            let mut waiting = pin!(next(&mut body));
            assert!(waiting.as_mut().now_or_never().is_none());
            drop(held);
            assert_eq!(waiting.await, Some(50));
        }
        assert_eq!(requests.used(), 50);
    }

    #[tokio::test]
    async fn a_message_that_is_never_finished_is_broken_off() {
        let requests = Share::new(1000);
        let begun = message(95)[..60].to_vec();
        let frames = stream::iter([Ok::<_, axum::Error>(Bytes::from(begun))]);
        let body = Body::from_stream(frames.chain(stream::pending()));
        let mut body = Metered::new(body, requests, Kept::default());
        body.message_time = Duration::ZERO;
        assert_eq!(next(&mut body).await, Some(60));
        let end = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        assert!(end.is_some_and(|frame| frame.is_err()));
    }

    #[tokio::test]
    async fn an_answers_memory_is_given_back_when_the_next_one_is_asked_for() {
        let answers = Share::new(100);
        let messages = [1, 2].map(|message| (message, answers.try_take(40)));
        let mut outgoing = Outgoing::new(stream::iter(messages));
        assert_eq!((outgoing.next().await, answers.used()), (Some(1), 80));
        assert_eq!((outgoing.next().await, answers.used()), (Some(2), 40));
        assert_eq!((outgoing.next().await, answers.used()), (None, 0));
    }
}
