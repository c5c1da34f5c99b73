//! `GrpcNet` against a node service in the same process, over loopback.

#![allow(clippy::disallowed_methods, reason = "the other end is the real world too")]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::Stream;
use futures::future::join_all;
use parking_lot::Mutex;
use rangedb_client::grpc::{CLUSTER_ID_KEY, GrpcNet, check_cluster, cluster_id_value};
use rangedb_client::net::{CallError, Net};
use rangedb_proto::v1::node_server::{Node, NodeServer};
use rangedb_proto::v1::{self, request, response};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// Timeout that suffices on any machine; no test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

type Respond = Box<dyn FnMut(v1::Requests) -> Result<Vec<v1::Response>, Status> + Send>;

/// A node that answers each message of requests with the result of `respond`.
#[derive(Clone)]
struct TestNode {
    respond: Arc<Mutex<Respond>>,
    messages: Arc<AtomicUsize>,
    cluster: Arc<Mutex<u64>>,
}

#[tonic::async_trait]
impl Node for TestNode {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<v1::Responses, Status>> + Send>>;

    async fn stream(
        &self,
        requests: Request<Streaming<v1::Requests>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let cluster = *self.cluster.lock();
        check_cluster(cluster, requests.metadata())?;
        let (answers, outbound) = mpsc::channel(16);
        let (node, mut requests) = (self.clone(), requests.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(message)) = requests.message().await {
                node.messages.fetch_add(1, Ordering::SeqCst);
                let responses = (node.respond.lock())(message);
                let failed = responses.is_err();
                let responses = responses.map(|responses| v1::Responses { responses });
                if answers.send(responses).await.is_err() || failed {
                    break;
                }
            }
        });
        let stream: Self::StreamStream = Box::pin(ReceiverStream::new(outbound));
        let mut response = Response::new(stream);
        response.metadata_mut().insert(CLUSTER_ID_KEY, cluster_id_value(cluster));
        Ok(response)
    }

    async fn call(&self, _: Request<v1::Request>) -> Result<Response<v1::Response>, Status> {
        Err(Status::unimplemented("the client uses the stream"))
    }
}

struct Served {
    address: String,
    node: TestNode,
    task: tokio::task::JoinHandle<()>,
}

async fn serve_at(
    address: &str,
    respond: impl FnMut(v1::Requests) -> Result<Vec<v1::Response>, Status> + Send + 'static,
) -> Served {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let respond: Respond = Box::new(respond);
    let respond = Arc::new(Mutex::new(respond));
    let cluster = Arc::new(Mutex::new(1));
    let node = TestNode { respond, messages: Arc::default(), cluster };
    let service = NodeServer::new(node.clone()).max_decoding_message_size(16 << 20);
    let server = tonic::transport::Server::builder().add_service(service);
    let task = tokio::spawn(async move {
        server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
    });
    Served { address, node, task }
}

async fn serve(
    respond: impl FnMut(v1::Requests) -> Result<Vec<v1::Response>, Status> + Send + 'static,
) -> Served {
    serve_at("127.0.0.1:0", respond).await
}

fn ask(count: u32) -> request::Body {
    request::Body::Timestamps(v1::Timestamps { count })
}

/// Answers a request for timestamps with its count, so that answers can be told apart.
fn answer(request: &v1::Request) -> v1::Response {
    let Some(request::Body::Timestamps(v1::Timestamps { count })) = request.body else {
        panic!("not a request for timestamps: {request:?}");
    };
    let reply = v1::TimestampsReply { last: count.into(), count };
    v1::Response { id: request.id, body: Some(response::Body::Timestamps(reply)) }
}

fn answer_all(message: v1::Requests) -> Result<Vec<v1::Response>, Status> {
    Ok(message.requests.iter().map(answer).collect())
}

fn count_of(body: response::Body) -> u32 {
    match body {
        response::Body::Timestamps(reply) => reply.count,
        other => panic!("not an answer with timestamps: {other:?}"),
    }
}

/// A write as large as a command may be.
fn large_write() -> request::Body {
    let value = vec![1; rangedb_proto::COMMAND_BYTES_MAX];
    let put = v1::Put { key: "k".into(), value: value.into(), lease_id: 0 };
    let operation = v1::Operation { body: Some(v1::operation::Body::Put(put)) };
    let commit = v1::CommitOneRange { operations: vec![operation], ..Default::default() };
    request::Body::Write(v1::Write { range: None, commit: Some(commit), lock_wait_ms: 0 })
}

#[tokio::test]
async fn answers_in_any_order_reach_their_requests_and_requests_share_messages() {
    let mut held = Vec::new();
    let served = serve(move |message| {
        held.extend(message.requests);
        if held.len() < 1000 {
            return Ok(Vec::new());
        }
        Ok(held.drain(..).rev().map(|request| answer(&request)).collect())
    });
    let served = served.await;
    let net = GrpcNet::new();
    let calls = (0..1000).map(|i| net.call(&served.address, ask(i), PATIENCE));
    for (i, result) in join_all(calls).await.into_iter().enumerate() {
        assert_eq!(count_of(result.unwrap()), i as u32);
    }
    let messages = served.node.messages.load(Ordering::SeqCst);
    assert!(messages < 200, "{messages} messages for 1000 requests");
}

#[tokio::test]
async fn a_refused_connection_means_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let net = GrpcNet::new();
    for _ in 0..3 {
        let error = net.call(&address, ask(1), PATIENCE).await.unwrap_err();
        assert!(matches!(&error, CallError::NotSent(m) if m.contains("refused")), "{error:?}");
    }
}

#[tokio::test]
async fn a_node_of_another_cluster_than_the_first_that_answered_is_sent_nothing() {
    let answer_all = |message: v1::Requests| Ok(message.requests.iter().map(answer).collect());
    let (own, other) = (serve(answer_all).await, serve(answer_all).await);
    *other.node.cluster.lock() = 2;
    let net = GrpcNet::new();
    net.call(&own.address, ask(1), PATIENCE).await.unwrap();
    for _ in 0..3 {
        let error = net.call(&other.address, ask(1), PATIENCE).await.unwrap_err();
        assert!(matches!(&error, CallError::NotSent(m) if m.contains("cluster")), "{error:?}");
    }
    assert_eq!(other.node.messages.load(Ordering::SeqCst), 0);

    let stranger = GrpcNet::new();
    stranger.keep_to(2);
    stranger.call(&own.address, ask(1), PATIENCE).await.unwrap_err();
    stranger.call(&other.address, ask(1), PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_broken_stream_loses_what_was_sent_and_the_next_request_opens_another() {
    let mut first = true;
    let served = serve(move |message| {
        if std::mem::take(&mut first) {
            return Err(Status::unavailable("going away"));
        }
        answer_all(message)
    });
    let served = served.await;
    let net = GrpcNet::new();
    let error = net.call(&served.address, ask(1), PATIENCE).await.unwrap_err();
    assert!(matches!(&error, CallError::Lost(m) if m.contains("going away")), "{error:?}");
    assert_eq!(count_of(net.call(&served.address, ask(2), PATIENCE).await.unwrap()), 2);
}

#[tokio::test]
async fn a_silent_node_loses_the_request_at_its_timeout_and_not_those_that_follow() {
    let served = serve(|message| {
        let answered = message.requests.iter().filter(|request| request.timeout_ms > 1000);
        Ok(answered.map(answer).collect())
    });
    let served = served.await;
    let net = GrpcNet::new();
    let timeout = Duration::from_millis(50);
    let before = net.now();
    let error = net.call(&served.address, ask(1), timeout).await.unwrap_err();
    assert!(matches!(error, CallError::Lost(_)), "{error:?}");
    assert!(net.now() - before >= timeout);
    assert_eq!(count_of(net.call(&served.address, ask(2), PATIENCE).await.unwrap()), 2);
}

#[tokio::test]
async fn a_request_that_never_left_is_known_not_to_have_happened() {
    // The kernel accepts the connection and nobody reads from it: the first request fills the
    // windows.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let net = GrpcNet::new();
    let timeout = Duration::from_millis(200);
    let calls = (0..6).map(|_| net.call(&address, large_write(), timeout));
    let answers = join_all(calls).await;
    assert!(matches!(answers[0], Err(CallError::Lost(_))), "{:?}", answers[0]);
    assert!(matches!(answers[5], Err(CallError::NotSent(_))), "{:?}", answers[5]);
}

#[tokio::test]
async fn a_node_that_comes_back_is_found_again() {
    let mut answered = false;
    let served = serve(move |message| match std::mem::replace(&mut answered, true) {
        false => answer_all(message),
        true => Err(Status::unavailable("going away")),
    });
    let served = served.await;
    let net = GrpcNet::new();
    net.call(&served.address, ask(1), PATIENCE).await.unwrap();
    // Nobody listens any more, and then the open stream breaks.
    served.task.abort();
    assert!(served.task.await.unwrap_err().is_cancelled());
    let address = served.address;
    let error = net.call(&address, ask(2), PATIENCE).await.unwrap_err();
    assert!(matches!(error, CallError::Lost(_)), "{error:?}");
    let error = net.call(&address, ask(3), PATIENCE).await.unwrap_err();
    assert!(matches!(error, CallError::NotSent(_)), "{error:?}");
    let served = serve_at(&address, answer_all).await;
    loop {
        match net.call(&address, ask(4), PATIENCE).await {
            Ok(body) => break assert_eq!(count_of(body), 4),
            Err(error) => assert!(matches!(error, CallError::NotSent(_)), "{error:?}"),
        }
    }
    drop(served);
}

#[tokio::test]
async fn the_largest_command_fits_in_a_message() {
    let served = serve(|message| {
        let reply = |request: &v1::Request| v1::Response {
            id: request.id,
            body: Some(response::Body::Write(v1::WriteReply::default())),
        };
        Ok(message.requests.iter().map(reply).collect())
    });
    let served = served.await;
    let net = GrpcNet::new();
    let calls = (0..8).map(|_| net.call(&served.address, large_write(), PATIENCE));
    let answers = join_all(calls).await;
    let sent = answers.iter().filter(|answer| answer.is_ok()).count();
    let refused = |answer: &&Result<_, _>| matches!(answer, Err(CallError::NotSent(m)) if m.contains("too many requests"));
    let refused = answers.iter().filter(refused).count();
    assert_eq!((sent, refused), (7, 1), "64 MiB may wait, which is 7 of these and a bit");
}
