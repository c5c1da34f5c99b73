//! Receiver of a snapshot, on the follower: it checks and stages the records, and hands them to the
//! store.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use prost::Message as _;
use rangedb_proto::v1::snapshot_chunk::Body;
use rangedb_proto::v1::{
    RaftEnvelope, RangeDescriptor, SnapshotChunk, SnapshotHeader, SnapshotMeta, SnapshotReceipt,
    SnapshotTrailer, raft_envelope,
};
use rangedb_proto::{RangeId, SYSTEM_PREFIX};
use rangedb_raftstore::{Event, Room, decode_message};
use rangedb_storage::{ChunkReceiver, StateEngine, keys};
use tokio::sync::Semaphore;
use tonic::Status;

use super::pace::{CREDIT_MAX, Pace, TooSlow};
use super::{from_wire, totals_from_wire};
use crate::handle::StoreHandle;
use crate::shell::disk_watch::DiskWatch;
use crate::shell::logging::Seldom;
use crate::shell::transport::{Identification, check};

/// Time within which the header must arrive. A sender sends it first, without being asked.
const HEADER_WITHIN: Duration = Duration::from_secs(5);

/// Maximum number of streams whose header has not arrived: many more than nodes send at one moment.
const UNKNOWN_MAX: usize = 64;

/// Receiver of snapshots from other nodes.
pub(crate) struct SnapshotReceiver {
    me: Identification,
    stores: StoreHandle,
    state: Arc<dyn StateEngine>,
    disk: Arc<DiskWatch>,
    places: Semaphore,
    /// Places for streams whose header has not arrived.
    unknown: Semaphore,
    /// Rate limit of the log lines about refused headers.
    refused: Seldom,
    pub(super) header_within: Duration,
    pub(super) silence_max: Duration,
}

impl SnapshotReceiver {
    pub fn new(
        me: Identification,
        stores: StoreHandle,
        state: Arc<dyn StateEngine>,
        disk: Arc<DiskWatch>,
        at_once: usize,
    ) -> Self {
        let unknown = Semaphore::new(UNKNOWN_MAX);
        SnapshotReceiver {
            me,
            stores,
            state,
            disk,
            places: Semaphore::new(at_once),
            unknown,
            refused: Seldom::default(),
            header_within: HEADER_WITHIN,
            silence_max: CREDIT_MAX,
        }
    }

    /// Receives a snapshot. If the future is dropped at any moment, only a snapshot that the store
    /// already has is left behind. A stream takes a place once its header says that it is meant for
    /// this node.
    pub async fn receive<S>(&self, mut chunks: S) -> Result<SnapshotReceipt, Status>
    where
        S: Stream<Item = Result<SnapshotChunk, Status>> + Unpin + Send,
    {
        let header = self.header(&mut chunks).await?;
        let envelope = self.check_header(header)?;
        let meta = meta_of(&envelope)
            .ok_or_else(|| Status::invalid_argument("a snapshot without a description"))?;
        let _place = self
            .places
            .try_acquire()
            .map_err(|_| Status::resource_exhausted("as many snapshots as allowed come in"))?;
        let range = meta.descriptor.unwrap_or_default();
        let (receiver, trailer) = self.stage(&range, &mut chunks).await?;
        let installed = self.hand_on(receiver, trailer, envelope).await?;
        Ok(SnapshotReceipt { installed })
    }

    async fn header<S>(&self, chunks: &mut S) -> Result<SnapshotHeader, Status>
    where
        S: Stream<Item = Result<SnapshotChunk, Status>> + Unpin + Send,
    {
        let _unknown = self
            .unknown
            .try_acquire()
            .map_err(|_| Status::resource_exhausted("too many streams without a header"))?;
        let first = tokio::time::timeout(self.header_within, chunks.next()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no header came"))?;
        match body_of(first)? {
            Body::Header(header) => Ok(header),
            Body::Data(_) | Body::Trailer(_) => {
                Err(Status::invalid_argument("a snapshot without a header"))
            }
        }
    }

    fn check_header(&self, header: SnapshotHeader) -> Result<RaftEnvelope, Status> {
        if let Err(reason) = check(self.me, header.cluster_id, header.to_node_id) {
            if let Some(left_out) = self.refused.may_write() {
                let from_node_id = header.from_node_id;
                tracing::warn!(from_node_id, reason, left_out, "refused a snapshot");
            }
            return Err(Status::failed_precondition(reason));
        }
        header.envelope.ok_or_else(|| Status::invalid_argument("a snapshot without its message"))
    }

    /// Stages all chunks, up to the trailer.
    async fn stage<S>(
        &self,
        range: &RangeDescriptor,
        chunks: &mut S,
    ) -> Result<(ChunkReceiver, SnapshotTrailer), Status>
    where
        S: Stream<Item = Result<SnapshotChunk, Status>> + Unpin + Send,
    {
        let span = keys::data_span(&range.start_key, &range.end_key);
        let is_system = range.start_key.starts_with(SYSTEM_PREFIX);
        self.has_room(is_system)?;
        let state = self.state.clone();
        let mut receiver = blocking(move || Ok(ChunkReceiver::new(state.stage()?, span))).await?;
        let mut pace = Pace::new(self.silence_max);
        loop {
            match next(chunks, &mut pace).await? {
                Body::Data(data) => {
                    self.has_room(is_system)?;
                    let chunk = from_wire(data)
                        .ok_or_else(|| Status::invalid_argument("an unknown column family"))?;
                    receiver = blocking(move || {
                        receiver.add(&chunk)?;
                        Ok(receiver)
                    })
                    .await?;
                }
                Body::Trailer(trailer) => return Ok((receiver, trailer)),
                Body::Header(_) => return Err(Status::invalid_argument("a second header")),
            }
        }
    }

    /// Refuses data while the disk is short of room, except data that the cluster itself needs.
    /// Stores do the same.
    fn has_room(&self, is_system: bool) -> Result<(), Status> {
        if self.disk.seen().room != Room::Enough && !is_system {
            return Err(Status::resource_exhausted("the disk of the receiver is full"));
        }
        Ok(())
    }

    /// Checks and finishes the staged snapshot and gives it to the store. False if the store could
    /// not take it. One blocking task does all of this: it runs to its end even if the future is
    /// dropped, and nobody else would discard a finished snapshot.
    async fn hand_on(
        &self,
        receiver: ChunkReceiver,
        trailer: SnapshotTrailer,
        envelope: RaftEnvelope,
    ) -> Result<bool, Status> {
        let (state, stores) = (self.state.clone(), self.stores.clone());
        blocking(move || {
            let staged = receiver.finish(totals_from_wire(trailer))?;
            let range = RangeId(envelope.range_id);
            tracing::info!(range_id = range.0, records = staged.records, "received a snapshot");
            let event = Event::SnapshotReceived { envelope, staged: staged.clone() };
            let sent = stores.send(range, event);
            if !sent {
                state.discard(staged)?;
            }
            Ok(sent)
        })
        .await
    }
}

async fn next<S>(chunks: &mut S, pace: &mut Pace) -> Result<Body, Status>
where
    S: Stream<Item = Result<SnapshotChunk, Status>> + Unpin,
{
    let next = pace.wait(chunks.next()).await;
    let next =
        next.map_err(|TooSlow| Status::deadline_exceeded("the snapshot comes too slowly"))?;
    if let Some(Ok(chunk)) = &next {
        pace.moved(chunk.encoded_len());
    }
    body_of(next)
}

fn body_of(chunk: Option<Result<SnapshotChunk, Status>>) -> Result<Body, Status> {
    let chunk = chunk.ok_or_else(|| Status::invalid_argument("the snapshot breaks off"))??;
    chunk.body.ok_or_else(|| Status::invalid_argument("a chunk of an unknown kind"))
}

/// Returns the leader's description of the range, from the snapshot in its Raft message.
fn meta_of(envelope: &RaftEnvelope) -> Option<SnapshotMeta> {
    let Some(raft_envelope::Body::Message(message)) = &envelope.body else { return None };
    let message = decode_message(message)?;
    let meta = SnapshotMeta::decode(&message.get_snapshot().data[..]).ok()?;
    meta.descriptor.is_some().then_some(meta)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> rangedb_storage::Result<T> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|panic| Status::internal(panic.to_string()))?.map_err(to_status)
}

fn to_status(error: rangedb_storage::Error) -> Status {
    use rangedb_storage::Error;
    let message = error.to_string();
    match error {
        Error::Corrupt { .. } | Error::Damaged(_) => Status::data_loss(message),
        Error::Full(_) => Status::resource_exhausted(message),
        Error::Io(_) | Error::Refused(_) => Status::internal(message),
    }
}
