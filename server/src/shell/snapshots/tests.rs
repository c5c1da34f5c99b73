//! A snapshot through the wire's messages, whole and broken.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use prost::Message as _;
use protobuf::Message as _;
use raft_proto::eraftpb;
use rangedb_proto::v1::snapshot_chunk::Body;
use rangedb_proto::v1::{
    RaftEnvelope, RangeDescriptor, Replica, SnapshotChunk, SnapshotHeader, SnapshotMeta,
    raft_envelope,
};
use rangedb_raftstore::Event;
use rangedb_storage::{
    ChunkReader, Direction, Install, MemState, Reader, Records, Result as StorageResult, Span,
    StagedSnapshot, Staging, StateEngine, WriteBatch, keys,
};
use tokio::sync::mpsc::{self, UnboundedSender};
use tonic::{Code, Status};

use super::*;
use crate::handle::{EventSink, StoreHandle};
use crate::node::DiskSpace;
use crate::shell::disk_watch::DiskWatch;
use crate::shell::transport::Identification;

const ME: Identification = Identification { cluster_id: 7, node_id: 2 };

#[derive(Default)]
struct Store(Mutex<Vec<Event>>);

impl EventSink for Store {
    fn send(&self, event: Event) -> Result<(), Event> {
        self.0.lock().push(event);
        Ok(())
    }
}

fn envelope(descriptor: RangeDescriptor) -> RaftEnvelope {
    let meta = SnapshotMeta { descriptor: Some(descriptor), format_version: 2 };
    let mut message = eraftpb::Message::default();
    message.mut_snapshot().data = meta.encode_to_vec().into();
    RaftEnvelope {
        range_id: 1,
        to: Some(Replica { replica_id: 2, node_id: 2, role: 0 }),
        body: Some(raft_envelope::Body::Message(message.write_to_bytes().unwrap().into())),
        ..Default::default()
    }
}

fn chunks(cluster_id: u64) -> Vec<Body> {
    chunks_of(RangeDescriptor { range_id: 1, ..Default::default() }, cluster_id)
}

fn chunks_of(descriptor: RangeDescriptor, cluster_id: u64) -> Vec<Body> {
    let state = MemState::default();
    let mut batch = WriteBatch::default();
    for key in ["_/a", "_/b", "_/c"] {
        batch.put(ColumnFamily::Current, keys::current(key.as_bytes()), "value");
    }
    state.write(batch).unwrap();
    let mut reader = ChunkReader::new(state.snapshot(), keys::data_span(b"", b""));
    let envelope = Some(envelope(descriptor));
    let header = SnapshotHeader { cluster_id, from_node_id: 1, to_node_id: 2, envelope };
    let mut bodies = vec![Body::Header(header)];
    while let Some(chunk) = reader.next_chunk().unwrap() {
        bodies.push(Body::Data(to_wire(chunk)));
    }
    bodies.push(Body::Trailer(totals_to_wire(reader.finish())));
    bodies
}

async fn receive(bodies: Vec<Body>) -> (Result<bool, Code>, usize) {
    receive_on(DiskWatch::new(&std::env::temp_dir(), None), bodies).await
}

async fn receive_on(disk: DiskWatch, bodies: Vec<Body>) -> (Result<bool, Code>, usize) {
    let store = Arc::new(Store::default());
    let stores = StoreHandle::new(vec![store.clone()]);
    let receiver = SnapshotReceiver::new(ME, stores, Arc::new(MemState::default()), disk.into(), 1);
    let chunks = bodies.into_iter().map(|body| Ok(SnapshotChunk { body: Some(body) }));
    let receipt = receiver.receive(stream::iter(chunks)).await;
    let events = store.0.lock().len();
    (receipt.map(|receipt| receipt.installed).map_err(|status: Status| status.code()), events)
}

#[tokio::test]
async fn a_whole_snapshot_reaches_the_store() {
    assert_eq!(receive(chunks(7)).await, (Ok(true), 1));
}

#[tokio::test]
async fn a_snapshot_that_breaks_off_leaves_nothing() {
    let mut bodies = chunks(7);
    bodies.pop();
    assert_eq!(receive(bodies).await, (Err(Code::InvalidArgument), 0));
}

#[tokio::test]
async fn a_flipped_byte_is_found() {
    let mut bodies = chunks(7);
    let Body::Data(data) = &mut bodies[1] else { panic!("data follows the header") };
    data.records[1].value = "walue".into();
    assert_eq!(receive(bodies).await, (Err(Code::DataLoss), 0));
}

#[tokio::test]
async fn a_snapshot_of_another_cluster_is_refused() {
    assert_eq!(receive(chunks(8)).await, (Err(Code::FailedPrecondition), 0));
}

/// Time limit of the tests, instead of production's.
const SHORT: std::time::Duration = std::time::Duration::from_millis(10);

/// Receives snapshots one at a time.
fn receiver() -> SnapshotReceiver {
    let stores = StoreHandle::new(vec![Arc::new(Store::default())]);
    let disk = DiskWatch::new(&std::env::temp_dir(), None).into();
    SnapshotReceiver::new(ME, stores, Arc::new(MemState::default()), disk, 1)
}

fn on_the_wire(bodies: Vec<Body>) -> Vec<Result<SnapshotChunk, Status>> {
    bodies.into_iter().map(|body| Ok(SnapshotChunk { body: Some(body) })).collect()
}

#[tokio::test]
async fn streams_without_a_header_keep_no_place_from_a_snapshot() {
    let receiver = receiver();
    let mut silent: Vec<_> =
        (0..2).map(|_| Box::pin(receiver.receive(stream::pending()))).collect();
    for waiting in &mut silent {
        assert!(futures::poll!(waiting.as_mut()).is_pending());
    }
    let whole = receiver.receive(stream::iter(on_the_wire(chunks(7)))).await;
    assert!(whole.unwrap().installed);
}

#[tokio::test]
async fn streams_without_a_header_are_few() {
    let receiver = receiver();
    let mut silent = Vec::new();
    let refused = loop {
        let mut waiting = Box::pin(receiver.receive(stream::pending()));
        match futures::poll!(waiting.as_mut()) {
            std::task::Poll::Pending => silent.push(waiting),
            std::task::Poll::Ready(refused) => break refused,
        }
        assert!(silent.len() < 1000, "no end of streams");
    };
    assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_stream_that_sends_no_header_ends() {
    let mut receiver = receiver();
    receiver.header_within = SHORT;
    let ended = receiver.receive(stream::pending()).await;
    assert_eq!(ended.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_stream_that_stands_still_gives_its_place_back() {
    let mut receiver = receiver();
    receiver.silence_max = SHORT;
    let header = stream::iter(on_the_wire(chunks(7)[..1].to_vec()));
    let ended = receiver.receive(header.chain(stream::pending())).await;
    assert_eq!(ended.unwrap_err().code(), Code::DeadlineExceeded);
    let whole = receiver.receive(stream::iter(on_the_wire(chunks(7)))).await;
    assert!(whole.unwrap().installed);
}

#[tokio::test]
async fn a_full_disk_takes_no_snapshot_in_but_those_of_system_ranges() {
    let full = || {
        let disk = DiskWatch::new(&std::env::temp_dir(), None);
        disk.judge(DiskSpace { total_bytes: 1 << 40, available_bytes: 0 }, 0);
        disk
    };
    assert_eq!(receive_on(full(), chunks(7)).await, (Err(Code::ResourceExhausted), 0));
    let system = RangeDescriptor {
        start_key: "_/".into(),
        end_key: "_0".into(),
        range_id: 1,
        ..Default::default()
    };
    assert_eq!(receive_on(full(), chunks_of(system, 7)).await, (Ok(true), 1));
}

/// Events of a snapshot whose receiving future is dropped.
#[derive(PartialEq, Debug)]
enum ReceivedPart {
    Finishing,
    Sent,
    Discarded,
}

/// State engine that waits for a signal before it finishes a staged snapshot.
struct HeldState {
    state: MemState,
    seen: UnboundedSender<ReceivedPart>,
    go_on: Arc<Mutex<std::sync::mpsc::Receiver<()>>>,
}

struct HeldStaging {
    staging: Box<dyn Staging>,
    seen: UnboundedSender<ReceivedPart>,
    go_on: Arc<Mutex<std::sync::mpsc::Receiver<()>>>,
}

impl Staging for HeldStaging {
    fn add(&mut self, cf: ColumnFamily, records: &[(Bytes, Bytes)]) -> StorageResult<()> {
        self.staging.add(cf, records)
    }

    fn finish(self: Box<Self>) -> StorageResult<StagedSnapshot> {
        self.seen.send(ReceivedPart::Finishing).unwrap();
        self.go_on.lock().recv().unwrap();
        self.staging.finish()
    }
}

impl Reader for HeldState {
    fn get(&self, cf: ColumnFamily, key: &[u8]) -> StorageResult<Option<Bytes>> {
        self.state.get(cf, key)
    }

    fn scan<'a>(
        &'a self,
        cf: ColumnFamily,
        start: &[u8],
        end: &[u8],
        direction: Direction,
    ) -> StorageResult<Box<dyn Records + 'a>> {
        self.state.scan(cf, start, end, direction)
    }
}

impl StateEngine for HeldState {
    fn snapshot(&self) -> Arc<dyn Reader> {
        self.state.snapshot()
    }

    fn write(&self, batch: WriteBatch) -> StorageResult<()> {
        self.state.write(batch)
    }

    fn flush(&self) -> StorageResult<()> {
        self.state.flush()
    }

    fn stage(&self) -> StorageResult<Box<dyn Staging>> {
        let (seen, go_on) = (self.seen.clone(), self.go_on.clone());
        Ok(Box::new(HeldStaging { staging: self.state.stage()?, seen, go_on }))
    }

    fn install(&self, install: Install) -> StorageResult<()> {
        self.state.install(install)
    }

    fn discard(&self, staged: StagedSnapshot) -> StorageResult<()> {
        self.seen.send(ReceivedPart::Discarded).unwrap();
        self.state.discard(staged)
    }

    fn approximate_bytes(&self, span: &Span) -> StorageResult<u64> {
        self.state.approximate_bytes(span)
    }
}

/// Store that takes the events it is sent, or has no place for them.
struct ReportedSnapshot {
    seen: UnboundedSender<ReceivedPart>,
    has_place: bool,
}

impl EventSink for ReportedSnapshot {
    fn send(&self, event: Event) -> Result<(), Event> {
        if !self.has_place {
            return Err(event);
        }
        self.seen.send(ReceivedPart::Sent).unwrap();
        Ok(())
    }
}

#[tokio::test]
async fn a_snapshot_that_is_dropped_while_it_is_finished_is_handed_on_or_discarded() {
    for (has_place, outcome) in [(true, ReceivedPart::Sent), (false, ReceivedPart::Discarded)] {
        let (seen, mut to_see) = mpsc::unbounded_channel();
        let (go_on, held) = std::sync::mpsc::channel();
        let go_on_when_told = Arc::new(Mutex::new(held));
        let state =
            HeldState { state: MemState::default(), seen: seen.clone(), go_on: go_on_when_told };
        let stores = StoreHandle::new(vec![Arc::new(ReportedSnapshot { seen, has_place })]);
        let disk = DiskWatch::new(&std::env::temp_dir(), None).into();
        let receiver = SnapshotReceiver::new(ME, stores, Arc::new(state), disk, 1);
        let bodies = chunks(7).into_iter().map(|body| Ok(SnapshotChunk { body: Some(body) }));
        tokio::select! {
            receipt = receiver.receive(stream::iter(bodies)) => panic!("not held: {receipt:?}"),
            finishing = to_see.recv() => assert_eq!(finishing, Some(ReceivedPart::Finishing)),
        }
        // Without the receiver, only the blocking task can still report an event.
        drop(receiver);
        go_on.send(()).unwrap();
        assert_eq!(to_see.recv().await, Some(outcome));
        assert_eq!(to_see.recv().await, None);
    }
}
