//! Reports and status of a replica.

use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::RangeReport;

use super::Peer;
use crate::RangeStatus;

impl Peer {
    pub fn status(&self) -> RangeStatus {
        let raft = &self.raw.raft;
        let log = self.raw.store();
        RangeStatus {
            replica: self.me,
            descriptor: self.descriptor().clone(),
            term: raft.term,
            leader_replica_id: raft.leader_id,
            leads: self.leading.as_ref().is_some_and(|leading| leading.ready),
            fenced: self.leading.as_ref().is_some_and(|leading| leading.elected_ts.is_some()),
            applied_index: log.applied.index,
            applied_term: log.applied.term,
            size: self.size,
            commit_index: raft.raft_log.committed,
            last_index: log.last_index(),
            truncated_index: log.truncated().index,
            log_entries: log.entries_kept(),
            sends_snapshot: log.sends_snapshot(),
            quarantine: self.quarantine.clone(),
        }
    }

    /// Report for the control plane, if this replica leads.
    pub fn report(&self) -> Option<RangeReport> {
        self.leading.as_ref().filter(|leading| leading.ready)?;
        let raft = &self.raw.raft;
        let mut down = Vec::new();
        let mut lagging = Vec::new();
        for replica in &self.descriptor().replicas {
            let id = replica.replica_id;
            if id == self.me.replica_id {
                continue;
            }
            if !self.is_heard(id) {
                down.push(id);
            }
            if !self.is_near(id) {
                lagging.push(id);
            }
        }
        Some(RangeReport {
            descriptor: Some((**self.descriptor()).clone()),
            term: raft.term,
            leader_node_id: self.me.node_id,
            down_replica_ids: down,
            lagging_replica_ids: lagging,
            applied_index: self.applied().index,
            log_entries: self.raw.store().entries_kept(),
            in_joint_change: self.descriptor().in_joint_change(),
            unlocked_below_ts: 0,
            rows: self.size.rows,
            row_bytes: self.size.bytes,
        })
    }
}
