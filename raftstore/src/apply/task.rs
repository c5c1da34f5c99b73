//! Tasks of an applier, and its effects.

use prost::Message as _;
use raft::eraftpb::{ConfChangeV2, Entry};
use rangedb_proto::v1::{RangeDescriptor, RangeState};
use rangedb_proto::{RangeId, ReplicaId};
use rangedb_storage::{ColumnFamily, Span, StagedSnapshot, WriteBatch, keys};

use crate::position::Position;
use crate::{Error, Event, RequestId};

/// One replica of one range: a range may have another one here later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ReplicaRef {
    pub range: RangeId,
    pub id: ReplicaId,
}

/// A committed entry, with the requests that wait for its commands, one each and in their order. None
/// wait where another node proposed it.
#[derive(Clone, Debug)]
pub struct ApplyEntry {
    pub entry: Entry,
    pub requests: Vec<RequestId>,
}

/// Work for an [`crate::Applier`].
#[derive(Debug)]
pub enum ApplyTask {
    /// Committed entries, each the next behind the one before.
    Entries {
        replica: ReplicaRef,
        entries: Vec<ApplyEntry>,
    },
    /// An operator's word that the entry at which a replica is quarantined has no effect.
    SkipEntry {
        replica: ReplicaRef,
        index: u64,
        request: RequestId,
    },
    Install(SnapshotInstall),
    /// Remove all that is stored of the replica, and leave a tombstone.
    Destroy {
        replica: ReplicaRef,
    },
    /// A staged snapshot that is of no use.
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

/// A staged snapshot that takes the place of a range's data.
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

    pub(crate) fn installed(&self) -> Event {
        Event::Installed { replica: self.replica, descriptor: Box::new(self.descriptor.clone()) }
    }
}

/// A membership change that was applied: raft takes it on next.
#[derive(Clone, Debug)]
pub struct AppliedMembership {
    pub index: u64,
    pub term: u64,
    /// `None` if the change was proposed under another epoch: it has no effect.
    pub change: Option<(ConfChangeV2, Box<RangeDescriptor>)>,
}

/// Reason why a replica stands still.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quarantine {
    pub cause: QuarantineCause,
    /// The entry that cannot be applied, or the last one that is left.
    pub index: u64,
    /// For people.
    pub reason: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QuarantineCause {
    /// This version cannot apply an entry. What the log holds is good.
    Entry,
    /// The log has lost entries that the replica had acknowledged.
    LostEntries,
}

/// Effects of an [`crate::Applier`], to be carried out in order.
#[derive(Debug)]
pub enum ApplyEffect {
    /// The command is durable on a quorum and applied here.
    Reply { request: RequestId, result: Result<bytes::Bytes, Error> },
    /// For the applier's store. Not lost.
    Event(Event),
    /// Flush the state engine, then say so by [`crate::Applier::on_flushed`].
    Flush { flush: u64 },
}
