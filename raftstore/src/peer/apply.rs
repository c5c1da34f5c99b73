//! Committed entries on their way to the applier, and the applier's reports.
//!
//! Raft commits an entry here; [`crate::Applier`] evaluates it. Between the two, the store knows
//! the entry as committed and not as applied: reads that must see it wait, and a membership change
//! in it has no effect on raft. The amount in between is bounded. Beyond the bound a leader accepts
//! no command and a follower accepts no entry. To the leader, a refused message looks lost.

use raft::eraftpb::Entry;
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{RangeDescriptor, ReplicaRole};
use rangedb_storage::{Error as StorageError, Result};

use super::Peer;
use crate::Io;
use crate::apply::{AppliedMembership, ApplyEntry, ApplyTask};
use crate::entry_cache::entry_bytes;
use crate::membership::{conf_state, same_members};
use crate::pass::Pass;
use crate::position::Position;

/// Most bytes of committed entries of one range that are not applied. Several full entries, so that
/// the applier always has the next one; few enough that many ranges fit in memory.
const UNAPPLIED_BYTES_MAX: usize = 16 << 20;

/// Most records that unanswered commands of one range may touch, by their leader's estimate: about
/// a second of work. Beyond that the leader refuses commands, which clients may retry.
pub(super) const UNANSWERED_COST_MAX: u64 = 1 << 19;

/// Entries handed to the applier and not yet reported as applied.
struct Unapplied {
    last_index: u64,
    bytes: usize,
    cost: u64,
}

/// Entries between raft and the applier.
#[derive(Default)]
pub(super) struct InApply {
    tasks: std::collections::VecDeque<Unapplied>,
    bytes: usize,
    cost: u64,
}

impl InApply {
    fn push(&mut self, task: Unapplied) {
        self.bytes += task.bytes;
        self.cost += task.cost;
        self.tasks.push_back(task);
    }

    /// Removes entries up to `index`: they are applied, or a snapshot replaced them.
    pub fn pop(&mut self, index: u64) {
        while self.tasks.front().is_some_and(|task| task.last_index <= index) {
            let task = self.tasks.pop_front().expect("just seen");
            self.bytes -= task.bytes;
            self.cost -= task.cost;
        }
    }

    pub fn is_full(&self) -> bool {
        self.bytes >= UNAPPLIED_BYTES_MAX
    }

    pub fn cost(&self) -> u64 {
        self.cost
    }
}

impl Peer {
    /// Hands committed entries to the applier, with the requests that wait for them. A quorum has
    /// accepted each entry proposed here since its proposal, which renews the lease.
    pub(super) fn hand_to_applier(&mut self, committed: Vec<Entry>, pass: &mut Pass) {
        let Some(last_index) = committed.last().map(|entry| entry.index) else { return };
        let bytes = committed.iter().map(entry_bytes).sum();
        let mut cost = 0;
        let mut entries = Vec::with_capacity(committed.len());
        for entry in committed {
            let (proposed, replaced) = self.take_proposed(entry.index, entry.term);
            for answer in replaced {
                pass.answer(answer);
            }
            let mut requests = Vec::new();
            if let Some(proposed) = proposed {
                self.renew_lease(entry.term, proposed.at, pass.now);
                requests = proposed.requests;
                cost += proposed.cost;
            }
            entries.push(ApplyEntry { entry, requests });
        }
        self.in_apply.push(Unapplied { last_index, bytes, cost });
        let replica = self.reference();
        pass.io(Io::Apply(ApplyTask::Entries { replica, entries }));
    }

    /// Handles a report that entries up to `applied` are applied. The last one may change the
    /// membership.
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupt`] if raft knows other members than the descriptor names.
    pub fn on_applied(
        &mut self,
        applied: Position,
        membership: Option<AppliedMembership>,
        pass: &mut Pass,
    ) -> Result<()> {
        self.in_apply.pop(applied.index);
        // Raft has accepted a newer snapshot, and uses that snapshot's members already.
        let is_superseded = self.awaits_install();
        if let Some(AppliedMembership { index, term, change }) = membership {
            let result = match change {
                None => Err(self.stale_epoch()),
                Some((_, after)) if is_superseded => {
                    drop(after);
                    Ok(bytes::Bytes::new())
                }
                Some((change, after)) => {
                    let conf = self.raw.apply_conf_change(&change).map_err(|e| {
                        let range = self.range;
                        StorageError::corrupt(format!("raft refuses a change of {range}: {e}"))
                    })?;
                    let expected = conf_state(&after);
                    if !same_members(&conf, &expected) {
                        let range = self.range;
                        return Err(StorageError::corrupt(format!(
                            "{conf:?}, and {expected:?} in the descriptor of {range}"
                        )));
                    }
                    self.adopt(*after, index, pass);
                    Ok(bytes::Bytes::new())
                }
            };
            self.answer_operation(index, term, result, pass);
        }
        self.refuse_replaced_operation(applied.index, pass);
        if is_superseded {
            return Ok(());
        }
        self.storage_mut().on_applied(applied);
        let in_log = self.raw.raft.raft_log.last_index();
        self.raw.advance_apply_to(applied.index);
        self.step_down_if_no_member();
        if self.is_raft_leader() && self.raw.raft.raft_log.last_index() > in_log {
            // raft-rs appended the entry that leaves the joint configuration, and would send it
            // only with the next heartbeat.
            self.raw.raft.bcast_append();
        }
        self.rejitter();
        Ok(())
    }

    /// Takes on the descriptor that a membership change at `index` leads to.
    fn adopt(&mut self, after: RangeDescriptor, index: u64, pass: &mut Pass) {
        let before = self.descriptor().clone();
        self.heard.retain(|id, _| after.replica(*id).is_some());
        self.storage_mut().descriptor = std::sync::Arc::new(after);
        self.membership_index = index;
        match self.descriptor().replica(self.me.replica_id).copied() {
            Some(me) => self.me = me,
            // A learner decides nothing. A removed voter may still be needed: see `departure.rs`.
            None if self.me.role() == ReplicaRole::Learner => {
                pass.removed.insert(self.range);
            }
            None => {}
        }
        self.note_departures(&before.replicas);
    }
}
