//! Role of a replica: follower or leader, and the state that it has only while it leads.
//!
//! raft-rs decides the role. A leader serves in three steps:
//!
//! 1. It is elected ([`Peer::note_role`] creates [`Leading`]).
//! 2. It applies an entry of its own term, and with it all that earlier leaders committed. Then it asks
//!    for a timestamp of the oracle ([`RoleChange::NeedFence`]).
//! 3. The timestamp arrives ([`Peer::on_fenced`]). From then on it proposes commands, above every
//!    timestamp at which an earlier leader may have served a read.
//!
//! It ends with the leadership of raft, with its term, or with the replica's membership.

use super::Peer;
use crate::RoleChange;
use crate::lease::Lease;
use crate::pass::Pass;
use crate::planted::planted;

/// State that a replica has only while it leads.
pub(crate) struct Leading {
    pub(super) term: u64,
    /// True once an entry of this term is applied: all that earlier leaders committed is visible.
    pub(super) ready: bool,
    /// Timestamp from the oracle, issued after the election. No command is proposed before it is
    /// known.
    pub(super) elected_ts: Option<u64>,
    /// Highest timestamp of a snapshot read in this term.
    pub(super) highest_read: u64,
    pub(super) lease: Lease,
}

impl Peer {
    /// Follows raft's role. Requests a fence once the leader has applied an entry of its term.
    pub fn note_role(&mut self, pass: &mut Pass) {
        let term = self.term();
        let leads = self.is_raft_leader() && !self.has_departed();
        if self.leading.as_ref().is_some_and(|leading| !leads || leading.term != term) {
            self.leading = None;
            pass.role(RoleChange::SteppedDown { range: self.range });
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
                elected_ts: None,
                highest_read: 0,
                lease: Default::default(),
            });
        }
        let applied_term = self.applied().term;
        if let Some(leading) = self.leading.as_mut().filter(|l| !l.ready && applied_term == l.term)
        {
            leading.ready = true;
            pass.role(RoleChange::NeedFence { range: self.range, term });
        }
    }

    /// Takes the oracle's timestamp as the fence of this term.
    pub fn on_fenced(&mut self, term: u64, timestamp: u64) {
        if let Some(leading) = self.leading.as_mut().filter(|leading| leading.term == term) {
            leading.elected_ts = leading.elected_ts.max(Some(timestamp));
        }
    }

    /// Timestamp above which commits must go, if this replica may commit anything yet.
    pub(super) fn fence(&self) -> Option<u64> {
        let leading = self.leading.as_ref().filter(|leading| leading.ready)?;
        if planted!(FenceNotRefreshed) {
            return Some(leading.highest_read);
        }
        leading.elected_ts.map(|fence| fence.max(leading.highest_read))
    }

    /// Steps down a leader that is no longer a member, if entries follow its removal in the log.
    /// raft-rs records in a leader's progress what the leader has persisted and committed, and
    /// panics if a removed leader has no progress. So a removed leader may neither persist nor
    /// commit later entries. The members elect another leader, and this replica may vote for it.
    /// Without such entries it leads until a majority knows of the removal: the members elect
    /// nobody before.
    pub(super) fn step_down_if_no_member(&mut self) {
        let is_member = self.raw.raft.prs().get(self.me.replica_id).is_some();
        let has_more = self.raw.raft.raft_log.last_index() > self.applied().index;
        if self.is_raft_leader() && !is_member && has_more {
            let term = self.term();
            self.raw.raft.become_follower(term, raft::INVALID_ID);
        }
    }
}
