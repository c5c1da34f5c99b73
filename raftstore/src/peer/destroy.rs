//! The end of a replica that is no longer a member: all that is stored of it goes, and a tombstone
//! stays, so that a late message does not bring it back.

use super::Peer;
use crate::apply::ApplyTask;
use crate::pass::Pass;
use crate::{Effect, Error};

impl Peer {
    /// Has all that is stored of this replica removed, and answers all who wait for it. Commands that
    /// the applier has are answered there, before it removes anything.
    pub fn destroy(mut self, pass: &mut Pass) {
        let replica = self.reference();
        // Raft has agreed to it and has not handed it back for installing.
        if let Some(waiting) = self.staged.take() {
            let staged = waiting.staged;
            pass.effects.push(Effect::Apply(ApplyTask::Discard { replica, staged }));
        }
        pass.effects.push(Effect::Apply(ApplyTask::Destroy { replica }));

        let gone = Error::RangeNotFound(self.range);
        let mut answers = self.refuse_waiting(&gone);
        answers.extend(self.refuse_reads(&gone));
        answers.extend(self.give_up_in_flight());
        answers.extend(self.fail_operation());
        for answer in answers {
            pass.answer(answer);
        }
        if self.is_leader() {
            pass.effects.push(Effect::SteppedDown { range: self.range });
        }
    }
}
