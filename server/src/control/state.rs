//! What the control plane keeps in memory of its keys and of reports, while it leads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{ConfigValue, NodeDescriptor, NodeState, NodeStats, RangeDescriptor};

use super::clock_watch::Said;
use super::clocks::Clocks;
use super::directory::Directory;
use super::garbage::Garbage;
use super::schedule::View;
use super::settings;

/// Silence after which no new replica is sent to a node: a few heartbeats.
const REACHABLE_WITHIN: Duration = Duration::from_secs(5);

/// A node's last heartbeat.
pub struct Heard {
    pub at: Duration,
    pub stats: NodeStats,
}

#[derive(Default)]
pub struct State {
    pub nodes: BTreeMap<u64, NodeDescriptor>,
    pub heard: BTreeMap<u64, Heard>,
    pub directory: Directory,
    pub config: BTreeMap<String, ConfigValue>,
    pub garbage: Garbage,
    pub clocks: Clocks,
    pub said_of_time: Said,
    /// When this control plane took over; silence is measured from there at the earliest.
    pub since: Duration,
}

impl State {
    /// The value in force.
    pub fn setting(&self, name: &str) -> String {
        let default = || settings::find(name).map_or("", |setting| setting.default).to_owned();
        self.config.get(name).map_or_else(default, |stored| stored.value.clone())
    }

    pub fn replication_factor(&self) -> u32 {
        let value = self.setting(settings::REPLICATION_FACTOR);
        settings::replicas(&value).expect("stored values were checked")
    }

    pub fn node_dead_after(&self) -> Duration {
        let value = self.setting(settings::NODE_DEAD_AFTER);
        settings::duration(&value).expect("stored values were checked")
    }

    pub fn gc_retention(&self) -> Duration {
        let value = self.setting(settings::GC_RETENTION);
        settings::duration(&value).expect("stored values were checked")
    }

    /// Time since the node was last heard of, as far as this control plane can know.
    pub fn silence(&self, node_id: u64, now: Duration) -> Duration {
        let last = self.heard.get(&node_id).map_or(self.since, |heard| heard.at);
        now.saturating_sub(last)
    }

    /// The node with this id, peer or client address that is not removed.
    pub fn find_node(&self, name: &str) -> Option<&NodeDescriptor> {
        let id: Option<u64> = name.trim_start_matches('n').parse().ok();
        self.nodes.values().filter(|node| node.state() != NodeState::NodeRemoved).find(|node| {
            Some(node.node_id) == id || node.peer_address == name || node.client_address == name
        })
    }

    pub fn view(&self, now: Duration) -> View {
        let up = self.nodes.values().filter(|node| node.state() == NodeState::NodeUp);
        let mut living: BTreeMap<u64, usize> = up.map(|node| (node.node_id, 0)).collect();
        for entry in self.directory.entries() {
            for replica in &entry.descriptor().replicas {
                if let Some(count) = living.get_mut(&replica.node_id) {
                    *count += 1;
                }
            }
        }
        let dead = self.nodes.values().filter(|node| node.state() == NodeState::NodeDead);
        let dead = dead.map(|node| node.node_id).collect();
        let reachable = living.keys().copied();
        let reachable = reachable.filter(|id| self.silence(*id, now) < REACHABLE_WITHIN).collect();
        View { replication_factor: self.replication_factor() as usize, living, dead, reachable }
    }

    /// Ranges with a member on the node, in key order.
    pub fn ranges_on(&self, node_id: u64) -> Vec<u64> {
        let entries = self.directory.entries().map(|entry| entry.descriptor());
        entries.filter(|d| d.replica_on(node_id).is_some()).map(|d| d.range_id).collect()
    }

    /// Of these ranges, of which the node has a replica, those without a member on it.
    pub fn elsewhere(
        &self,
        node_id: u64,
        has_replicas_of: &BTreeSet<u64>,
        count: usize,
    ) -> Vec<RangeDescriptor> {
        let entries = self.directory.entries().map(|entry| entry.descriptor());
        let elsewhere = entries.filter(|descriptor| {
            descriptor.replica_on(node_id).is_none()
                && has_replicas_of.contains(&descriptor.range_id)
        });
        elsewhere.take(count).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use rangedb_proto::v1::Replica;

    use super::*;

    #[test]
    fn a_node_is_told_of_ranges_that_it_has_a_replica_of_without_being_a_member() {
        let mut state = State::default();
        for (range_id, start, end, on) in [(1, "", "b", [1, 2]), (2, "b", "d", [2, 3])] {
            let replica = |node_id| Replica { node_id, replica_id: node_id, role: 0 };
            state.directory.load(RangeDescriptor {
                range_id,
                start_key: start.into(),
                end_key: end.into(),
                replicas: on.map(replica).into(),
                ..Default::default()
            });
        }
        let told = |node_id, has: &[u64], count| -> Vec<u64> {
            let has = has.iter().copied().collect();
            let elsewhere = state.elsewhere(node_id, &has, count);
            elsewhere.iter().map(|descriptor| descriptor.range_id).collect()
        };
        assert_eq!(told(1, &[1, 2], 9), [2]);
        assert_eq!(told(2, &[1, 2], 9), [0; 0], "a member of both");
        assert_eq!(told(4, &[1, 2, 7], 9), [1, 2], "of range 7 nothing is known");
        assert_eq!(told(4, &[1, 2], 1), [1]);
        assert_eq!(told(4, &[], 9), [0; 0], "it has no replica");
    }
}
