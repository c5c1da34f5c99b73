//! Task that carries messages to one node: it connects, sends what waits, and connects again when
//! the connection breaks. While the node cannot be reached the task empties the node's queue: Raft
//! repeats messages that still matter.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rangedb_proto::NodeId;
use rangedb_proto::v1::RaftMessages;
use rangedb_proto::v1::peer_client::PeerClient;
use rangedb_raftstore::Event;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use super::queue::Queue;
use super::{PEER_ADDRESS_KEY, Shared};
use rangedb_proto::limits::MESSAGE_BYTES_MAX;

use crate::shell::grpc_limits::{KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, WINDOW_BYTES};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Bounds of the pause between two tries to connect. The maximum is below an election timeout, so
/// that messages reach a node that came back before it campaigns.
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_millis(800);

/// Minimum age of a working connection. If a connection breaks sooner, its node refuses or is not
/// yet part of the cluster.
const ESTABLISHED_AFTER: Duration = Duration::from_secs(1);

/// Batches handed to HTTP/2 in advance. More batches would wait where heartbeats cannot overtake
/// them.
const BATCHES_AHEAD: usize = 1;

pub(super) async fn run(shared: Arc<Shared>, to: u64, queue: Arc<Queue>) {
    let mut wait = RECONNECT_MIN;
    let mut last_reason = String::new();
    loop {
        queue.filled().await;
        let begun = Instant::now();
        let Err(reason) = carry(&shared, to, &queue).await;
        let was_established = begun.elapsed() > CONNECT_TIMEOUT + ESTABLISHED_AFTER;
        if was_established {
            wait = RECONNECT_MIN;
        }
        let dropped = queue.clear() as u64;
        shared.counts.dropped.fetch_add(dropped, Ordering::Relaxed);
        shared.stores.send_to_all(&Event::Unreachable(NodeId(to)));
        if was_established || reason != last_reason {
            tracing::info!(to_node_id = to, reason, "no raft connection");
            last_reason = reason;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RECONNECT_MAX);
    }
}

/// Carries messages until the stream ends. Returns the reason.
async fn carry(shared: &Shared, to: u64, queue: &Queue) -> Result<Infallible, String> {
    let channel = connect(shared, to).await?;
    let (batches, outbound) = mpsc::channel(BATCHES_AHEAD);
    let mut client = PeerClient::new(channel).max_encoding_message_size(MESSAGE_BYTES_MAX);
    let mut stream = Request::new(ReceiverStream::new(outbound));
    // A name that is not ASCII is not sent: the receiver then finds this node as it finds others.
    if let Ok(address) = shared.peer_address.parse() {
        stream.metadata_mut().insert(PEER_ADDRESS_KEY, address);
    }
    let call = client.raft(stream);
    tokio::pin!(call);
    loop {
        tokio::select! {
            biased;
            ended = &mut call => return Err(match ended {
                Ok(_) => "the node ended the stream".to_owned(),
                Err(status) => {
                    if status.code() == Code::FailedPrecondition {
                        shared.directory.was_misled();
                    }
                    format!("{:?}: {}", status.code(), status.message())
                }
            }),
            room = reserve(&batches, queue) => {
                let Ok(room) = room else { return Err("the stream ended".to_owned()) };
                let envelopes = queue.take();
                shared.counts.sent.fetch_add(envelopes.len() as u64, Ordering::Relaxed);
                room.send(RaftMessages {
                    cluster_id: shared.me.cluster_id,
                    from_node_id: shared.me.node_id,
                    to_node_id: to,
                    envelopes,
                });
            }
        }
    }
}

/// Waits until there is a message to send and room for it. Dropping the future loses nothing.
async fn reserve<'a>(
    batches: &'a mpsc::Sender<RaftMessages>,
    queue: &Queue,
) -> Result<mpsc::Permit<'a, RaftMessages>, mpsc::error::SendError<()>> {
    queue.filled().await;
    batches.reserve().await
}

async fn connect(shared: &Shared, to: u64) -> Result<Channel, String> {
    let node = shared.directory.find(to).ok_or("its address is not known")?;
    shared.counts.connects.fetch_add(1, Ordering::Relaxed);
    let endpoint = Endpoint::from_shared(format!("http://{}", node.peer_address))
        .map_err(|error| error.to_string())?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(2 * WINDOW_BYTES);
    endpoint.connect().await.map_err(|error| crate::shell::grpc_limits::innermost(&error))
}
