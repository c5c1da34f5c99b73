//! Sender of a snapshot, on the leader: it reads, sends and reports the outcome.
//!
//! The receiver continues from the records of the sender's view. If compaction drops any of them,
//! the stream is aborted and Raft asks for another snapshot: see [`crate::compaction`].

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prost::Message as _;
use rangedb_proto::v1::peer_client::PeerClient;
use rangedb_proto::v1::snapshot_chunk::Body;
use rangedb_proto::v1::{RaftEnvelope, SnapshotChunk, SnapshotHeader};
use rangedb_proto::{RangeId, ReplicaId};
use rangedb_raftstore::Event;
use rangedb_storage::{ChunkReader, Reader, RocksState, Span};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Endpoint;

use super::pace::{CREDIT_MAX, Pace, TooSlow};
use super::{CHUNKS_AHEAD, to_wire, totals_to_wire};
use rangedb_proto::limits::MESSAGE_BYTES_MAX;

use crate::compaction::StreamedView;
use crate::handle::StoreHandle;
use crate::shell::grpc_limits::{KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, innermost};
use crate::shell::transport::{Directory, Identification};

/// Maximum number of snapshots that wait for their turn. Each holds a view of the state, which
/// keeps old files on the disk. Raft asks again for a snapshot that is refused.
const WAITING_MAX: usize = 16;

/// Time from the last chunk to the receiver's answer. The receiver syncs the last of its staged
/// files in that time, on a disk that may be slow.
const RECEIPT_WITHIN: Duration = Duration::from_secs(120);

/// Sender of snapshots to other nodes.
pub(crate) struct SnapshotSender {
    runtime: Handle,
    me: Identification,
    state: Arc<RocksState>,
    directory: Arc<Directory>,
    stores: StoreHandle,
    turns: Semaphore,
    waiting: AtomicUsize,
}

impl SnapshotSender {
    /// Creates a sender on the current tokio runtime.
    pub fn new(
        me: Identification,
        state: Arc<RocksState>,
        directory: Arc<Directory>,
        stores: StoreHandle,
        at_once: usize,
    ) -> Self {
        SnapshotSender {
            runtime: Handle::current(),
            me,
            state,
            directory,
            stores,
            turns: Semaphore::new(at_once),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Begins to send a snapshot. The store receives [`Event::SnapshotSent`] in the end. Does not
    /// block.
    pub fn send(
        self: &Arc<Self>,
        envelope: RaftEnvelope,
        index: u64,
        reader: Arc<dyn Reader>,
        span: Span,
    ) {
        let this = self.clone();
        self.runtime.spawn(async move {
            let range = RangeId(envelope.range_id);
            let to = envelope.to.unwrap_or_default();
            let sent = this.send_in_turn(envelope, reader, span).await;
            match &sent {
                Ok(records) => tracing::info!(
                    range_id = range.0,
                    to_node_id = to.node_id,
                    records,
                    "sent a snapshot"
                ),
                Err(reason) => tracing::info!(
                    range_id = range.0,
                    to_node_id = to.node_id,
                    reason,
                    "could not send a snapshot"
                ),
            }
            let (to, delivered) = (ReplicaId(to.replica_id), sent.is_ok());
            this.stores.send(range, Event::SnapshotSent { range, to, index, delivered });
        });
    }

    async fn send_in_turn(
        &self,
        envelope: RaftEnvelope,
        reader: Arc<dyn Reader>,
        span: Span,
    ) -> Result<u64, String> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err("too many snapshots wait to be sent".to_owned());
        }
        let turn = self.turns.acquire().await;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        let _turn = turn.map_err(|error| error.to_string())?;

        let to_node_id = envelope.to.unwrap_or_default().node_id;
        let address = self.directory.find(to_node_id).ok_or("its address is not known")?;
        let endpoint = Endpoint::from_shared(format!("http://{}", address.peer_address))
            .map_err(|error| error.to_string())?
            .connect_timeout(Duration::from_secs(1))
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        let channel = endpoint.connect().await.map_err(|error| innermost(&error))?;
        let header = SnapshotHeader {
            cluster_id: self.me.cluster_id,
            from_node_id: self.me.node_id,
            to_node_id,
            envelope: Some(envelope),
        };
        let (chunks, outbound) = mpsc::channel(CHUNKS_AHEAD);
        let state = self.state.clone();
        let reading =
            tokio::task::spawn_blocking(move || read_all(header, &state, reader, span, &chunks));
        let mut client = PeerClient::new(channel).max_encoding_message_size(MESSAGE_BYTES_MAX);
        let call = client.snapshot(ReceiverStream::new(outbound));
        let (receipt, records) = receipt_of(call, reading, RECEIPT_WITHIN).await?;
        let receipt = receipt.map_err(|status| {
            if status.code() == Code::FailedPrecondition {
                self.directory.was_misled();
            }
            format!("{:?}: {}", status.code(), status.message())
        })?;
        let records = records?;
        if receipt.into_inner().installed {
            Ok(records)
        } else {
            Err("the receiver had no use for it".to_owned())
        }
    }
}

/// Returns the receiver's answer, and the number of records that were read. A receiver that hangs
/// must not keep its turn from other snapshots, so the wait is bounded.
async fn receipt_of<R>(
    call: impl Future<Output = R>,
    mut reading: JoinHandle<Result<u64, String>>,
    within: Duration,
) -> Result<(R, Result<u64, String>), String> {
    let of_task = |read: Result<_, JoinError>| read.unwrap_or_else(|error| Err(error.to_string()));
    tokio::pin!(call);
    tokio::select! {
        receipt = &mut call => Ok((receipt, of_task(reading.await))),
        read = &mut reading => match tokio::time::timeout(within, call).await {
            Ok(receipt) => Ok((receipt, of_task(read))),
            Err(_) => Err("the receiver does not say what became of it".to_owned()),
        },
    }
}

/// Reads the span into the stream and returns the number of records. Ends early if the receiver
/// takes no more, or if the view lacks records that it should hold. Blocks.
fn read_all(
    header: SnapshotHeader,
    state: &RocksState,
    reader: Arc<dyn Reader>,
    span: Span,
    chunks: &mpsc::Sender<SnapshotChunk>,
) -> Result<u64, String> {
    let mut pace = Pace::new(CREDIT_MAX);
    let mut send = |body| {
        let chunk = SnapshotChunk { body: Some(body) };
        let bytes = chunk.encoded_len();
        match Handle::current().block_on(pace.wait(chunks.send(chunk))) {
            Ok(Ok(())) => {
                pace.moved(bytes);
                Ok(())
            }
            Ok(Err(_)) => Err("the receiver ended the stream".to_owned()),
            Err(TooSlow) => Err("the receiver takes it too slowly".to_owned()),
        }
    };
    let failed = |error: rangedb_storage::Error| error.to_string();
    let view = StreamedView::new(&*reader, span.clone()).map_err(failed)?;
    send(Body::Header(header))?;
    let mut reading = ChunkReader::new(reader, span);
    loop {
        let chunk = reading.next_chunk().map_err(failed)?;
        // Checked after each read. This includes the last read, which finds no more records.
        view.check(state).map_err(failed)?;
        let Some(chunk) = chunk else { break };
        send(Body::Data(to_wire(chunk)))?;
    }
    let totals = reading.finish();
    send(Body::Trailer(totals_to_wire(totals)))?;
    Ok(totals.records)
}

#[cfg(test)]
mod tests {
    use rangedb_storage::{ColumnFamily, Compaction, StateEngine, StateOptions, WriteBatch, keys};

    use super::*;

    #[tokio::test]
    async fn a_receiver_that_never_answers_is_not_waited_for() {
        let reading = tokio::spawn(async { Ok(1) });
        let within = Duration::from_millis(10);
        let answer = receipt_of(std::future::pending::<()>(), reading, within).await;
        assert!(answer.unwrap_err().contains("does not say"));
        let reading = tokio::spawn(async { Ok(1) });
        let answer = receipt_of(async { "installed" }, reading, within).await;
        assert_eq!(answer, Ok(("installed", Ok(1))));
    }

    #[tokio::test]
    async fn a_stream_ends_before_the_first_chunk_that_may_lack_records() {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(RocksState::open(dir.path(), StateOptions::default()).unwrap());
        let mut batch = WriteBatch::default();
        batch.put(ColumnFamily::Current, keys::current(b"a"), "value");
        state.write(batch).unwrap();
        let view = state.snapshot();
        let stream = || async {
            let (state, view, span) = (state.clone(), view.clone(), keys::data_span(b"", b""));
            let (chunks, mut sent) = mpsc::channel(CHUNKS_AHEAD + 1);
            let header = SnapshotHeader::default();
            let reading =
                tokio::task::spawn_blocking(move || read_all(header, &state, view, span, &chunks));
            let read = reading.await.unwrap();
            let mut bodies = Vec::new();
            while let Some(chunk) = sent.recv().await {
                bodies.push(chunk.body.unwrap());
            }
            (read, bodies)
        };
        let (read, bodies) = stream().await;
        assert_eq!((read, bodies.len()), (Ok(1), 3));
        assert!(matches!(bodies[2], Body::Trailer(_)));

        state.set_collect_below(&Span::everything(), 5);
        state.flush().unwrap();
        let (read, bodies) = stream().await;
        assert!(read.is_err() && matches!(bodies[..], [Body::Header(_)]), "{read:?}: {bodies:?}");
    }
}
