//! Range snapshots in flight: chunks go over the network one after the other, and the receiver
//! stages them. A lost part breaks the stream off, and the sender learns of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prost::Message as _;
use rangedb_proto::v1::{RaftEnvelope, RangeDescriptor, SnapshotMeta};
use rangedb_proto::{RangeId, ReplicaId};
use rangedb_raftstore::Event;
use rangedb_server::compaction::StreamedView;
use rangedb_storage::{
    Chunk, ChunkReader, ChunkReceiver, Compaction, Error, Reader, Result, SnapshotTotals, Span,
    StagedSnapshot, StateEngine, keys,
};

use crate::check::replicas_equal::hash_of_what_is_kept;
use crate::check::{Watch, raft_message, whole_snapshots};
use crate::occurrence::{Host, Occurrence};
use crate::schedule::{MILLISECOND, Micros, Schedule};

/// Maximum time between two parts of a stream, in which a chunk is read, sent and staged.
const PART_EVERY_MAX: Micros = 50 * MILLISECOND;

/// Maximum time until the sender notices that a stream is broken.
const BREAK_NOTICED_MAX: Micros = 1000 * MILLISECOND;

/// One stream of a snapshot.
pub struct Transfer {
    pub stamp: u64,
    pub cluster_id: u64,
    pub envelope: RaftEnvelope,
    /// Index of the entry at which the records stand.
    index: u64,
    /// True once the end was reported to the sender. It is reported once, however many parts fail.
    ended: AtomicBool,
}

/// One message of a stream.
pub struct Part {
    pub transfer: Arc<Transfer>,
    pub content: Content,
    /// Host that sends the stream.
    sender: Host,
    first: bool,
}

pub enum Content {
    Chunk(Chunk),
    Trailer(SnapshotTotals),
}

impl Transfer {
    pub fn new(schedule: &Schedule, cluster_id: u64, envelope: RaftEnvelope, index: u64) -> Self {
        let ended = AtomicBool::new(false);
        Transfer { stamp: schedule.stamp(), cluster_id, envelope, index, ended }
    }

    /// Returns the range's descriptor in the snapshot.
    pub fn described(&self) -> Option<RangeDescriptor> {
        let message = raft_message(&self.envelope)?;
        let meta = SnapshotMeta::decode(&message.get_snapshot().data[..]).ok()?;
        meta.descriptor
    }

    fn report(&self, schedule: &Schedule, sender: Host, delivered: bool, delay: Micros) {
        let Transfer { envelope, index, ended, .. } = self;
        if ended.swap(true, Ordering::Relaxed) {
            return;
        }
        let range = RangeId(envelope.range_id);
        let to = ReplicaId(envelope.to.unwrap_or_default().replica_id);
        let event = Event::SnapshotSent { range, to, index: *index, delivered };
        schedule.after(delay, sender, Occurrence::Store { range, event });
    }
}

impl Part {
    pub fn describe(&self) -> String {
        let what = match &self.content {
            Content::Chunk(chunk) => format!("{} records", chunk.records.len()),
            Content::Trailer(totals) => format!("end, {} records", totals.records),
        };
        let Transfer { stamp, envelope, .. } = &*self.transfer;
        let to = envelope.to.unwrap_or_default();
        format!("snapshot {stamp} of r{} to {to:?}: {what}", envelope.range_id)
    }

    /// Reports the end of the stream to the sender.
    pub fn report(&self, schedule: &Schedule, delivered: bool, delay: Micros) {
        self.transfer.report(schedule, self.sender, delivered, delay);
    }

    pub fn report_broken(&self, schedule: &Schedule) {
        self.report(schedule, false, schedule.between(1, BREAK_NOTICED_MAX));
    }
}

/// A view of a range that is to be streamed.
pub struct Outbound {
    pub transfer: Transfer,
    to_slot: usize,
    reader: Arc<dyn Reader>,
    span: Span,
    /// Hash of what the view showed at first, if the stream waits.
    showed: Option<u64>,
}

impl Outbound {
    pub fn new(
        transfer: Transfer,
        to_slot: usize,
        (reader, span): (Arc<dyn Reader>, Span),
        waits: bool,
    ) -> Result<Self> {
        let showed = waits.then(|| hash_of_what_is_kept(&*reader, &span)).transpose()?;
        Ok(Outbound { transfer, to_slot, reader, span, showed })
    }
}

/// Reads a range's records at one moment, and sends them part by part. As in production, a check
/// afterwards makes sure that compaction had dropped none of them.
pub fn send(
    schedule: &Schedule,
    sender: Host,
    outbound: Outbound,
    state: &dyn Compaction,
    watch: &Watch,
) -> Result<()> {
    let Outbound { transfer, to_slot, reader, span, showed } = outbound;
    let transfer = Arc::new(transfer);
    let shows = showed.map(|_| hash_of_what_is_kept(&*reader, &span)).transpose()?;
    let view = StreamedView::new(&*reader, span.clone())?;
    let mut chunks = ChunkReader::new(reader, span);
    let mut contents = Vec::new();
    while let Some(chunk) = chunks.next_chunk()? {
        contents.push(Content::Chunk(chunk));
    }
    contents.push(Content::Trailer(chunks.finish()));
    if let Err(lost) = view.check(state) {
        schedule.remark(|| format!("snapshot {} is not sent: {lost}", transfer.stamp));
        transfer.report(schedule, sender, false, schedule.between(1, BREAK_NOTICED_MAX));
        return Ok(());
    }
    let range = transfer.envelope.range_id;
    watch.note(|_| whole_snapshots::check(range, showed, shows));
    let from = sender.place(0);
    let mut at = schedule.now();
    let mut first = true;
    for content in contents {
        at += schedule.between(1, PART_EVERY_MAX);
        let part = Part { transfer: transfer.clone(), content, sender, first };
        first = false;
        let arrival =
            schedule.network(|network, rng| network.arrival(rng, at, (from, to_slot), true));
        let Some(arrival) = arrival else {
            part.report_broken(schedule);
            return Ok(());
        };
        // A stream keeps its order.
        at = at.max(arrival);
        schedule.at(at, Host::Slot(to_slot), Occurrence::Snapshot(Box::new(part)));
    }
    Ok(())
}

/// Reason why a stream breaks off.
pub enum Broken {
    /// The stream began in an earlier life of the process.
    BeganEarlier,
    /// The content is not what the sender sent. The simulated network never changes content.
    Wrong(String),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Broken::Wrong(error.to_string())
    }
}

/// Streams that a process is receiving.
#[derive(Default)]
pub struct Incoming(BTreeMap<u64, ChunkReceiver>);

impl Incoming {
    /// Takes a part in. Returns the staged snapshot once it is complete. An error breaks the stream
    /// off.
    pub fn take(
        &mut self,
        part: &Part,
        state: &dyn StateEngine,
    ) -> std::result::Result<Option<StagedSnapshot>, Broken> {
        if part.first {
            let range = part
                .transfer
                .described()
                .ok_or_else(|| Broken::Wrong("a snapshot without a description".to_owned()))?;
            let span = keys::data_span(&range.start_key, &range.end_key);
            self.0.insert(part.transfer.stamp, ChunkReceiver::new(state.stage()?, span));
        }
        let mut receiver = self.0.remove(&part.transfer.stamp).ok_or(Broken::BeganEarlier)?;
        match &part.content {
            Content::Chunk(chunk) => {
                receiver.add(chunk)?;
                self.0.insert(part.transfer.stamp, receiver);
                Ok(None)
            }
            Content::Trailer(totals) => Ok(receiver.finish(*totals).map(Some)?),
        }
    }

    /// Drops all that has arrived of the part's stream.
    pub fn give_up(&mut self, part: &Part) {
        self.0.remove(&part.transfer.stamp);
    }
}
