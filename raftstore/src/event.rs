//! Everything that can reach or leave a [`crate::Store`]. What is not here cannot happen.

use std::sync::Arc;

use bytes::Bytes;
use rangedb_proto::v1::{Epoch, RaftEnvelope, RangeDescriptor, RangeOperation};
use rangedb_proto::{NodeId, RangeId, ReplicaId, Timestamp};
use rangedb_storage::{LogBatch, Reader, Span, StagedSnapshot};

use crate::apply::{AppliedMembership, ApplyTask, Quarantine, ReplicaRef};
use crate::{Error, Room};

/// Microseconds on the node's monotonic clock since some fixed moment. Only leases look at it, and
/// only ever compare moments of one node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Monotonic(pub u64);

/// The caller's name for a request; its [`Effect::Reply`] or [`Effect::ReadReady`] carries it back.
pub type RequestId = u64;

/// A range as the sender of a request believes it to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RangeRef {
    pub id: RangeId,
    /// Requests look at the version alone: membership does not move keys.
    pub epoch: Epoch,
}

/// What a read wants to see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadAt {
    /// The newest committed value.
    Latest,
    /// All that committed at or before this moment, and nothing that commits there later.
    Snapshot(Timestamp),
}

#[derive(Clone, Debug)]
pub enum Event {
    /// One unit of time passed: the only notion of time in raft itself. Never sent in a burst to make
    /// up for lost ones, or a follower would forget its leader sooner than the leader's lease allows.
    Tick,
    /// From another node. May be late, repeated, reordered or lost.
    Message(RaftEnvelope),
    /// Replicate a command. Always answered once, by [`Effect::Reply`] or the applier's
    /// [`crate::ApplyEffect::Reply`], unless the process ends.
    Propose {
        request: RequestId,
        range: RangeRef,
        command: Bytes,
        /// Records that evaluating the command may touch, at the most.
        cost: u32,
        /// The command gives up what is stored: it is taken while the disk has no room for others.
        frees_space: bool,
    },
    /// Answered by [`Effect::ReadReady`], or [`Effect::Reply`] with an error.
    Read {
        request: RequestId,
        range: RangeRef,
        at: ReadAt,
        /// The lease was no longer valid when the reader had been taken: ask a quorum this time.
        confirm: bool,
    },
    /// A step of the scheduler or of an operator. Answered by [`Effect::Reply`] once it took effect
    /// (a transfer: once it was begun).
    Operate { request: RequestId, operation: RangeOperation },
    /// The batch of [`Effect::Append`] is durable, and so are all with lower tokens. Not lost.
    Persisted { token: u64 },
    /// The flush asked for by [`Effect::Flush`] is finished. Not lost.
    Flushed { token: u64 },
    /// Entries up to this one are applied, and in the state. Not lost.
    Applied { replica: ReplicaRef, index: u64, term: u64, membership: Option<AppliedMembership> },
    /// The snapshot of [`ApplyTask::Install`] is the range's state, durably. Not lost.
    Installed { replica: ReplicaRef, descriptor: Box<RangeDescriptor> },
    /// Nothing is stored any more of the replica of [`ApplyTask::Destroy`], durably. Not lost.
    Destroyed { replica: ReplicaRef },
    /// An entry cannot be applied. Not lost.
    Quarantined { replica: ReplicaRef, quarantine: Quarantine },
    /// Answers [`ApplyTask::SkipEntry`]. Not lost.
    QuarantineLifted { replica: ReplicaRef, request: RequestId },
    /// An operator's word that the entry at which the replica here is quarantined has no effect.
    /// Answered by [`Effect::Reply`]. It must be said to every replica of the range.
    SkipEntry { request: RequestId, range: RangeId, index: u64 },
    /// A whole snapshot came in and was staged.
    SnapshotReceived { envelope: RaftEnvelope, staged: StagedSnapshot },
    /// What became of an [`Effect::SendSnapshot`]: said of each once. Not lost, as until then the
    /// replica is sent no other.
    SnapshotSent { range: RangeId, to: ReplicaId, index: u64, delivered: bool },
    /// Answers [`Effect::NeedFence`]: a timestamp that the oracle gave out after it was asked.
    Fenced { range: RangeId, term: u64, timestamp: Timestamp },
    /// A range as the control plane knows it, maybe from long ago: without the replica on this node.
    Elsewhere(RangeDescriptor),
    /// Messages to that node could not be delivered.
    Unreachable(NodeId),
    /// Room on the disk, as it is now. What it has no room for is not proposed, and not taken in
    /// from other leaders.
    DiskRoom(Room),
    /// Appends that were handed out long ago are not durable, or are again. Meanwhile a leader hands
    /// over what others can do without it, and nobody here stands for election.
    LogStalled(bool),
}

pub enum Effect {
    /// May be lost. Sent in the order given, per receiver.
    Send(RaftEnvelope),
    /// Make durable, in order of tokens, then say [`Event::Persisted`].
    Append {
        token: u64,
        batch: LogBatch,
    },
    /// Hand to the shard's [`crate::Applier`], in this order. Not lost.
    Apply(ApplyTask),
    /// Flush the state engine, then say [`Event::Flushed`].
    Flush {
        token: u64,
    },
    Reply {
        request: RequestId,
        result: Result<Bytes, Error>,
    },
    /// The reader shows what the read may see.
    ReadReady {
        request: RequestId,
        reader: Arc<dyn Reader>,
        descriptor: Arc<RangeDescriptor>,
        /// The reader was taken under a lease until then. Whoever performs this effect looks at the
        /// clock afterwards: past that moment (a process may stand still at any point) the reader
        /// may be stale, and the read is stepped again with `confirm`.
        lease_until: Option<Monotonic>,
    },
    /// Stream the span's records to the envelope's receiver, then say [`Event::SnapshotSent`]. They
    /// are the state at the entry `index`.
    SendSnapshot {
        envelope: RaftEnvelope,
        index: u64,
        reader: Arc<dyn Reader>,
        span: Span,
    },
    /// This replica leads and has applied all that earlier leaders committed; it wants a fresh
    /// timestamp before it commits anything.
    NeedFence {
        range: RangeId,
        term: u64,
    },
    /// This replica no longer leads.
    SteppedDown {
        range: RangeId,
    },
}
