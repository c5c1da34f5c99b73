//! Snapshots for a follower whose next entry the leader no longer has.
//!
//! The leader's side is in `ready.rs` ([`crate::Effect::SendSnapshot`]) and here the report of its
//! end. On the follower's side a whole snapshot is staged before raft hears of it; once raft has
//! agreed that it is news, it replaces the range's data in one step that is whole or not at all,
//! durable before the log is reset behind it. [`crate::raft_log::RaftLog::open`] mends the log after
//! a crash between the two.

use std::sync::Arc;

use prost::Message as _;
use raft::SnapshotStatus;
use raft::eraftpb::{Message, Snapshot, SnapshotMetadata};
use rangedb_proto::v1::{RangeDescriptor, RangeState, Replica, SnapshotMeta};
use rangedb_proto::{RangeDescriptorExt, ReplicaId};
use rangedb_storage::{ColumnFamily, Install, LogChange, Result, StagedSnapshot, WriteBatch, keys};

use super::Peer;
use crate::membership::{are_sound, conf_state, same_members};
use crate::pass::Pass;
use crate::raft_log::{Position, SNAPSHOT_FORMAT_VERSION};

/// A staged snapshot with the descriptor that goes with it.
pub(crate) struct StagedIn {
    index: u64,
    pub(super) staged: StagedSnapshot,
    descriptor: RangeDescriptor,
}

impl Peer {
    /// Offers a staged snapshot to raft. Staged records that are of no use are thrown away.
    pub fn on_snapshot_received(
        &mut self,
        from: Replica,
        message: Message,
        staged: StagedSnapshot,
        pass: &mut Pass<'_>,
    ) -> Result<()> {
        let snapshot = message.get_snapshot();
        let index = snapshot.get_metadata().index;
        let descriptor = SnapshotMeta::decode(&snapshot.data[..])
            .ok()
            .filter(|meta| meta.format_version == SNAPSHOT_FORMAT_VERSION)
            .and_then(|meta| meta.descriptor)
            .filter(|descriptor| self.may_become(descriptor, snapshot.get_metadata()));
        let (Some(descriptor), None) = (descriptor, &self.staged) else {
            return pass.state.discard(staged);
        };
        if !self.is_credible(&message) {
            return pass.state.discard(staged);
        }
        if message.term >= self.term() {
            self.leaderless_ticks = 0;
        }
        self.hear(from);
        self.step_raft(message);
        let taken = self.raw.snap().is_some_and(|snap| snap.get_metadata().index == index);
        if !taken {
            return pass.state.discard(staged);
        }
        self.staged = Some(StagedIn { index, staged, descriptor });
        Ok(())
    }

    /// Whether a snapshot's descriptor can be this range's, says what raft is told, and has a part for
    /// this replica.
    fn may_become(&self, descriptor: &RangeDescriptor, metadata: &SnapshotMetadata) -> bool {
        let (start, end) = (&descriptor.start_key, &descriptor.end_key);
        descriptor.range_id == self.range.0
            && (end.is_empty() || start < end)
            && descriptor.replica(self.me.replica_id).is_some()
            && are_sound(&descriptor.replicas, descriptor.next_replica_id)
            && same_members(metadata.get_conf_state(), &conf_state(descriptor))
            && metadata.get_conf_state().auto_leave == descriptor.in_joint_change()
            && metadata.get_conf_state().learners_next.is_empty()
    }

    /// Replaces the range's data by the snapshot that raft hands back. Returns the log's changes.
    pub(super) fn install(
        &mut self,
        snapshot: &Snapshot,
        pass: &mut Pass<'_>,
    ) -> Result<Vec<LogChange>> {
        let metadata = snapshot.get_metadata();
        let at = Position { index: metadata.index, term: metadata.term };
        let staged = self.staged.take().filter(|staged| staged.index == at.index);
        let staged = staged.unwrap_or_else(|| {
            panic!("range {}: raft took a snapshot at {} that was not staged", self.range, at.index)
        });
        // What this pass applied before must not be written over the snapshot afterwards.
        pass.write_state()?;

        let mut answers = self.give_up_in_flight();
        answers.extend(self.fail_operation());
        for answer in answers {
            pass.answer(answer);
        }
        let state = RangeState {
            descriptor: Some(staged.descriptor.clone()),
            applied_index: at.index,
            applied_term: at.term,
            snapshot_index: at.index,
            replica_id: self.me.replica_id,
        };
        let mut meta = WriteBatch::default();
        meta.put(ColumnFamily::Meta, keys::range_state(self.range.0), state.encode_to_vec());
        let span = keys::data_span(&staged.descriptor.start_key, &staged.descriptor.end_key);
        #[cfg(feature = "planted")]
        let (meta, late) = match rangedb_planted::Bug::InstallNotAtomic.is_planted() {
            true => (WriteBatch::default(), meta),
            false => (meta, WriteBatch::default()),
        };
        pass.state.install(Install { staged: staged.staged, span, meta })?;
        #[cfg(feature = "planted")]
        pass.state.write(late)?;

        if let Some(me) = staged.descriptor.replica(self.me.replica_id) {
            self.me = *me;
        }
        let log = self.log();
        log.descriptor = Arc::new(staged.descriptor);
        log.applied = at;
        log.snapshot_index = at.index;
        let changes = log.reset(at);
        #[cfg(feature = "planted")]
        if rangedb_planted::Bug::MachineNotReloaded.is_planted() {
            return Ok(changes);
        }
        self.load_machine(pass.state)?;
        Ok(changes)
    }

    /// Whether a snapshot is installed and the log's reset behind it not yet durable. Until then raft
    /// may not stand for election: it would look through its log for entries that it takes for
    /// unapplied, and they are gone.
    pub(super) fn is_installing(&self) -> bool {
        self.raw.raft.raft_log.applied() < self.applied().index
    }

    /// Tells raft that the snapshot is applied, once raft knows that it is durable.
    pub(super) fn finish_install(&mut self) {
        let applied = self.applied().index;
        if self.is_installing() && self.raw.raft.raft_log.persisted >= applied {
            self.raw.advance_apply_to(applied);
        }
    }

    /// What became of a snapshot that this replica sent while it led, perhaps in an earlier term: then
    /// raft waits for none, and does not listen.
    pub fn on_snapshot_sent(&mut self, to: ReplicaId, index: u64, delivered: bool) {
        if self.log().outgoing().end(to.0, index) {
            self.report_snapshot(to.0, delivered);
        }
    }

    pub(super) fn report_snapshot(&mut self, to: u64, delivered: bool) {
        let status = if delivered { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raw.report_snapshot(to, status);
        self.rejitter();
    }
}
