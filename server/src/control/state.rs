//! What the control plane keeps in memory of its keys and of reports, while it leads.

use std::collections::BTreeMap;
use std::time::Duration;

use rangedb_proto::v1::{ConfigValue, NodeDescriptor, NodeState, NodeStats};

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

    /// Ranges with a replica on the node, in key order.
    pub fn ranges_on(&self, node_id: u64) -> Vec<u64> {
        let on = |replicas: &[rangedb_proto::v1::Replica]| {
            replicas.iter().any(|replica| replica.node_id == node_id)
        };
        let entries = self.directory.entries().map(|entry| entry.descriptor());
        entries.filter(|d| on(&d.replicas)).map(|d| d.range_id).collect()
    }
}
