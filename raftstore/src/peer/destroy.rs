//! Destruction of a replica that is no longer a member. All its stored data goes, and a tombstone
//! stays, so that a late message does not create the replica again.

use super::Peer;
use crate::apply::ApplyTask;
use crate::pass::Pass;
use crate::{Error, Io, RoleChange};

impl Peer {
    /// Has the applier remove all stored state of this replica, and answers all waiting requests.
    /// The applier answers the commands that it already has before it removes anything.
    pub fn destroy(mut self, pass: &mut Pass) {
        let replica = self.reference();
        // Raft has accepted this snapshot and has not handed it back for installing.
        if let Some(waiting) = self.staged.take() {
            let staged = waiting.staged;
            pass.io(Io::Apply(ApplyTask::Discard { replica, staged }));
        }
        pass.io(Io::Apply(ApplyTask::Destroy { replica }));

        let gone = Error::RangeNotFound(self.range);
        let mut answers = self.refuse_waiting(&gone);
        answers.extend(self.refuse_reads(&gone));
        answers.extend(self.give_up_in_flight());
        answers.extend(self.fail_operation());
        for answer in answers {
            pass.answer(answer);
        }
        if self.is_leader() {
            pass.role(RoleChange::SteppedDown { range: self.range });
        }
    }
}
