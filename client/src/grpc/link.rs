//! The task that owns the connection to one node: connects, sends queued requests, hands out
//! answers, and reconnects when the connection breaks.
//!
//! While a node cannot be reached, requests to it fail at once instead of waiting for the next
//! attempt to connect: their senders can try other nodes.

use std::collections::BTreeMap;
use std::future::pending;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use rangedb_proto::v1::{self, node_client::NodeClient, response};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

use super::cluster::{Cluster, is_unread};
use super::outgoing::Outgoing;
use rangedb_proto::limits::{BATCH_BYTES_MAX, MESSAGE_BYTES_MAX};

use crate::net::{BoxFuture, CallError};

/// Time without a request after which a link ends.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(60);

/// Requests in one message at most: measured, larger batches gain nothing (D8).
const BATCH_REQUESTS_MAX: usize = 128;

/// Messages handed to HTTP/2 ahead of demand. With more, requests would wait where they can no
/// longer be withdrawn.
const MESSAGES_AHEAD: usize = 1;

/// Requests in flight at most, including those whose callers have left.
const IN_FLIGHT_MAX: usize = 64 * 1024;

/// Time to open a connection, about that of an attempt: no request waits longer for it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Bounds of the wait between two attempts to connect to a node that is down.
const RECONNECT_MIN: Duration = Duration::from_millis(20);
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// A peer that answers no ping for the sum of these is gone. Requests end sooner, by their own
/// timeouts; this frees the connection.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// HTTP/2 flow control window: enough for 10 Gbit/s at 1 ms, and more than a page of a scan.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Interval at which requests whose callers have left are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

type Answer = oneshot::Sender<Result<response::Body, CallError>>;

/// The task that owns the connection to one node.
pub(super) struct Link {
    address: String,
    cluster: Arc<Cluster>,
    waiting: mpsc::Receiver<Outgoing>,
    reconnect_wait: Duration,
}

/// Reason why a link ends its connection.
enum End {
    /// No caller uses the link any more.
    Unused,
    Broken(String),
    /// The node refused the stream and read nothing of it, such as a node of another cluster.
    Refused(String),
}

impl Link {
    pub fn new(address: String, cluster: Arc<Cluster>, waiting: mpsc::Receiver<Outgoing>) -> Self {
        Link { address, cluster, waiting, reconnect_wait: RECONNECT_MIN }
    }

    pub async fn run(mut self) {
        loop {
            let idle = Instant::now() + IDLE_MAX;
            // Nothing is opened before there is something to send.
            let Ok(Some(first)) = timeout_at(idle, self.waiting.recv()).await else { break };
            match self.connect().await {
                Ok(channel) => {
                    let connected = Connected::new(channel, self.cluster.clone(), first);
                    match connected.run(&mut self.waiting).await {
                        End::Unused => break,
                        End::Broken(reason) => {
                            self.reconnect_wait = RECONNECT_MIN;
                            tracing::debug!(address = self.address, reason, "connection lost");
                        }
                        End::Refused(reason) => {
                            tracing::warn!(address = self.address, reason, "refused");
                            self.refuse_for_a_while(&reason).await;
                        }
                    }
                }
                Err(reason) => {
                    tracing::debug!(address = self.address, reason, "cannot connect");
                    first.fail(&reason);
                    self.refuse_for_a_while(&reason).await;
                }
            }
        }
        // Fails the requests that were queued while the link ended.
        self.waiting.close();
        while let Some(outgoing) = self.waiting.recv().await {
            outgoing.fail("the connection is closing");
        }
    }

    async fn connect(&self) -> Result<Channel, String> {
        let uri = format!("http://{}", self.address);
        let endpoint = Endpoint::from_shared(uri).map_err(|error| error.to_string())?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(2 * WINDOW_BYTES);
        endpoint.connect().await.map_err(|error| innermost(&error))
    }

    async fn refuse_for_a_while(&mut self, reason: &str) {
        let until = Instant::now() + self.reconnect_wait;
        self.reconnect_wait = (self.reconnect_wait * 2).min(RECONNECT_MAX);
        while let Ok(Some(outgoing)) = timeout_at(until, self.waiting.recv()).await {
            outgoing.fail(reason);
        }
        sleep_until(until).await;
    }
}

/// One connection, from its first request until it breaks.
struct Connected {
    messages: mpsc::Sender<v1::Requests>,
    inbound: Inbound,
    /// Sent and not answered, by id.
    in_flight: BTreeMap<u64, Answer>,
    next_id: u64,
    /// Taken from the queue and not yet sent.
    held: Option<Outgoing>,
    last_used: Instant,
    cluster: Arc<Cluster>,
}

/// Event that a connection waits for.
enum Event {
    Answers(Result<Option<v1::Responses>, Status>),
    Batch(Batch),
    Sweep,
}

/// State of the inbound stream. A node may send its headers only with the first answer, so requests
/// are sent before the headers arrive.
enum Inbound {
    Opening(BoxFuture<'static, Result<Response<Streaming<v1::Responses>>, Status>>),
    Open(Box<Streaming<v1::Responses>>),
}

impl Connected {
    fn new(channel: Channel, cluster: Arc<Cluster>, first: Outgoing) -> Self {
        let (messages, outbound) = mpsc::channel(MESSAGES_AHEAD);
        let mut client = NodeClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let mut stream = Request::new(ReceiverStream::new(outbound));
        cluster.name(stream.metadata_mut());
        let opening = async move { client.stream(stream).await };
        Connected {
            messages,
            inbound: Inbound::Opening(Box::pin(opening)),
            in_flight: BTreeMap::new(),
            next_id: 1,
            held: Some(first),
            last_used: Instant::now(),
            cluster,
        }
    }

    async fn run(mut self, waiting: &mut mpsc::Receiver<Outgoing>) -> End {
        let mut sweep = interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = loop {
            let flow = match self.next_event(waiting, &mut sweep).await {
                Event::Answers(answers) => self.on_answers(answers),
                Event::Batch(batch) => self.on_batch(batch),
                Event::Sweep => self.on_sweep(),
            };
            if let ControlFlow::Break(end) = flow {
                break end;
            }
        };
        let reason = match &end {
            End::Unused => "the client is stopping",
            End::Broken(reason) | End::Refused(reason) => reason,
        };
        for answer in self.in_flight.into_values() {
            let reason = reason.to_owned();
            let _ = answer.send(Err(match end {
                End::Refused(_) => CallError::NotSent(reason),
                _ => CallError::Lost(reason),
            }));
        }
        if let Some(held) = self.held {
            held.fail(reason);
        }
        end
    }

    /// Waits for the next event and decides nothing. Answers come first, because they make room.
    async fn next_event(
        &mut self,
        waiting: &mut mpsc::Receiver<Outgoing>,
        sweep: &mut Interval,
    ) -> Event {
        let has_room = self.in_flight.len() < IN_FLIGHT_MAX;
        let answers = pin!(self.inbound.message(&self.cluster));
        let batch = pin!(async {
            if !has_room {
                pending::<()>().await;
            }
            gather(&self.messages, waiting, &mut self.held).await
        });
        let tick = pin!(sweep.tick());
        match select(answers, select(batch, tick)).await {
            Either::Left((answers, _)) => Event::Answers(answers),
            Either::Right((Either::Left((batch, _)), _)) => Event::Batch(batch),
            Either::Right((Either::Right(_), _)) => Event::Sweep,
        }
    }

    fn on_answers(&mut self, answers: Result<Option<v1::Responses>, Status>) -> ControlFlow<End> {
        let responses = match answers {
            Ok(Some(answers)) => answers.responses,
            Ok(None) => {
                return ControlFlow::Break(End::Broken("the node closed the stream".to_owned()));
            }
            Err(status) if is_unread(&status) => {
                return ControlFlow::Break(End::Refused(status.message().to_owned()));
            }
            Err(status) => {
                let reason = format!("{:?}: {}", status.code(), status.message());
                return ControlFlow::Break(End::Broken(reason));
            }
        };
        for v1::Response { id, body } in responses {
            // None: the caller left long ago.
            let Some(answer) = self.in_flight.remove(&id) else { continue };
            let unknown = || CallError::Lost("an answer of an unknown kind".to_owned());
            let _ = answer.send(body.ok_or_else(unknown));
        }
        ControlFlow::Continue(())
    }

    fn on_batch(&mut self, batch: Batch) -> ControlFlow<End> {
        let batch = match batch {
            Batch::Ready(batch) => batch,
            Batch::StreamEnded => {
                return ControlFlow::Break(End::Broken("the stream ended".to_owned()));
            }
            Batch::QueueEnded => return ControlFlow::Break(End::Unused),
        };
        let mut requests = Vec::with_capacity(batch.len());
        for outgoing in batch {
            let id = self.next_id;
            if let Some((request, answer)) = outgoing.send(id) {
                self.next_id += 1;
                self.in_flight.insert(id, answer);
                requests.push(request);
            }
        }
        // There was room when the batch was gathered, and nothing else sends on this channel. If
        // the stream has ended since, its end answers these requests too.
        if !requests.is_empty() {
            let _ = self.messages.try_send(v1::Requests { requests });
        }
        self.last_used = Instant::now();
        ControlFlow::Continue(())
    }

    fn on_sweep(&mut self) -> ControlFlow<End> {
        self.in_flight.retain(|_, answer| !answer.is_closed());
        let unused = self.in_flight.is_empty() && self.held.is_none();
        if unused && self.last_used.elapsed() >= IDLE_MAX {
            return ControlFlow::Break(End::Unused);
        }
        ControlFlow::Continue(())
    }
}

impl Inbound {
    /// Returns the next message. May be dropped at any await without losing anything.
    async fn message(&mut self, cluster: &Cluster) -> Result<Option<v1::Responses>, Status> {
        loop {
            match self {
                Inbound::Opening(opening) => {
                    let opened = opening.await?;
                    cluster.meet(opened.metadata()).map_err(Status::unknown)?;
                    *self = Inbound::Open(Box::new(opened.into_inner()));
                }
                Inbound::Open(streaming) => return streaming.message().await,
            }
        }
    }
}

/// Content of the next message.
enum Batch {
    Ready(Vec<Outgoing>),
    StreamEnded,
    QueueEnded,
}

/// Waits until the stream takes a message and a request waits, then takes all that wait, up to the
/// bounds. May be dropped at any await without losing anything.
async fn gather(
    messages: &mpsc::Sender<v1::Requests>,
    waiting: &mut mpsc::Receiver<Outgoing>,
    held: &mut Option<Outgoing>,
) -> Batch {
    if messages.reserve().await.is_err() {
        return Batch::StreamEnded;
    }
    if held.is_none() {
        *held = waiting.recv().await;
    }
    let Some(first) = held.take() else { return Batch::QueueEnded };
    let mut bytes = first.bytes;
    let mut batch = vec![first];
    while batch.len() < BATCH_REQUESTS_MAX && bytes < BATCH_BYTES_MAX {
        let Ok(outgoing) = waiting.try_recv() else { break };
        bytes += outgoing.bytes;
        batch.push(outgoing);
    }
    Batch::Ready(batch)
}

/// The innermost cause, on which a person can act ("Connection refused").
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
