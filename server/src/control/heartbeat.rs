//! Heartbeats of nodes: the control plane takes in their reports and replies with work for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rangedb_proto::v1::{
    self, Heartbeat, HeartbeatReply, Locate, LocateReply, NodeDescriptor, NodeState,
    RangeDescriptor, RangeLocation, RangeOperation, RangeReport,
};

use super::{Control, join, schedule};
use crate::system::Changes;
use crate::system::records;

/// Interval at which the control plane looks for silent nodes.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Ranges in one reply of which the node has a replica without being a member, at most: descriptors
/// may be long. The next reply, half a second later, continues after them.
const ELSEWHERE_MAX: usize = 16;

/// Ranges in one reply that are named as reasons why the node is not ready, at most: people read
/// only some.
const UNREADY_MAX: usize = 16;

/// Ranges in one answer to a lookup at most.
const LOCATE_MAX: u32 = 64;

impl Control {
    pub(super) async fn heartbeat(&self, beat: Heartbeat) -> Result<HeartbeatReply, v1::Error> {
        let node = beat.node.unwrap_or_default();
        let id = node.node_id;
        if beat.cluster_id != self.around.cluster_id {
            // Not `FailedPrecondition`, which would end the node's process: the node asked at a
            // wrong address.
            let message = format!("this is cluster {:016x}", self.around.cluster_id);
            return Err(v1::Error::unavailable(message));
        }
        join::check_words(&node)?;
        let registered = self.state().nodes.get(&id).cloned();
        let Some(registered) = registered.filter(|r| r.directory_id == node.directory_id) else {
            // The refusal ends the node's process. So a deposed leader that has not learnt of it
            // must not send it: this read fails there.
            self.store.read().await?;
            return Err(v1::Error::failed_precondition(format!(
                "node {id} is not of this cluster"
            )));
        };
        let now = self.around.net.now();
        let mut stats = beat.stats.unwrap_or_default();
        stats.quarantined.iter_mut().for_each(|replica| replica.node_id = id);
        let ids = stats.replica_ids.iter().copied().chain(std::iter::repeat(0));
        let has_replicas_of = stats.replica_ranges.iter().copied().zip(ids).collect();
        self.state().hear(id, now, stats);
        let clock_offset_ms = self.hear_clock(id, beat.clock_unix_ms, now);

        let mut ranges = beat.ranges;
        ranges.retain(|report| is_of_leader(report, id));
        let news = self.learn(&ranges, now);
        let mut changes = Changes::default();
        for descriptor in &news {
            changes = changes.put(records::PARTITIONS.key(descriptor.range_id), descriptor);
        }
        let is_removed = registered.state() == NodeState::NodeRemoved;
        if is_removed && self.state().ranges_on(id).is_empty() {
            self.store.read().await?;
            return Err(join::removed(id));
        }
        let current = if is_removed {
            registered.clone()
        } else {
            NodeDescriptor { state: NodeState::NodeUp.into(), ..node }
        };
        if current != registered {
            changes = changes.put(records::NODES.key(id), &current);
        }
        if !changes.is_empty() {
            let _change = self.changing.lock().await;
            self.commit(changes).await?;
            let mut state = self.state();
            news.iter().for_each(|descriptor| state.directory.mark_stored(descriptor));
            state.nodes.insert(id, current);
        }
        let operations = self.plan(id, &ranges, now);
        let timestamp = self.timestamps(1).await?.last;
        let (floor_ts, collect_below_ts) = self.garbage_bounds();
        let mut state = self.state();
        let skipped_entries = state.skipped_on(id);
        let elsewhere = state.elsewhere(id, &has_replicas_of, ELSEWHERE_MAX);
        Ok(HeartbeatReply {
            cluster_id: self.around.cluster_id,
            operations,
            nodes: state.nodes.values().cloned().collect(),
            timestamp,
            floor_ts,
            collect_below_ts,
            elsewhere,
            missing_ranges: state.missing(id, &has_replicas_of, UNREADY_MAX),
            awaited_ranges: state.awaited(id, &state.view(now), UNREADY_MAX),
            clock_offset_ms,
            skipped_entries,
        })
    }

    /// Takes in reports. Returns the descriptors that have to be stored.
    fn learn(&self, reports: &[RangeReport], now: Duration) -> Vec<RangeDescriptor> {
        let mut state = self.state();
        let is_news = |report: &&RangeReport| state.directory.learn((*report).clone(), now);
        reports.iter().filter(is_news).filter_map(|report| report.descriptor.clone()).collect()
    }

    /// Next steps for the ranges that the node leads.
    fn plan(&self, node_id: u64, reports: &[RangeReport], now: Duration) -> Vec<RangeOperation> {
        let mut state = self.state();
        let view = state.view(now);
        let mut operations = Vec::new();
        for report in reports {
            let step = schedule::next_step(&view, report);
            let words = step.as_ref().map(|(_, words)| words.clone()).unwrap_or_default();
            operations.extend(step.map(|(operation, _)| operation));
            if let Some(descriptor) = &report.descriptor {
                state.directory.set_operation(&descriptor.start_key, words);
            }
        }
        if operations.is_empty() {
            operations.extend(state.balance(node_id, now));
        }
        operations
    }

    pub(super) fn locate(&self, ask: &Locate) -> LocateReply {
        let count = ask.count.clamp(1, LOCATE_MAX) as usize;
        let state = self.state();
        let entries = if ask.reverse {
            state.directory.below(&ask.key, count)
        } else {
            state.directory.from(&ask.key, count)
        };
        let mut nodes = BTreeMap::new();
        let mut ranges = Vec::new();
        for entry in entries {
            for replica in &entry.descriptor().replicas {
                if let Some(node) = state.nodes.get(&replica.node_id) {
                    nodes.insert(node.node_id, node.clone());
                }
            }
            ranges.push(RangeLocation {
                descriptor: Some(entry.descriptor().clone()),
                leader_node_id: entry.report.leader_node_id,
            });
        }
        LocateReply { ranges, nodes: nodes.into_values().collect() }
    }

    /// Once a second until the control plane is dropped: marks silent nodes as dead, keeps the
    /// timestamp bound ahead and raises the floor.
    pub(super) fn watch(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        let net = self.around.net.clone();
        let watching = async move {
            loop {
                let Some(net) = weak.upgrade().map(|control| control.around.net.clone()) else {
                    return;
                };
                net.sleep(WATCH_INTERVAL).await;
                let Some(control) = weak.upgrade() else { return };
                // A failure is a lost leadership or a range without quorum. The next round tries
                // again.
                let _ = control.extend().await;
                let _ = control.bury_silent_nodes().await;
                let _ = control.raise_floor().await;
            }
        };
        net.spawn(Box::pin(watching));
    }

    async fn bury_silent_nodes(&self) -> Result<(), v1::Error> {
        let _change = self.changing.lock().await;
        let now = self.around.net.now();
        let silent: Vec<NodeDescriptor> = {
            let state = self.state();
            let dead_after = state.settings().node_dead_after;
            let up = state.nodes.values().filter(|node| node.state() == NodeState::NodeUp);
            up.filter(|node| state.silence(node.node_id, now) > dead_after).cloned().collect()
        };
        for mut node in silent {
            node.set_state(NodeState::NodeDead);
            self.commit(Changes::default().put(records::NODES.key(node.node_id), &node)).await?;
            self.state().nodes.insert(node.node_id, node);
        }
        Ok(())
    }
}

/// True if the node may report on the range: the report says that the node leads it, and the node
/// has a replica of it.
fn is_of_leader(report: &RangeReport, node_id: u64) -> bool {
    let descriptor = report.descriptor.as_ref();
    report.leader_node_id == node_id
        && descriptor.is_some_and(|d| d.replicas.iter().any(|r| r.node_id == node_id))
}

#[cfg(test)]
mod tests {
    use rangedb_proto::v1::Replica;

    use super::*;

    #[test]
    fn a_node_speaks_only_for_ranges_that_it_leads() {
        let report = |leader_node_id, on: &[u64]| RangeReport {
            leader_node_id,
            descriptor: Some(RangeDescriptor {
                replicas: on
                    .iter()
                    .map(|&node_id| Replica { node_id, ..Default::default() })
                    .collect(),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert!(is_of_leader(&report(1, &[3, 1]), 1));
        assert!(!is_of_leader(&report(2, &[1, 2]), 1), "another one leads");
        assert!(!is_of_leader(&report(1, &[2, 99]), 1), "it has no replica");
        assert!(!is_of_leader(&RangeReport { leader_node_id: 1, ..Default::default() }, 1));
    }
}
