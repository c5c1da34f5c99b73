//! Time passing for one replica.

use rangedb_proto::NodeId;

use super::Peer;
use crate::pass::Pass;

/// Election timeouts without a leader after which a replica asks whether it is still a member.
/// Voters in a living range elect one well within that.
const LEADERLESS_PATIENCE: usize = 5;

impl Peer {
    pub fn tick(&mut self, pass: &mut Pass) {
        self.ticks += 1;
        if !self.is_installing() && !self.is_quarantined() {
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

    /// Whether a replica said anything within an election timeout.
    pub(super) fn is_heard(&self, replica_id: u64) -> bool {
        let silent = self.heard.get(&replica_id).map(|heard| self.ticks - heard.tick);
        silent.is_some_and(|ticks| ticks <= self.config.election_ticks as u64)
    }

    /// A node could not be reached: its replica is probed instead of being sent all there is.
    pub fn on_unreachable(&mut self, node: NodeId) {
        use rangedb_proto::RangeDescriptorExt;
        if let Some(replica) = self.descriptor().replica_on(node.0).copied() {
            self.raw.report_unreachable(replica.replica_id);
        }
    }
}
