//! Committed entries to state: commands through the machine, membership changes to the descriptor.
//! The applied index goes into the same batch as what it describes.

use std::sync::Arc;

use prost::Message;
use raft::eraftpb::{Entry, EntryType};
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{LogEntry, MembershipChange, RangeDescriptor, RangeState, ReplicaRole};
use rangedb_storage::{ApplyContext, ColumnFamily, Error as StorageError, Result, keys};

use super::{Leading, Peer};
use crate::membership::{conf_state, replicas_after_joint, same_members};
use crate::pass::Pass;
use crate::raft_log::Position;
use crate::{Effect, FEATURE_LEVEL, eraft};

impl Peer {
    pub(super) fn apply(&mut self, entries: Vec<Entry>, pass: &mut Pass<'_>) -> Result<()> {
        let Some(last) = entries.last().map(|e| Position { index: e.index, term: e.term }) else {
            return Ok(());
        };
        for entry in entries {
            let applied = self.applied();
            assert!(
                entry.index == applied.index + 1,
                "range {}: entry {} follows applied entry {}",
                self.range,
                entry.index,
                applied.index
            );
            match entry.get_entry_type() {
                EntryType::EntryNormal if entry.data.is_empty() => {
                    self.on_applied_empty(&entry, pass)
                }
                EntryType::EntryNormal => self.apply_commands(&entry, pass)?,
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                    self.apply_membership(&entry, pass)?;
                }
            }
            self.log().applied = Position { index: entry.index, term: entry.term };
            // An operation whose place in the log went to another entry was not taken.
            let refused = Err(self.not_leader());
            self.answer_operation(entry.index, 0, refused, pass);
        }
        let state = self.range_state();
        #[cfg(feature = "planted")]
        if rangedb_planted::Bug::AppliedIndexOutsideBatch.is_planted() {
            let mut alone = rangedb_storage::WriteBatch::default();
            let key = keys::range_state(self.range.0);
            alone.put(ColumnFamily::Meta, key, state.encode_to_vec());
            pass.state.write(alone)?;
        }
        pass.batch.put(ColumnFamily::Meta, keys::range_state(self.range.0), state.encode_to_vec());
        let in_log = self.raw.raft.raft_log.last_index();
        self.raw.advance_apply_to(last.index);
        self.step_down_if_no_member();
        if self.is_raft_leader() && self.raw.raft.raft_log.last_index() > in_log {
            // raft-rs appended the step out of the joint configuration, and would send it only with
            // the next heartbeat.
            self.raw.raft.bcast_append();
        }
        Ok(())
    }

    /// raft-rs notes what a leader has persisted and committed in its progress, and panics where one
    /// that left has none: it may do neither with entries behind its leave. The members elect another
    /// leader, and may have this one's vote for it. Without such entries it goes on leading until a
    /// majority knows that it left, as they elect nobody before.
    fn step_down_if_no_member(&mut self) {
        let is_member = self.raw.raft.prs().get(self.me.replica_id).is_some();
        let has_more = self.raw.raft.raft_log.last_index() > self.applied().index;
        if self.is_raft_leader() && !is_member && has_more {
            let term = self.term();
            self.raw.raft.become_follower(term, raft::INVALID_ID);
        }
    }

    pub(super) fn range_state(&self) -> RangeState {
        let applied = self.applied();
        RangeState {
            descriptor: Some((**self.descriptor()).clone()),
            applied_index: applied.index,
            applied_term: applied.term,
            snapshot_index: self.raw.store().snapshot_index,
            replica_id: self.me.replica_id,
        }
    }

    /// The first entry of a leader, or one that raft made of a change it did not allow.
    fn on_applied_empty(&mut self, entry: &Entry, pass: &mut Pass<'_>) {
        self.answer_proposed(entry, Vec::new(), pass);
    }

    fn apply_commands(&mut self, entry: &Entry, pass: &mut Pass<'_>) -> Result<()> {
        let log_entry = LogEntry::decode(entry.data.clone()).map_err(|e| {
            StorageError::corrupt(format!("entry {} of {}: {e}", entry.index, self.range))
        })?;
        if log_entry.feature_level > FEATURE_LEVEL {
            return Err(StorageError::Refused(format!(
                "entry {} of range {} has feature level {}, this version knows {FEATURE_LEVEL}: \
                 upgrade this node",
                entry.index, self.range, log_entry.feature_level
            )));
        }
        let descriptor = self.descriptor().clone();
        let mut results = Vec::with_capacity(log_entry.commands.len());
        if log_entry.epoch.unwrap_or_default().version != descriptor.epoch().version {
            results.resize_with(log_entry.commands.len(), || Err(self.stale_epoch()));
        } else {
            let context = ApplyContext {
                start_key: &descriptor.start_key,
                end_key: &descriptor.end_key,
                fence: log_entry.fence,
                index: entry.index,
            };
            for command in &log_entry.commands {
                results.push(Ok(self.machine.apply(&context, command, &mut pass.batch)?));
            }
        }
        self.answer_proposed(entry, results, pass);
        Ok(())
    }

    /// Answers whoever proposed the entry here, and renews the lease: a quorum took it in after it
    /// was proposed.
    fn answer_proposed(
        &mut self,
        entry: &Entry,
        results: Vec<std::result::Result<bytes::Bytes, crate::Error>>,
        pass: &mut Pass<'_>,
    ) {
        let (proposed, replaced) = self.take_proposed(entry.index, entry.term);
        for answer in replaced {
            pass.answer(answer);
        }
        let Some(proposed) = proposed else { return };
        let lasts_us = self.config.lease_us();
        let sent = proposed.at;
        #[cfg(feature = "planted")]
        let sent = match rangedb_planted::Bug::LeaseFromResponse.is_planted() {
            true => pass.now,
            false => sent,
        };
        if let Some(leading) = self.leading.as_mut().filter(|l| l.term == entry.term) {
            leading.lease.renew(sent, lasts_us);
        }
        if results.is_empty() {
            // Nobody proposes commands in an entry without any.
            assert!(proposed.requests.is_empty(), "range {}: commands went missing", self.range);
            return;
        }
        assert_eq!(proposed.requests.len(), results.len(), "range {}: a reply each", self.range);
        for answer in proposed.requests.into_iter().zip(results) {
            pass.answer(answer);
        }
    }

    fn apply_membership(&mut self, entry: &Entry, pass: &mut Pass<'_>) -> Result<()> {
        let corrupt =
            |what: String| StorageError::corrupt(format!("entry {}: {what}", entry.index));
        let change = eraft::decode_conf_change(&entry.data)
            .ok_or_else(|| corrupt("not a configuration change".into()))?;
        let before = self.descriptor().clone();
        let mut after = (*before).clone();
        if entry.data.is_empty() {
            after.replicas = replicas_after_joint(&before.replicas);
        } else {
            let wanted = MembershipChange::decode(entry.context.clone())
                .map_err(|_| corrupt("not a membership change".into()))?;
            if wanted.epoch != before.epoch {
                self.answer_operation(entry.index, entry.term, Err(self.stale_epoch()), pass);
                self.answer_proposed(entry, Vec::new(), pass);
                return Ok(());
            }
            after.replicas = wanted.replicas;
            after.next_replica_id = wanted.next_replica_id;
        }
        let mut epoch = before.epoch();
        epoch.conf_ver += 1;
        after.epoch = Some(epoch);
        // Whoever proposed it had checked it against the descriptor, which is the same everywhere.
        let conf = self.raw.apply_conf_change(&change).map_err(|e| {
            corrupt(format!("raft refuses the membership change of {}: {e}", self.range))
        })?;
        let expected = conf_state(&after);
        if !same_members(&conf, &expected) {
            let range = self.range;
            return Err(corrupt(format!(
                "{conf:?}, and {expected:?} in the descriptor of {range}"
            )));
        }
        self.adopt(after, entry.index, pass);
        self.answer_operation(entry.index, entry.term, Ok(bytes::Bytes::new()), pass);
        self.answer_proposed(entry, Vec::new(), pass);
        Ok(())
    }

    /// Takes on the descriptor that a membership change at `index` leads to.
    fn adopt(&mut self, after: RangeDescriptor, index: u64, pass: &mut Pass<'_>) {
        let before = self.descriptor().clone();
        pass.structural = true;
        self.heard.retain(|id, _| after.replica(*id).is_some());
        self.log().descriptor = Arc::new(after);
        self.membership_index = index;
        match self.descriptor().replica(self.me.replica_id).copied() {
            Some(me) => self.me = me,
            // A learner decides nothing. A voter may still be needed: see `departure.rs`.
            None if self.me.role() == ReplicaRole::Learner => {
                pass.removed.insert(self.range);
            }
            None => {}
        }
        self.note_departures(&before.replicas);
    }

    /// Follows raft's role, and reports it once it can be acted upon.
    pub fn note_role(&mut self, pass: &mut Pass<'_>) {
        let term = self.term();
        let leads = self.is_raft_leader() && !self.has_departed();
        if self.leading.as_ref().is_some_and(|leading| !leads || leading.term != term) {
            self.leading = None;
            pass.effects.push(Effect::SteppedDown { range: self.range });
            let error = self.not_leader();
            let mut answers = self.refuse_waiting(&error);
            answers.extend(self.refuse_reads(&error));
            for answer in answers {
                pass.answer(answer);
            }
        }
        if leads && self.leading.is_none() {
            self.leading = Some(Leading {
                term,
                ready: false,
                fence: None,
                highest_read: 0,
                lease: Default::default(),
            });
        }
        let applied_term = self.applied().term;
        if let Some(leading) = self.leading.as_mut().filter(|l| !l.ready && applied_term == l.term)
        {
            leading.ready = true;
            pass.effects.push(Effect::NeedFence { range: self.range, term });
        }
    }

    /// The oracle answered.
    pub fn on_fenced(&mut self, term: u64, timestamp: u64) {
        if let Some(leading) = self.leading.as_mut().filter(|leading| leading.term == term) {
            leading.fence = leading.fence.max(Some(timestamp));
        }
    }
}
