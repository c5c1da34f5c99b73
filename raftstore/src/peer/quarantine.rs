//! Quarantine of a replica whose log holds an entry that it cannot apply, or has lost entries that
//! the replica had acknowledged.
//!
//! Such a replica does not lead and refuses requests; the other ranges of the node go on.
//! [`crate::RangeStatus::quarantine`] shows the reason.
//!
//! A replica at an entry that it cannot apply still votes and accepts entries, because its log is
//! sound. So a replica of a newer version, which can apply the entry, becomes the leader. If there
//! is none, each replica in turn leads, learns that the entry is committed, and enters quarantine
//! like the others. Such a quarantine ends in one of three ways:
//!
//! - a version that can apply the entry starts on the data;
//! - an operator declares on every replica that the entry has no effect
//!   ([`crate::Event::SkipEntry`]);
//! - a snapshot arrives from a leader that went on.
//!
//! A replica that has lost entries sends nothing any more: others would count its votes and
//! acknowledgements as those of a replica that has the entries. It has to be replaced.

use super::Peer;
use crate::apply::{ApplyTask, Quarantine, QuarantineCause};
use crate::pass::Pass;
use crate::{Error, Io, RequestId};

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

    /// Skips the entry at which this replica is quarantined, which an operator declared without
    /// effect.
    pub fn skip_entry(&mut self, request: RequestId, index: u64, pass: &mut Pass) {
        if self.has_lost_entries()
            || self.quarantine.as_ref().is_none_or(|quarantine| quarantine.index != index)
        {
            let reason = format!("range {} is not quarantined at entry {index}", self.range);
            pass.reply(request, Err(Error::Refused(reason)));
            return;
        }
        let replica = self.reference();
        pass.io(Io::Apply(ApplyTask::SkipEntry { replica, index, request }));
    }

    pub fn on_quarantine_lifted(&mut self, request: RequestId, pass: &mut Pass) {
        self.quarantine = None;
        pass.reply(request, Ok(bytes::Bytes::new()));
    }

    pub(super) fn is_quarantined(&self) -> bool {
        self.quarantine.is_some()
    }

    pub(super) fn has_lost_entries(&self) -> bool {
        let cause = self.quarantine.as_ref().map(|quarantine| quarantine.cause);
        cause == Some(QuarantineCause::LostEntries)
    }

    /// Ends the quarantine after a snapshot replaced the state.
    pub(super) fn end_quarantine(&mut self) {
        self.quarantine = None;
    }

    /// Enters quarantine for lost entries: the leader of this replica's own term knows more to be
    /// committed here than the log holds. Any further message from this replica could be false.
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
