//! Requests to this node: one at a time, or many on a stream of batches (docs/architecture.md, D8).
//!
//! On a stream each request is a task, and answers go out in the order in which they are found, in
//! batches of whatever is ready. A stream has only so many requests and bytes under way; then it is
//! not read further, and HTTP/2 makes the sender wait. When the stream ends its tasks are dropped:
//! nobody waits for their answers.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use prost::Message;
use rangedb_client::grpc::{CLUSTER_ID_KEY, check_cluster, cluster_id_value};
use rangedb_client::trace::TraceContext;
use rangedb_proto::v1;
use rangedb_proto::v1::node_server::Node as NodeRpc;
use rangedb_proto::v1::{Request as NodeRequest, Requests, Responses, response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Front;
use super::listener::Listener;
use super::traced::{self, traced};
use crate::node::Node;

/// How long a request that does not say so is worked on.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// No request is worked on for longer, whatever it says.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// Bytes of one stream's requests under way at most: several of the largest commands.
const STREAM_BYTES_MAX: usize = 64 << 20;

/// Requests in one message at most. Clients of this project send 128; each that is under way costs
/// many times its bytes, however small it is.
const BATCH_REQUESTS_MAX: usize = 16 * 1024;

/// Answers in one message at most, and bytes after which it is closed. With the largest page of a
/// scan behind it, it is still below what a message may hold.
const BATCH_RESPONSES_MAX: usize = 128;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Messages handed to HTTP/2 before it asked for them.
const MESSAGES_AHEAD: usize = 2;

/// Answers that wait to be gathered.
const ANSWERS_AHEAD: usize = 1024;

pub(super) struct NodeService {
    pub front: Arc<Front>,
    pub listener: Listener,
}

type Outbound = mpsc::Sender<Result<Responses, Status>>;

#[tonic::async_trait]
impl NodeRpc for NodeService {
    type StreamStream = ReceiverStream<Result<Responses, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<Requests>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let cluster_id = self.front.serving()?.node.cluster_id();
        check_cluster(cluster_id, request.metadata())?;
        let (outbound, responses) = mpsc::channel(MESSAGES_AHEAD);
        let (answers, answered) = mpsc::channel(ANSWERS_AHEAD);
        let (front, listener) = (self.front.clone(), self.listener);
        tokio::spawn(async move {
            // Whichever ends first ends the stream, and with it the requests under way.
            let inbound = (listener, request.into_inner());
            let reading = pin!(answer_all(&front, inbound, answers, outbound.clone()));
            let writing = pin!(send_all(answered, outbound));
            futures::future::select(reading, writing).await;
        });
        let mut response = Response::new(ReceiverStream::new(responses));
        response.metadata_mut().insert(CLUSTER_ID_KEY, cluster_id_value(cluster_id));
        Ok(response)
    }

    async fn call(&self, request: Request<NodeRequest>) -> Result<Response<v1::Response>, Status> {
        let node = self.front.serving()?.node.clone();
        check_cluster(node.cluster_id(), request.metadata())?;
        let trace = traced::of(request.metadata());
        let answering = answer(&node, self.listener, request.into_inner());
        Ok(Response::new(traced(trace, "call", answering).await))
    }
}

/// Reads requests and starts a task for each, until the stream ends. Returns only to break it off.
async fn answer_all(
    front: &Arc<Front>,
    (listener, mut batches): (Listener, Streaming<Requests>),
    answers: mpsc::Sender<v1::Response>,
    outbound: Outbound,
) {
    let requests_free = Arc::new(Semaphore::new(front.stream_requests));
    let bytes_free = Arc::new(Semaphore::new(STREAM_BYTES_MAX));
    let mut under_way = JoinSet::new();
    let stopped = front.stopped();
    tokio::pin!(stopped);
    loop {
        let batch = tokio::select! {
            batch = batches.next() => batch,
            () = &mut stopped => break,
        };
        let Some(Ok(batch)) = batch else { break };
        let count = batch.requests.len();
        if count > BATCH_REQUESTS_MAX {
            let message = format!("{count} requests in a message, {BATCH_REQUESTS_MAX} may be");
            let _ = outbound.send(Err(Status::invalid_argument(message))).await;
            return;
        }
        for request in batch.requests {
            while under_way.try_join_next().is_some() {}
            // Taken before the task begins: a full stream stands still here.
            let place = place(&requests_free, 1).await;
            let share = place_for(&bytes_free, request.encoded_len()).await;
            let (front, answers) = (front.clone(), answers.clone());
            under_way.spawn(async move {
                let response = match front.serving() {
                    Ok(member) => answer(&member.node, listener, request).await,
                    Err(status) => {
                        let error = rangedb_client::status::from_status(&status);
                        let body = Some(response::Body::Error(error));
                        v1::Response { id: request.id, body }
                    }
                };
                // The stream may have ended.
                let _ = answers.send(response).await;
                // Only now: answers that nobody reads count as under way.
                drop((place, share));
            });
        }
    }
    // The caller will send no more, but may wait for what is under way.
    drop(answers);
    while under_way.join_next().await.is_some() {}
    // Let the writer find the end: it ends the stream.
    std::future::pending().await
}

async fn place(free: &Arc<Semaphore>, count: u32) -> OwnedSemaphorePermit {
    free.clone().acquire_many_owned(count).await.expect("never closed")
}

async fn place_for(free: &Arc<Semaphore>, bytes: usize) -> OwnedSemaphorePermit {
    place(free, u32::try_from(bytes.clamp(1, STREAM_BYTES_MAX)).expect("a small bound")).await
}

/// Gathers answers into messages, until the requests or the stream end.
async fn send_all(mut answered: mpsc::Receiver<v1::Response>, outbound: Outbound) {
    while let Ok(room) = outbound.reserve().await {
        let Some(first) = next_or_closed(&mut answered, &outbound).await else { return };
        let mut bytes = first.encoded_len();
        let mut responses = vec![first];
        while responses.len() < BATCH_RESPONSES_MAX && bytes < BATCH_BYTES_MAX {
            let Ok(next) = answered.try_recv() else { break };
            bytes += next.encoded_len();
            responses.push(next);
        }
        room.send(Ok(Responses { responses }));
    }
}

/// The next answer; none if there will be none or nobody would read it.
async fn next_or_closed(
    answered: &mut mpsc::Receiver<v1::Response>,
    outbound: &Outbound,
) -> Option<v1::Response> {
    tokio::select! {
        next = answered.recv() => next,
        () = outbound.closed() => None,
    }
}

async fn answer(node: &Arc<Node>, listener: Listener, request: NodeRequest) -> v1::Response {
    let timeout = match request.timeout_ms {
        0 => TIMEOUT_DEFAULT,
        ms => Duration::from_millis(ms.into()).min(TIMEOUT_MAX),
    };
    let admitted = request.body.map(|body| listener.admit(&body).map(|()| body));
    let body = match admitted {
        Some(Err(refused)) => response::Body::Error(refused),
        Some(Ok(body)) => {
            let trace = TraceContext::parse(&request.traceparent);
            traced(trace, "node", node.handle(body, timeout)).await
        }
        None => {
            let message = "a request of a kind that this node does not know";
            response::Body::Error(v1::Error::invalid("body", message))
        }
    };
    v1::Response { id: request.id, body: Some(body) }
}
