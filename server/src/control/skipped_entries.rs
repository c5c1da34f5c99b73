//! Skipping of log entries that no replica of a range can apply, by decision of an operator.
//!
//! Replicas stay equal, because either all of them skip the entry or none does:
//!
//! 1. Every replica in the range's descriptor must report that it stands at the entry, so none has
//!    applied it. Each report is at most [`HEARD_WITHIN`] old. The operator must make sure that no
//!    node is started meanwhile with a version that can apply the entry. None of the replicas
//!    leads, so the membership in the descriptor cannot change. If a node has a newer replica than
//!    the descriptor allows for, the descriptor is outdated, and the request is refused.
//! 2. The decision and its actor are committed before any node learns of it.
//! 3. A node whose replica stands at that entry receives the decision with each heartbeat, until
//!    the replica goes on. The replica keeps the decision in its own state, so that it holds when
//!    the log is replayed.

use std::time::Duration;

use rangedb_proto::v1::{self, QuarantinedReplica, SkipEntry, SkipEntryReply, SkippedEntry};

use super::Control;
use super::admin::ACTOR;
use super::state::State;
use crate::system::Changes;
use crate::system::records;

/// Age of a node's last heartbeat at most: a few heartbeats, so that hardly any node was started
/// since.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

impl Control {
    pub(super) async fn skip_entry(&self, ask: SkipEntry) -> Result<SkipEntryReply, v1::Error> {
        let SkipEntry { range_id, index, dry_run } = ask;
        let _change = self.changing.lock().await;
        if self.state().skipped.contains_key(&(range_id, index)) {
            // Decided before: the request came again, and the replicas may have gone on.
            let mut replicas: Vec<_> = self.state().quarantined_of(range_id).cloned().collect();
            replicas.retain(|replica| replica.index == index);
            return Ok(SkipEntryReply { replicas });
        }
        let now = self.around.net.now();
        let replicas = self.state().standing_at(range_id, index, now)?;
        let reason = replicas.first().map(|replica| replica.reason.clone()).unwrap_or_default();
        if !dry_run {
            let (actor, decided_ts) = (ACTOR.to_owned(), self.fresh_timestamp().await?.0);
            let entry = SkippedEntry { range_id, index, reason, actor, decided_ts };
            let key = records::skipped_entry(range_id, index);
            self.commit(Changes::default().put(key, &entry)).await?;
            let SkippedEntry { reason, actor, .. } = &entry;
            tracing::warn!(range_id, index, reason, actor, "an entry has no effect from now on");
            self.state().skipped.insert((range_id, index), entry);
        }
        Ok(SkipEntryReply { replicas })
    }
}

impl State {
    fn quarantined(&self) -> impl Iterator<Item = &QuarantinedReplica> {
        self.heard.values().flat_map(|heard| &heard.stats.quarantined)
    }

    pub fn quarantined_of(&self, range_id: u64) -> impl Iterator<Item = &QuarantinedReplica> {
        self.quarantined().filter(move |replica| replica.range_id == range_id)
    }

    pub fn ranges_quarantined(&self) -> usize {
        let mut ranges: Vec<u64> = self.quarantined().map(|replica| replica.range_id).collect();
        ranges.sort_unstable();
        ranges.dedup();
        ranges.len()
    }

    /// Skipped entries at which replicas of the node stand.
    pub fn skipped_on(&self, node_id: u64) -> Vec<SkippedEntry> {
        let stats = self.heard.get(&node_id).map(|heard| &heard.stats);
        let standing = stats.into_iter().flat_map(|stats| &stats.quarantined);
        let decided = standing.filter_map(|r| self.skipped.get(&(r.range_id, r.index)));
        decided.cloned().collect()
    }

    /// Returns the range's replicas, if all of them stand at the entry.
    fn standing_at(
        &self,
        range_id: u64,
        index: u64,
        now: Duration,
    ) -> Result<Vec<QuarantinedReplica>, v1::Error> {
        let refused = |why: String| Err(v1::Error::failed_precondition(why));
        let mut entries = self.directory.entries().map(|entry| entry.descriptor());
        let Some(descriptor) = entries.find(|descriptor| descriptor.range_id == range_id) else {
            return Err(v1::Error::not_found(format!("there is no range {range_id}")));
        };
        let mut standing = Vec::new();
        for replica in &descriptor.replicas {
            let (replica_id, node_id) = (replica.replica_id, replica.node_id);
            let silence = self.silence(node_id, now);
            let heard = self.heard.get(&node_id).filter(|_| silence < HEARD_WITHIN);
            let Some(heard) = heard else {
                let silent = silence.as_secs();
                return refused(format!(
                    "node {node_id}, which has a replica, was not heard of for {silent} s"
                ));
            };
            let of_range = |standing: &&QuarantinedReplica| {
                standing.range_id == range_id && standing.replica_id == replica_id
            };
            match heard.stats.quarantined.iter().find(of_range) {
                Some(found) if found.lost_entries => {
                    return refused(format!("the replica on node {node_id}: {}", found.reason));
                }
                Some(found) if found.index == index => standing.push(found.clone()),
                Some(QuarantinedReplica { index, .. }) => {
                    return refused(format!("the replica on node {node_id} stands at {index}"));
                }
                None => {
                    return refused(format!("the replica on node {node_id} does not stand still"));
                }
            }
        }
        for (node_id, heard) in &self.heard {
            let replicas = heard.stats.replica_ranges.iter().zip(&heard.stats.replica_ids);
            let newest = replicas.filter(|(range, _)| **range == range_id).map(|(_, id)| *id).max();
            if newest.is_some_and(|id| id >= descriptor.next_replica_id) {
                return refused(format!(
                    "node {node_id} has a replica that is newer than what is known of the range"
                ));
            }
        }
        Ok(standing)
    }
}

#[cfg(test)]
mod tests {
    use rangedb_proto::v1::error::Kind;
    use rangedb_proto::v1::{NodeStats, RangeDescriptor, Replica};

    use super::*;

    /// Index of a replica that has lost entries.
    const LOST: u64 = 4;

    const NOW: Duration = Duration::from_secs(100);

    /// Creates a range with replicas on three nodes, which stand at these entries.
    fn state(standing_at: [Option<u64>; 3]) -> State {
        let mut state = State::default();
        let replica = |id| Replica { replica_id: id, node_id: id, role: 0 };
        state.directory.load(RangeDescriptor {
            range_id: 7,
            replicas: (1..=3).map(replica).collect(),
            next_replica_id: 4,
            ..Default::default()
        });
        for (node_id, index) in (1..).zip(standing_at) {
            let quarantined = index.map(|index| QuarantinedReplica {
                range_id: 7,
                replica_id: node_id,
                node_id,
                index,
                reason: "unknown".to_owned(),
                lost_entries: index == LOST,
            });
            let stats = NodeStats {
                quarantined: quarantined.into_iter().collect(),
                replica_ranges: vec![7],
                replica_ids: vec![node_id],
                ..Default::default()
            };
            state.hear(node_id, NOW, stats);
        }
        state
    }

    fn refusal(state: &State, now: Duration) -> String {
        let error = state.standing_at(7, 5, now).unwrap_err();
        assert!(matches!(error.kind, Some(Kind::FailedPrecondition(_))), "{error:?}");
        error.message
    }

    #[test]
    fn all_replicas_must_stand_at_the_entry() {
        let standing = state([Some(5); 3]).standing_at(7, 5, NOW).unwrap();
        assert_eq!(standing.iter().map(|replica| replica.node_id).collect::<Vec<_>>(), [1, 2, 3]);
        let said = refusal(&state([Some(5), None, Some(5)]), NOW);
        assert_eq!(said, "the replica on node 2 does not stand still");
        let said = refusal(&state([Some(5), Some(5), Some(6)]), NOW);
        assert_eq!(said, "the replica on node 3 stands at 6");
        let said = refusal(&state([Some(5), Some(LOST), Some(5)]), NOW);
        assert_eq!(said, "the replica on node 2: unknown");
        let error = state([Some(5); 3]).standing_at(8, 5, NOW).unwrap_err();
        assert!(matches!(error.kind, Some(Kind::NotFound(_))), "{error:?}");
    }

    #[test]
    fn what_is_not_known_for_sure_is_refused() {
        let later = NOW + Duration::from_secs(60);
        let said = refusal(&state([Some(5); 3]), later);
        assert_eq!(said, "node 1, which has a replica, was not heard of for 60 s");
        let mut state = state([Some(5); 3]);
        let (replica_ranges, replica_ids) = (vec![7], vec![4]);
        state.hear(9, NOW, NodeStats { replica_ranges, replica_ids, ..Default::default() });
        let said = refusal(&state, NOW);
        assert_eq!(said, "node 9 has a replica that is newer than what is known of the range");
    }

    #[test]
    fn a_node_hears_of_what_its_own_replicas_stand_at() {
        let mut state = state([Some(5), None, Some(6)]);
        let entry = SkippedEntry { range_id: 7, index: 5, ..Default::default() };
        state.skipped.insert((7, 5), entry.clone());
        assert_eq!([1, 2, 3].map(|node| state.skipped_on(node)), [vec![entry], vec![], vec![]]);
        assert_eq!(state.ranges_quarantined(), 1);
    }
}
