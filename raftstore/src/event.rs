//! Events: the only inputs of a [`crate::Store`].

use bytes::Bytes;
use rangedb_proto::v1::{Epoch, RaftEnvelope, RangeDescriptor, RangeOperation};
use rangedb_proto::{NodeId, RangeId, ReplicaId, Timestamp};
use rangedb_storage::{RangeSize, StagedSnapshot};

use crate::Room;
#[cfg(doc)]
use crate::apply::ApplyTask;
use crate::apply::{AppliedMembership, Quarantine, ReplicaRef};
#[cfg(doc)]
use crate::effect::{Answer, Io, RoleChange};

/// Microseconds on the node's monotonic clock since some fixed moment. Only leases use these times,
/// and they compare only times of one node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Monotonic(pub u64);

/// Request id chosen by the caller. [`Answer`] and [`crate::ApplyEffect::Reply`] carry it back.
pub type RequestId = u64;

/// Range id and epoch as the sender of a request knows them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RangeRef {
    pub id: RangeId,
    /// Requests check only the version: a membership change does not move keys.
    pub epoch: Epoch,
}

/// Point in time that a read sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadMode {
    /// The newest committed value.
    Latest,
    /// Everything that committed at or before this timestamp. No later commit gets such a
    /// timestamp.
    Snapshot(Timestamp),
}

#[derive(Clone, Debug)]
pub enum Event {
    /// One unit of time passed: the only notion of time in raft itself. Never sent in a burst to
    /// make up for lost ones, or a follower would forget its leader sooner than the leader's lease
    /// allows.
    Tick,
    /// A message from another node. May be late, repeated, reordered or lost.
    Message(RaftEnvelope),
    /// Replicate a command. Always answered once, by [`Answer::Reply`] or the applier's
    /// [`crate::ApplyEffect::Reply`], unless the process ends.
    Propose {
        request: RequestId,
        range: RangeRef,
        command: Bytes,
        /// Upper bound on the records that evaluating the command touches.
        cost: u32,
        /// True if the command frees space: accepted while the disk has no room for other commands.
        frees_space: bool,
    },
    /// Read from the range. Answered by [`Answer::Read`].
    Read {
        request: RequestId,
        range: RangeRef,
        at: ReadMode,
        /// True if the lease had run out once the reader was taken: a quorum has to confirm this
        /// time.
        confirm: bool,
    },
    /// A step of the scheduler or of an operator. Answered by [`Answer::Reply`] once it took
    /// effect; a leadership transfer is answered once it has begun.
    Operate { request: RequestId, operation: RangeOperation },
    /// The batch of [`Io::Append`] is durable, and so are all with lower tokens. Must not be
    /// lost.
    Persisted { token: u64 },
    /// The flush requested by [`Io::Flush`] is finished. Must not be lost.
    Flushed { token: u64 },
    /// The entries up to this index are applied and in the state. Must not be lost.
    Applied {
        replica: ReplicaRef,
        index: u64,
        term: u64,
        membership: Option<AppliedMembership>,
        /// Size of the range at this index.
        size: RangeSize,
    },
    /// The snapshot of [`ApplyTask::Install`] is durably installed. Must not be lost.
    Installed { replica: ReplicaRef, descriptor: Box<RangeDescriptor>, size: RangeSize },
    /// The state of the replica of [`ApplyTask::Destroy`] is durably removed; its log is not yet.
    /// Must not be lost.
    Destroyed { replica: ReplicaRef },
    /// The applier cannot apply an entry. Must not be lost.
    Quarantined { replica: ReplicaRef, quarantine: Quarantine },
    /// The entry of [`ApplyTask::SkipEntry`] is durably skipped. Must not be lost.
    QuarantineLifted { replica: ReplicaRef, request: RequestId },
    /// An operator declares that the entry at which this replica is quarantined has no effect.
    /// Answered by [`Answer::Reply`]. Every replica of the range must get this event.
    SkipEntry { request: RequestId, range: RangeId, index: u64 },
    /// A whole snapshot was received and staged.
    SnapshotReceived { envelope: RaftEnvelope, staged: StagedSnapshot },
    /// Result of an [`Io::SendSnapshot`], exactly one for each. Must not be lost: until then
    /// the store sends the replica no other snapshot.
    SnapshotSent { range: RangeId, to: ReplicaId, index: u64, delivered: bool },
    /// Answers [`RoleChange::NeedFence`] with a timestamp that the oracle issued after it was asked.
    Fenced { range: RangeId, term: u64, timestamp: Timestamp },
    /// A descriptor from the control plane, possibly outdated. It does not list the replica on this
    /// node.
    DescriptorHint(RangeDescriptor),
    /// Messages to the given node could not be delivered.
    Unreachable(NodeId),
    /// Current room on the disk. A store neither proposes nor accepts from other leaders an entry
    /// for which there is no room.
    DiskRoom(Room),
    /// True if appends that were handed out long ago are not durable; false once they are. While
    /// true, a leader hands over its range if the other replicas commit without this node, and no
    /// replica of this store stands for election.
    LogStalled(bool),
}
