//! A node whose log writes do not complete, because its disk hangs.
//!
//! Its heartbeats go on, so nobody stands for election, and whatever it leads stands still: it applies
//! nothing that it has not persisted itself. The others may be well. So a leader hands its range over
//! once it sees that a quorum does without it: entries are committed that are not durable here. Only
//! then: where the others' disks hang too, or are too few, nobody could take the range over, and this
//! leader still serves reads.
//!
//! The message that asks for the election leaves at once and needs nothing to be written here. The new
//! leader is elected by the others, because this replica's vote waits for its disk like all that it
//! promises. For the same reason it does not stand for election itself: it would leave its leader and
//! win nothing.

use super::Peer;

impl Peer {
    pub fn set_log_stalled(&mut self, stalled: bool) {
        self.log_stalled = stalled;
    }

    /// Begins to hand the range over, if it should. True if so. To be called once a tick: a transfer
    /// that came to nothing, such as for a lost message, is begun again.
    pub fn hand_over_stalled(&mut self) -> bool {
        let raft = &self.raw.raft;
        self.log_stalled
            && self.is_raft_leader()
            && raft.lead_transferee.is_none()
            && raft.raft_log.committed > raft.raft_log.persisted
            // To whoever has most.
            && self.transfer_leader(0).is_ok()
    }
}
