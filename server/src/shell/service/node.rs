//! The `Node` service: one request in a call, or many on a stream of batches (docs/architecture.md,
//! D8).
//!
//! On a stream each request is a task. Answers go out in batches, in the order in which they are
//! ready. The requests in flight of a stream are bounded in number and in memory (`metered.rs`). At
//! the bound the node stops reading the stream, and HTTP/2 makes the sender wait. Memory for an
//! answer is taken before the request is evaluated and kept until HTTP/2 has sent the answer. So a
//! client that does not read its answers gets no more of them made. When the stream ends its tasks
//! are dropped, because nobody waits for their answers.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use prost::Message;
use rangedb_client::grpc::{CLUSTER_ID_KEY, check_cluster, cluster_id_value, unread};
use rangedb_client::trace::TraceContext;
use rangedb_proto::v1;
use rangedb_proto::v1::node_server::Node as NodeRpc;
use rangedb_proto::v1::{Request as NodeRequest, Requests, Responses, response};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::ServiceState;
use super::metered::{Kept, Outgoing, RETRY_AFTER_MS, with_memory};
use super::origin::{Origin, origin};
use super::traced::{self, traced};
use crate::memory::Taken;
use crate::node::{Caller, Node};

/// Timeout of a request that gives none.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Maximum timeout of a request.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// Cost of a request in flight beside its bytes: a task, and the state that it waits with.
const TASK_BYTES: u64 = 2 * 1024;

/// Part of a connection's share of answers that one stream may take, as a divisor. So a second
/// stream goes on while the answers of the first are not read.
const STREAM_PART: u64 = 2;

/// Maximum number of requests in one message. Clients of this project send 128. A request in flight
/// costs many times its bytes, however small it is.
const BATCH_REQUESTS_MAX: usize = 4 * 1024;

/// Maximum number of answers in one message, and the bytes after which a message is closed. With
/// the largest page of a scan added last, a message is still below its maximum size.
const BATCH_RESPONSES_MAX: usize = 128;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Messages handed to HTTP/2 in advance.
const MESSAGES_AHEAD: usize = 2;

/// Maximum number of answers that wait to be gathered.
const ANSWERS_AHEAD: usize = 1024;

pub(super) struct NodeService(pub Arc<ServiceState>);

/// An answer, and the memory that it takes.
type Answer = (v1::Response, Option<Taken>);

/// A message of answers, and the memory that it takes.
type Batch = (Result<Responses, Status>, Option<Taken>);

type Outbound = mpsc::Sender<Batch>;

#[tonic::async_trait]
impl NodeRpc for NodeService {
    type StreamStream = Outgoing<ReceiverStream<Batch>>;

    async fn stream(
        &self,
        request: Request<Streaming<Requests>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let cluster_id = self.0.serving().map_err(unread)?.node.cluster_id();
        check_cluster(cluster_id, request.metadata())?;
        let (outbound, responses) = mpsc::channel(MESSAGES_AHEAD);
        let (answers, answered) = mpsc::channel(ANSWERS_AHEAD);
        let mut origin = origin(&request)?;
        let of_connection = &origin.caller.answers;
        origin.caller.answers = of_connection.part(of_connection.bytes_max() / STREAM_PART);
        let kept = request.extensions().get::<Kept>().cloned().unwrap_or_default();
        let front = self.0.clone();
        // Clients' work runs here, wherever it came in: the peers' runtime is for Raft.
        self.0.runtime.spawn(async move {
            let asked = IncomingStream { origin, kept, batches: request.into_inner() };
            // The first of the two that ends also ends the stream, and drops its requests in
            // flight.
            let reading = pin!(answer_all(&front, asked, answers, outbound.clone()));
            let writing = pin!(send_all(answered, outbound));
            futures::future::select(reading, writing).await;
        });
        let mut response = Response::new(Outgoing::new(ReceiverStream::new(responses)));
        response.metadata_mut().insert(CLUSTER_ID_KEY, cluster_id_value(cluster_id));
        Ok(response)
    }

    async fn call(&self, request: Request<NodeRequest>) -> Result<Response<v1::Response>, Status> {
        let node = self.0.serving()?.node.clone();
        check_cluster(node.cluster_id(), request.metadata())?;
        let (trace, caller) = (traced::of(request.metadata()), origin(&request)?.caller);
        let answering = answer(&node, caller, request.into_inner());
        let (answer, memory) = traced(trace, "call", answering).await;
        Ok(with_memory(Response::new(answer), memory))
    }
}

/// Requests of a stream, and their origin.
struct IncomingStream {
    origin: Origin,
    kept: Kept,
    batches: Streaming<Requests>,
}

/// Reads requests and starts a task for each. Returns only to abort the stream.
async fn answer_all(
    front: &Arc<ServiceState>,
    asked: IncomingStream,
    answers: mpsc::Sender<Answer>,
    outbound: Outbound,
) {
    let IncomingStream { origin, kept, mut batches } = asked;
    let requests_free = Arc::new(Semaphore::new(front.stream_requests));
    let mut under_way = JoinSet::new();
    let stopped = front.stopped();
    tokio::pin!(stopped);
    loop {
        let batch = tokio::select! {
            batch = batches.next() => batch,
            () = &mut stopped => break,
        };
        let batch = match batch {
            Some(Ok(batch)) => batch,
            Some(Err(status)) => {
                // The caller may be gone. If not, the status tells it the mistake.
                let _ = outbound.send((Err(status), None)).await;
                return;
            }
            None => break,
        };
        // The requests keep slices of the message, so its memory is held until the last of them is
        // answered.
        let bytes = Arc::new(kept.take());
        let count = batch.requests.len();
        if count > BATCH_REQUESTS_MAX {
            let message = format!("{count} requests in a message, {BATCH_REQUESTS_MAX} may be");
            let _ = outbound.send((Err(Status::invalid_argument(message)), None)).await;
            return;
        }
        for request in batch.requests {
            while under_way.try_join_next().is_some() {}
            // Taken before the task begins, so that a full stream waits here.
            let place = requests_free.clone().acquire_owned().await.expect("never closed");
            let Some(task) = origin.tasks.take(TASK_BYTES).await else {
                origin.tasks.count_refusal();
                let message = "no memory for the request: too many others wait for some";
                let refusal = v1::Error::too_busy(RETRY_AFTER_MS, message);
                let body = Some(response::Body::Error(refusal));
                let _ = answers.send((v1::Response { id: request.id, body }, None)).await;
                continue;
            };
            let (front, answers, bytes) = (front.clone(), answers.clone(), bytes.clone());
            let caller = origin.caller.clone();
            under_way.spawn(async move {
                let answer = match front.serving() {
                    Ok(member) => answer(&member.node, caller, request).await,
                    Err(status) => {
                        let error = rangedb_client::status::from_status(&status);
                        let body = Some(response::Body::Error(error));
                        (v1::Response { id: request.id, body }, None)
                    }
                };
                drop(bytes);
                // An error means that the stream has ended.
                let _ = answers.send(answer).await;
                // Released only now: answers that nobody reads count as in flight.
                drop((place, task));
            });
        }
    }
    // The caller sends no more requests, but may wait for those in flight.
    drop(answers);
    while under_way.join_next().await.is_some() {}
    // Lets the writer find the end of the answers: the writer ends the stream.
    std::future::pending().await
}

/// Gathers answers into messages, until the requests or the stream end.
async fn send_all(mut answered: mpsc::Receiver<Answer>, outbound: Outbound) {
    while let Ok(room) = outbound.reserve().await {
        let Some((first, mut memory)) = next_or_closed(&mut answered, &outbound).await else {
            return;
        };
        let mut bytes = first.encoded_len();
        let mut responses = vec![first];
        while responses.len() < BATCH_RESPONSES_MAX && bytes < BATCH_BYTES_MAX {
            let Ok((next, more)) = answered.try_recv() else { break };
            bytes += next.encoded_len();
            responses.push(next);
            match (&mut memory, more) {
                (Some(memory), Some(more)) => memory.add(more),
                (None, more) => memory = more,
                (Some(_), None) => {}
            }
        }
        room.send((Ok(Responses { responses }), memory));
    }
}

/// Returns the next answer. `None` if none will come, or nobody would read it.
async fn next_or_closed(
    answered: &mut mpsc::Receiver<Answer>,
    outbound: &Outbound,
) -> Option<Answer> {
    tokio::select! {
        next = answered.recv() => next,
        () = outbound.closed() => None,
    }
}

async fn answer(node: &Arc<Node>, caller: Caller, request: NodeRequest) -> Answer {
    let timeout = match request.timeout_ms {
        0 => TIMEOUT_DEFAULT,
        ms => Duration::from_millis(ms.into()).min(TIMEOUT_MAX),
    };
    let (body, memory) = match request.body {
        Some(body) => {
            let trace = TraceContext::parse(&request.traceparent);
            traced(trace, "node", node.handle(caller, body, timeout)).await
        }
        None => {
            let message = "a request of a kind that this node does not know";
            (response::Body::Error(v1::Error::invalid("body", message)), None)
        }
    };
    (v1::Response { id: request.id, body: Some(body) }, memory)
}
