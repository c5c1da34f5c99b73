//! Quarantined replicas of this node: reported in the log and to the control plane. A replica goes
//! on after an operator has decided to skip its entry. The control plane passes the decision on.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use rangedb_proto::RangeId;
use rangedb_proto::v1::{QuarantinedReplica, SkippedEntry};

use rangedb_raftstore::QuarantineCause;

use super::Node;

/// Replicas that one heartbeat reports at most.
const TOLD_MAX: usize = 1000;

/// Ranges and entries of quarantined replicas that were already logged.
#[derive(Default)]
pub(super) struct LoggedQuarantines(Mutex<BTreeSet<(u64, u64)>>);

impl LoggedQuarantines {
    /// Returns the replicas that were not logged yet, and forgets those that are no longer
    /// quarantined.
    fn news<'a>(&self, standing: &'a [QuarantinedReplica]) -> Vec<&'a QuarantinedReplica> {
        let place = |replica: &QuarantinedReplica| (replica.range_id, replica.index);
        let mut told = self.0.lock();
        let before = std::mem::replace(&mut *told, standing.iter().map(place).collect());
        standing.iter().filter(|replica| !before.contains(&place(replica))).collect()
    }
}

impl Node {
    /// Quarantined replicas of this node. Logs each of them once.
    pub(super) fn quarantined(&self) -> Vec<QuarantinedReplica> {
        let standing = self.around.board.ranges().into_iter().filter_map(|status| {
            let quarantine = status.quarantine?;
            Some(QuarantinedReplica {
                range_id: status.descriptor.range_id,
                replica_id: status.replica.replica_id,
                node_id: self.descriptor.node_id,
                index: quarantine.index,
                reason: quarantine.reason,
                lost_entries: quarantine.cause == QuarantineCause::LostEntries,
            })
        });
        let standing: Vec<_> = standing.take(TOLD_MAX).collect();
        for QuarantinedReplica { range_id, index, reason, .. } in self.told.news(&standing) {
            tracing::error!(
                range_id,
                index,
                reason,
                "the replica of range {range_id} stands still: see `rangedb admin partition list`"
            );
        }
        standing
    }

    /// Tells the stores to skip these entries.
    pub(super) fn skip_entries(self: &Arc<Self>, entries: Vec<SkippedEntry>) {
        for SkippedEntry { range_id, index, reason, actor, .. } in entries {
            let node = self.clone();
            self.around.net.spawn(Box::pin(async move {
                match node.around.stores.skip_entry(RangeId(range_id), index).await {
                    Ok(()) => tracing::warn!(
                        range_id,
                        index,
                        reason,
                        actor,
                        "an entry was left without effect, and the replica goes on"
                    ),
                    // The replica may have gone on meanwhile. If not, the next heartbeat's reply
                    // names the entry again.
                    Err(error) => {
                        tracing::info!(range_id, index, %error, "an entry is not skipped")
                    }
                }
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once_and_again_after_it_was_gone() {
        let at = |range_id, index| QuarantinedReplica { range_id, index, ..Default::default() };
        let told = LoggedQuarantines::default();
        let (first, second) = (at(1, 5), at(2, 7));
        assert_eq!(told.news(std::slice::from_ref(&first)), [&first]);
        let both = [first.clone(), second.clone()];
        assert_eq!(told.news(&both), [&second]);
        assert!(told.news(&[]).is_empty());
        assert_eq!(told.news(&both), [&first, &second]);
    }
}
