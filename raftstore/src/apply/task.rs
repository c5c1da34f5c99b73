//! Tasks and effects of an applier.

use prost::Message as _;
use raft::eraftpb::{ConfChangeV2, Entry};
use rangedb_proto::v1::{RangeDescriptor, RangeState};
use rangedb_proto::{RangeId, ReplicaId};
use rangedb_storage::{ColumnFamily, Span, StagedSnapshot, WriteBatch, keys};

use crate::position::Position;
use crate::{Error, Event, RequestId};

/// One replica of one range. The range may have another replica here later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ReplicaRef {
    pub range: RangeId,
    pub id: ReplicaId,
}

/// A committed entry, with the requests that wait for its commands: one for each, in their order.
/// Empty where another node proposed the entry.
#[derive(Clone, Debug)]
pub struct ApplyEntry {
    pub entry: Entry,
    pub requests: Vec<RequestId>,
}

/// Work for an [`crate::Applier`].
#[derive(Debug)]
pub enum ApplyTask {
    /// Committed entries with consecutive indexes.
    Entries {
        replica: ReplicaRef,
        entries: Vec<ApplyEntry>,
    },
    /// Skip the entry at which the replica is quarantined: an operator declared it without effect.
    SkipEntry {
        replica: ReplicaRef,
        index: u64,
        request: RequestId,
    },
    Install(SnapshotInstall),
    /// Remove all stored state of the replica and leave a tombstone.
    Destroy {
        replica: ReplicaRef,
    },
    /// Delete a staged snapshot that is of no use.
    Discard {
        replica: ReplicaRef,
        staged: StagedSnapshot,
    },
}

impl ApplyTask {
    pub fn range(&self) -> RangeId {
        match self {
            ApplyTask::Entries { replica, .. }
            | ApplyTask::SkipEntry { replica, .. }
            | ApplyTask::Destroy { replica }
            | ApplyTask::Discard { replica, .. } => replica.range,
            ApplyTask::Install(install) => install.replica.range,
        }
    }
}

/// A staged snapshot that replaces a range's data.
#[derive(Debug)]
pub struct SnapshotInstall {
    pub replica: ReplicaRef,
    pub staged: StagedSnapshot,
    pub descriptor: RangeDescriptor,
    pub(crate) at: Position,
}

impl SnapshotInstall {
    pub(crate) fn range_state(&self) -> RangeState {
        RangeState {
            descriptor: Some(self.descriptor.clone()),
            applied_index: self.at.index,
            applied_term: self.at.term,
            snapshot_index: self.at.index,
            replica_id: self.replica.id.0,
        }
    }

    pub(crate) fn range_state_write(&self) -> WriteBatch {
        let mut batch = WriteBatch::default();
        let key = keys::range_state(self.replica.range.0);
        batch.put(ColumnFamily::Meta, key, self.range_state().encode_to_vec());
        batch
    }

    pub(crate) fn span(&self) -> Span {
        keys::data_span(&self.descriptor.start_key, &self.descriptor.end_key)
    }
}

/// An applied membership change, to be reported to raft.
#[derive(Clone, Debug)]
pub struct AppliedMembership {
    pub index: u64,
    pub term: u64,
    /// `None` if the change was proposed under another epoch: it has no effect.
    pub change: Option<(ConfChangeV2, Box<RangeDescriptor>)>,
}

/// Quarantine of a replica, which then applies no entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quarantine {
    pub cause: QuarantineCause,
    /// The entry that cannot be applied, or the last entry left in a log that has lost entries.
    pub index: u64,
    /// Explanation for operators.
    pub reason: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QuarantineCause {
    /// This version cannot apply an entry. The log itself is sound.
    Entry,
    /// The log has lost entries that the replica had acknowledged.
    LostEntries,
}

/// Effects of an [`crate::Applier`], to be carried out in order.
#[derive(Debug)]
pub enum ApplyEffect {
    /// Answer to a request. `Ok` means that the command is durable on a quorum and applied here.
    Reply { request: RequestId, result: Result<bytes::Bytes, Error> },
    /// An event for the applier's store. Must not be lost.
    Event(Event),
    /// Flush the state engine, then call [`crate::Applier::on_flushed`].
    Flush { flush: u64 },
}
