//! Leadership hand-over by a node whose log writes do not complete, because its disk hangs.
//!
//! The node's heartbeats go on, so no other replica stands for election, while the ranges that it
//! leads stand still: a leader applies no entry that it has not persisted itself. The other
//! replicas may be well. So the leader hands its range over once a quorum does without it: entries
//! are committed that are not durable here. Otherwise it keeps the range. If the other disks hang
//! too, or too few replicas are left, nobody could take the range over, and this leader still
//! serves reads.
//!
//! The message that asks for the election leaves at once and needs no write here. The other
//! replicas elect the new leader, because this replica's vote waits for its disk like all its
//! promises. For the same reason this replica does not stand for election: it would leave its
//! leader and win nothing.

use super::Peer;

impl Peer {
    pub fn set_log_stalled(&mut self, stalled: bool) {
        self.log_stalled = stalled;
    }

    /// Begins to hand the range over, if the log is stalled and a quorum commits without it. True
    /// if a transfer was begun. Called once a tick, so that a failed transfer, such as after a lost
    /// message, is begun again.
    pub fn hand_over_stalled(&mut self) -> bool {
        let raft = &self.raw.raft;
        self.log_stalled
            && self.is_raft_leader()
            && raft.lead_transferee.is_none()
            && raft.raft_log.committed > raft.raft_log.persisted
            // 0 picks the voter with the longest log.
            && self.transfer_leader(0).is_ok()
    }
}
