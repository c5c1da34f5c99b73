//! Snapshots for a follower whose next entry the leader no longer has.
//!
//! On the leader, `ready.rs` begins the stream ([`crate::Io::SendSnapshot`]), and this file
//! handles the report of its end. On the follower, the whole snapshot is staged before raft hears
//! of it. Then:
//!
//! 1. Raft accepts the snapshot as news. The applier replaces the range's data in one atomic,
//!    durable step.
//! 2. The store hears of it ([`crate::Event::Installed`]). Only now do the log's reset, and all
//!    writes of this replica since, go to the log writer.
//! 3. Once these are durable, raft counts the snapshot as applied.
//!
//! [`crate::peer_storage::PeerStorage::open`] repairs the log after a crash between 1 and 2.

use std::sync::Arc;

use prost::Message as _;
use raft::SnapshotStatus;
use raft::eraftpb::{Message, Snapshot, SnapshotMetadata};
use rangedb_proto::v1::{RangeDescriptor, Replica, SnapshotMeta};
use rangedb_proto::{RangeDescriptorExt, ReplicaId};
use rangedb_storage::{LogChange, StagedSnapshot};

use super::{Peer, Persisting, SenderState};
use crate::Io;
use crate::apply::{ApplyTask, SnapshotInstall};
use crate::membership::{are_sound, conf_state, same_members};
use crate::pass::Pass;
use crate::peer_storage::SNAPSHOT_FORMAT_VERSION;
use crate::position::Position;

/// A staged snapshot with its descriptor.
pub(crate) struct StagedIn {
    index: u64,
    pub(super) staged: StagedSnapshot,
    descriptor: RangeDescriptor,
}

/// A snapshot that the applier is installing, with the readies that must not be written before.
pub(super) struct Installing {
    at: Position,
    readies: Vec<(Persisting, Vec<LogChange>)>,
}

impl Peer {
    /// Offers a staged snapshot to raft. Discards staged records that are of no use.
    pub fn on_snapshot_received(
        &mut self,
        from: Replica,
        said: SenderState,
        message: Message,
        staged: StagedSnapshot,
        pass: &mut Pass,
    ) {
        let snapshot = message.get_snapshot();
        let index = snapshot.get_metadata().index;
        let descriptor = SnapshotMeta::decode(&snapshot.data[..])
            .ok()
            .filter(|meta| meta.format_version == SNAPSHOT_FORMAT_VERSION)
            .and_then(|meta| meta.descriptor)
            .filter(|descriptor| self.may_become(descriptor, snapshot.get_metadata()));
        let Some(descriptor) = descriptor.filter(|_| !self.awaits_install()) else {
            return self.discard(staged, pass);
        };
        if !self.is_credible(&message) || self.has_lost_entries() {
            return self.discard(staged, pass);
        }
        if message.term >= self.term() {
            self.leaderless_ticks = 0;
        }
        self.hear(from, said);
        self.step_raft(message);
        let taken = self.raw.snap().is_some_and(|snap| snap.get_metadata().index == index);
        if !taken {
            return self.discard(staged, pass);
        }
        self.staged = Some(StagedIn { index, staged, descriptor });
    }

    fn discard(&self, staged: StagedSnapshot, pass: &mut Pass) {
        let replica = self.reference();
        pass.io(Io::Apply(ApplyTask::Discard { replica, staged }));
    }

    /// True if a snapshot's descriptor can be this range's, agrees with the metadata for raft, and
    /// lists this replica.
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

    /// Has the applier replace the range's data by the snapshot that raft accepted. Returns the
    /// log's changes, which wait for the installation.
    pub(super) fn install(&mut self, snapshot: &Snapshot, pass: &mut Pass) -> Vec<LogChange> {
        let metadata = snapshot.get_metadata();
        let at = Position { index: metadata.index, term: metadata.term };
        let staged = self.staged.take().filter(|staged| staged.index == at.index);
        let StagedIn { staged, descriptor, .. } = staged.unwrap_or_else(|| {
            panic!("range {}: raft took a snapshot at {} that was not staged", self.range, at.index)
        });
        let replica = self.reference();
        let install = SnapshotInstall { replica, staged, descriptor, at };
        pass.io(Io::Apply(ApplyTask::Install(install)));
        self.installing = Some(Installing { at, readies: Vec::new() });
        self.storage_mut().reset(at)
    }

    /// Holds a ready's writes until the snapshot before it is installed. Returns them if none is
    /// being installed.
    pub(super) fn hold_behind_install(
        &mut self,
        ready: Persisting,
        changes: Vec<LogChange>,
    ) -> Option<(Persisting, Vec<LogChange>)> {
        let Some(installing) = &mut self.installing else { return Some((ready, changes)) };
        installing.readies.push((ready, changes));
        None
    }

    /// Continues from a snapshot that is now durably installed.
    pub fn on_installed(&mut self, descriptor: RangeDescriptor, pass: &mut Pass) {
        let Some(Installing { at, readies }) = self.installing.take() else { return };
        self.end_quarantine();
        // The applier never reports entries that a quarantine held back.
        self.in_apply.pop(at.index);
        let mut answers = self.give_up_in_flight();
        answers.extend(self.fail_operation());
        for answer in answers {
            pass.answer(answer);
        }
        if let Some(me) = descriptor.replica(self.me.replica_id) {
            self.me = *me;
        }
        let log = self.storage_mut();
        log.descriptor = Arc::new(descriptor);
        log.snapshot_index = at.index;
        log.on_applied(at);
        for (ready, changes) in readies {
            self.write_ready(ready, changes, pass);
        }
    }

    /// True if raft has accepted a snapshot that is not installed yet. The members known to raft
    /// are the snapshot's already.
    pub(super) fn awaits_install(&self) -> bool {
        self.staged.is_some() || self.installing.is_some()
    }

    /// True while a snapshot is being installed, or the log's reset behind it is not yet durable.
    /// Until then raft may not stand for election: it would search its log for entries that it
    /// takes for unapplied, and they are gone.
    pub(super) fn is_installing(&self) -> bool {
        self.installing.is_some() || self.raw.raft.raft_log.applied() < self.applied().index
    }

    /// Tells raft that the snapshot is applied, once raft knows that it is durable.
    pub(super) fn finish_install(&mut self) {
        let applied = self.applied().index;
        if self.is_installing() && self.raw.raft.raft_log.persisted >= applied {
            self.raw.advance_apply_to(applied);
        }
    }

    /// Handles the end of a snapshot stream. This replica may have begun it as the leader of an
    /// earlier term: then raft expects no report and ignores it.
    pub fn on_snapshot_sent(&mut self, to: ReplicaId, index: u64, delivered: bool) {
        if self.storage_mut().outgoing().end(to.0, index) {
            self.report_snapshot(to.0, delivered);
        }
    }

    pub(super) fn report_snapshot(&mut self, to: u64, delivered: bool) {
        let status = if delivered { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raw.report_snapshot(to, status);
        self.rejitter();
    }
}
