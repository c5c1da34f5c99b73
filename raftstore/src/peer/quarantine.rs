//! Quarantine of a replica whose log holds an entry that cannot be applied, or that has lost entries
//! which it had acknowledged.
//!
//! Such a replica does not lead, and answers no requests; the other ranges of the node go on. Its state
//! stays readable by its status ([`crate::RangeStatus::quarantine`]).
//!
//! Before an entry that it cannot apply, a replica still votes and takes entries in, as its log is good:
//! so one that can apply the entry, of a newer version, leads; and if there is none, each of them comes
//! to lead, learns that the entry is committed, and stands there as the others do. Three ways lead out:
//! a version that can apply the entry starts on the data; an operator says that the entry has no effect
//! ([`crate::Event::SkipEntry`]), on every replica; or a snapshot of a leader that went on.
//!
//! A replica that has lost entries says nothing any more: its votes and acknowledgements would be
//! taken for those of one that has them. It has to be replaced.

use super::Peer;
use crate::apply::{ApplyTask, Quarantine, QuarantineCause};
use crate::pass::Pass;
use crate::{Effect, Error, RequestId};

impl Peer {
    pub fn on_quarantined(&mut self, quarantine: Quarantine, pass: &mut Pass) {
        let error = Error::Quarantined { range: self.range, reason: quarantine.reason.clone() };
        self.quarantine = Some(quarantine);
        let term = self.term();
        if self.is_raft_leader() {
            self.raw.raft.become_follower(term, raft::INVALID_ID);
            self.rejitter();
        }
        let mut answers = self.refuse_waiting(&error);
        answers.extend(self.refuse_reads(&error));
        answers.extend(self.give_up_in_flight());
        answers.extend(self.fail_operation());
        for answer in answers {
            pass.answer(answer);
        }
        self.note_role(pass);
    }

    /// An operator's word that the entry at which this replica stands has no effect.
    pub fn skip_entry(&mut self, request: RequestId, index: u64, pass: &mut Pass) {
        if self.has_lost_entries()
            || self.quarantine.as_ref().is_none_or(|quarantine| quarantine.index != index)
        {
            let reason = format!("range {} is not quarantined at entry {index}", self.range);
            pass.answer((request, Err(Error::Refused(reason))));
            return;
        }
        let replica = self.reference();
        pass.effects.push(Effect::Apply(ApplyTask::SkipEntry { replica, index, request }));
    }

    pub fn on_quarantine_lifted(&mut self, request: RequestId, pass: &mut Pass) {
        self.quarantine = None;
        pass.answer((request, Ok(bytes::Bytes::new())));
    }

    pub(super) fn is_quarantined(&self) -> bool {
        self.quarantine.is_some()
    }

    pub(super) fn has_lost_entries(&self) -> bool {
        let cause = self.quarantine.as_ref().map(|quarantine| quarantine.cause);
        cause == Some(QuarantineCause::LostEntries)
    }

    /// A snapshot took the place of the state that stood still.
    pub(super) fn end_quarantine(&mut self) {
        self.quarantine = None;
    }

    /// The leader of this replica's own term knows more to be committed here than its log holds: it
    /// has lost entries that it had acknowledged, and whatever it would say now may be false again.
    pub(super) fn lost_its_tail(&mut self, committed: u64, pass: &mut Pass) {
        let index = self.raw.raft.raft_log.last_index();
        let reason = format!(
            "the log ends at entry {index} and had been acknowledged up to {committed} at least: \
             replace this replica"
        );
        let cause = QuarantineCause::LostEntries;
        self.on_quarantined(Quarantine { cause, index, reason }, pass);
    }
}
