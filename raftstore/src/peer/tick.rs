//! Passage of time for one replica.

use rangedb_proto::NodeId;

use super::Peer;
use crate::pass::Pass;
use crate::planted::planted;

/// Election timeouts without a leader after which a replica asks whether it is still a member.
/// Voters of a live range elect a leader well within that time.
const LEADERLESS_PATIENCE: usize = 5;

impl Peer {
    pub fn tick(&mut self, pass: &mut Pass) {
        self.ticks += 1;
        if !self.is_installing() && !self.has_lost_entries() {
            self.hold_campaign();
            self.raw.tick();
        }
        self.rejitter();
        self.vote_embargo_ticks = self.vote_embargo_ticks.saturating_sub(1);
        self.tick_reads();
        self.tick_departure(pass);
        if self.is_raft_leader() {
            self.leaderless_ticks = 0;
            return;
        }
        self.leaderless_ticks += 1;
        if self.leaderless_ticks.is_multiple_of(LEADERLESS_PATIENCE * self.config.election_ticks) {
            self.ask_whether_member(pass);
        }
    }

    /// Keeps raft's next tick from campaigning where this replica may not stand for election. Time
    /// still passes for raft: a leader that is silent for an election timeout binds nobody any
    /// more.
    fn hold_campaign(&mut self) {
        if self.is_raft_leader() {
            return;
        }
        if self.log_stalled || self.is_quarantined() {
            let longest = 2 * self.config.election_ticks - 1;
            let raft = &mut self.raw.raft;
            raft.set_randomized_election_timeout(longest);
            raft.election_elapsed = raft.election_elapsed.min(longest - 2);
        }
        // A candidate votes for itself. With shorter ticks than in the previous run, an election
        // timeout may pass before the promises of that run expire.
        let is_bound = self.vote_embargo_ticks > 0;
        let is_bound = is_bound && !planted!(CampaignWithinPromise);
        if is_bound {
            let raft = &mut self.raw.raft;
            let latest = raft.randomized_election_timeout().saturating_sub(2);
            raft.election_elapsed = raft.election_elapsed.min(latest);
        }
    }

    /// True if the replica sent any message within an election timeout.
    pub(super) fn is_heard(&self, replica_id: u64) -> bool {
        let silent = self.heard.get(&replica_id).map(|heard| self.ticks - heard.tick);
        silent.is_some_and(|ticks| ticks <= self.config.election_ticks as u64)
    }

    /// Handles an unreachable node: raft probes its replica instead of sending it all entries.
    pub fn on_unreachable(&mut self, node: NodeId) {
        use rangedb_proto::RangeDescriptorExt;
        if let Some(replica) = self.descriptor().replica_on(node.0).copied() {
            self.raw.report_unreachable(replica.replica_id);
        }
    }
}
