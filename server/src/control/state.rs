//! Memory of the control plane while it leads: its stored keys, and the nodes' reports.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{
    ConfigValue, NodeDescriptor, NodeState, NodeStats, RangeDescriptor, RangeOperation,
    ReplicaRole, SkippedEntry,
};

use super::balance;
use super::clock_watch::LoggedTime;
use super::clocks::Clocks;
use super::directory::Directory;
use super::garbage::Garbage;
use super::schedule::View;
use super::settings::{self, Setting, Settings};

/// Silence after which no new replica is sent to a node: a few heartbeats.
const REACHABLE_WITHIN: Duration = Duration::from_secs(5);

/// A node's last heartbeat.
pub struct LastHeartbeat {
    pub at: Duration,
    pub stats: NodeStats,
    /// Start key of the last range that a reply named in `elsewhere`.
    told_up_to: Option<Bytes>,
}

#[derive(Default)]
pub struct State {
    pub nodes: BTreeMap<u64, NodeDescriptor>,
    pub heard: BTreeMap<u64, LastHeartbeat>,
    pub directory: Directory,
    /// Stored settings by name.
    config: BTreeMap<String, ConfigValue>,
    settings: Settings,
    pub garbage: Garbage,
    pub clocks: Clocks,
    /// Skipped entries, by range and index.
    pub skipped: BTreeMap<(u64, u64), SkippedEntry>,
    pub said_of_time: LoggedTime,
    /// Time of this control plane's takeover. A node that has not reported since counts as silent
    /// from then on.
    pub since: Duration,
    /// Time of the last move of a leadership for balance.
    pub balanced_at: Option<Duration>,
}

impl State {
    /// Returns the state of a control plane that took over at `since`, before anything is loaded.
    pub fn new(since: Duration) -> Self {
        State { since, ..Self::default() }
    }

    pub fn hear(&mut self, node_id: u64, at: Duration, stats: NodeStats) {
        let before = self.heard.remove(&node_id);
        let told_up_to = before.and_then(|heard| heard.told_up_to);
        self.heard.insert(node_id, LastHeartbeat { at, stats, told_up_to });
    }

    /// Value in force: the stored one, or the default if no usable one is stored.
    pub fn setting(&self, name: &str) -> String {
        let Some(setting) = settings::find(name) else { return String::new() };
        let stored = self.config.get(setting.name).map(|stored| &stored.value[..]);
        setting.in_force(stored).to_owned()
    }

    /// Settings whose stored value is not in force, and the reasons.
    pub fn unusable_settings(&self) -> Vec<(&'static str, String)> {
        let stored = |setting: &'static Setting| Some((setting, self.config.get(setting.name)?));
        let stored = settings::SETTINGS.iter().filter_map(stored);
        let wrong = stored.filter_map(|(setting, stored)| {
            setting.check(&stored.value).err().map(|error| (setting.name, error.message))
        });
        wrong.collect()
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the stored value of a setting.
    pub fn stored_setting(&self, name: &str) -> Option<&ConfigValue> {
        self.config.get(name)
    }

    /// Takes in the stored value of a setting.
    pub fn set(&mut self, name: String, value: ConfigValue) {
        self.config.insert(name, value);
        self.settings = Settings::of(&self.config);
    }

    /// Time since the node's last heartbeat, or since the takeover if there was none.
    pub fn silence(&self, node_id: u64, now: Duration) -> Duration {
        let last = self.heard.get(&node_id).map_or(self.since, |heard| heard.at);
        now.saturating_sub(last)
    }

    /// Finds the node with this id, or the one that has this peer or client address now. A removed
    /// node has no address any more.
    pub fn find_node(&self, name: &str) -> Option<&NodeDescriptor> {
        let id: Option<u64> = name.trim_start_matches('n').parse().ok();
        let is_at = |node: &&NodeDescriptor| {
            let is_there = node.peer_address == name || node.client_address == name;
            is_there && node.state() != NodeState::NodeRemoved
        };
        let by_id = id.and_then(|id| self.nodes.get(&id));
        by_id.or_else(|| self.nodes.values().find(is_at))
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
        View {
            replication_factor: self.settings.replication_factor as usize,
            living,
            dead,
            reachable,
        }
    }

    /// Ranges with a replica on the node by their descriptors, in key order.
    pub fn ranges_on(&self, node_id: u64) -> Vec<u64> {
        let entries = self.directory.entries().map(|entry| entry.descriptor());
        entries.filter(|d| d.replica_on(node_id).is_some()).map(|d| d.range_id).collect()
    }

    /// Ranges of which the node has a replica that is not a member, `count` at most.
    /// `has_replicas_of` is the node's replica id by range. The list continues after the last range
    /// of the previous reply, and then with the first again.
    pub fn elsewhere(
        &mut self,
        node_id: u64,
        has_replicas_of: &BTreeMap<u64, u64>,
        count: usize,
    ) -> Vec<RangeDescriptor> {
        let told_up_to = self.heard.get(&node_id).and_then(|heard| heard.told_up_to.clone());
        let is_behind = |start: &Bytes| told_up_to.as_ref().is_none_or(|told| start > told);
        let is_elsewhere = |descriptor: &&RangeDescriptor| {
            let member = descriptor.replica_on(node_id).map(|replica| replica.replica_id);
            has_replicas_of.get(&descriptor.range_id).is_some_and(|id| member != Some(*id))
        };
        let entries = self.directory.entries().map(|entry| entry.descriptor());
        let (behind, before): (Vec<_>, Vec<_>) =
            entries.filter(is_elsewhere).partition(|d| is_behind(&d.start_key));
        let elsewhere: Vec<RangeDescriptor> =
            behind.into_iter().chain(before).take(count).cloned().collect();
        if let (Some(last), Some(heard)) = (elsewhere.last(), self.heard.get_mut(&node_id)) {
            heard.told_up_to = Some(last.start_key.clone());
        }
        elsewhere
    }

    /// Ranges that have the node as a voter and of which the node has no replica.
    pub fn missing(
        &self,
        node_id: u64,
        has_replicas_of: &BTreeMap<u64, u64>,
        count: usize,
    ) -> Vec<u64> {
        let entries = self.directory.entries().map(|entry| entry.descriptor());
        let missing = entries.filter(|descriptor| {
            is_voter_of(node_id, descriptor) && !has_replicas_of.contains_key(&descriptor.range_id)
        });
        missing.take(count).map(|descriptor| descriptor.range_id).collect()
    }

    /// Ranges that lack a voter and in which the node could become one.
    pub fn awaited(&self, node_id: u64, view: &View, count: usize) -> Vec<u64> {
        if !view.living.contains_key(&node_id) {
            return Vec::new();
        }
        let entries = self.directory.entries().map(|entry| entry.descriptor());
        let awaited = entries.filter(|descriptor| {
            !is_voter_of(node_id, descriptor) && view.lacks_voters(descriptor)
        });
        awaited.take(count).map(|descriptor| descriptor.range_id).collect()
    }

    /// Decides on a leadership that the node should hand over, so that all nodes lead about as many
    /// ranges.
    pub fn balance(&mut self, node_id: u64, now: Duration) -> Option<RangeOperation> {
        if self.balanced_at.is_some_and(|at| now.saturating_sub(at) < balance::MOVE_EVERY) {
            return None;
        }
        let fit = self
            .view(now)
            .reachable
            .into_iter()
            .filter(|id| self.heard.get(id).is_some_and(|heard| !heard.stats.unfit_to_lead));
        let fit = fit.collect();
        let (range_id, operation) =
            balance::next_move(self.directory.entries(), fit, node_id, now)?;
        self.balanced_at = Some(now);
        self.directory.set_moved(range_id, now);
        Some(operation)
    }
}

fn is_voter_of(node_id: u64, descriptor: &RangeDescriptor) -> bool {
    let replica = descriptor.replica_on(node_id);
    replica.is_some_and(|r| matches!(r.role(), ReplicaRole::Voter | ReplicaRole::IncomingVoter))
}

#[cfg(test)]
mod tests {
    use rangedb_proto::v1::Replica;

    use super::*;

    fn load(state: &mut State, range_id: u64, on: &[u64]) {
        let replica = |&node_id: &u64| Replica { node_id, replica_id: node_id, role: 0 };
        state.directory.load(RangeDescriptor {
            range_id,
            start_key: range_id.to_string().into(),
            end_key: (range_id + 1).to_string().into(),
            replicas: on.iter().map(replica).collect(),
            ..Default::default()
        });
    }

    #[test]
    fn more_ranges_than_one_reply_names_are_all_told_in_turn() {
        let mut state = State::default();
        (1..=5).for_each(|range_id| load(&mut state, range_id, &[1]));
        state.hear(4, Duration::ZERO, NodeStats::default());
        let has = (1..=5).map(|range| (range, 4)).collect();
        let mut told = || -> Vec<u64> {
            state.hear(4, Duration::ZERO, NodeStats::default());
            state.elsewhere(4, &has, 2).iter().map(|descriptor| descriptor.range_id).collect()
        };
        assert_eq!([told(), told(), told()], [[1, 2], [3, 4], [5, 1]]);
    }

    #[test]
    fn a_voter_without_its_replica_is_missing_and_a_voter_too_few_is_awaited() {
        let mut state = State::default();
        for node_id in [1, 2, 3] {
            state.nodes.insert(node_id, NodeDescriptor { node_id, ..Default::default() });
        }
        load(&mut state, 1, &[1, 2, 3]);
        load(&mut state, 2, &[1, 2]);
        let view = state.view(Duration::ZERO);
        assert_eq!(state.missing(3, &[(1, 3), (2, 3)].into(), 9), [0; 0]);
        assert_eq!(state.missing(3, &[(2, 3)].into(), 9), [1]);
        assert_eq!(state.awaited(3, &view, 9), [2]);
        assert_eq!(state.awaited(1, &view, 9), [0; 0], "it is a voter of both");
        assert_eq!(state.awaited(4, &view, 9), [0; 0], "not of the cluster");

        // A spare node, in a cluster that needs nothing from it.
        load(&mut state, 2, &[1, 2, 3]);
        state.nodes.insert(4, NodeDescriptor { node_id: 4, ..Default::default() });
        assert_eq!(state.awaited(4, &state.view(Duration::ZERO), 9), [0; 0]);
        // One of the other nodes lost its disk and was removed.
        state.nodes.get_mut(&1).unwrap().set_state(NodeState::NodeRemoved);
        assert_eq!(state.awaited(4, &state.view(Duration::ZERO), 9), [1, 2]);
    }

    #[test]
    fn a_stored_setting_that_cannot_be_read_is_told_and_its_default_holds() {
        let mut state = State::default();
        let stored = |value: &str| ConfigValue { value: value.to_owned(), ..Default::default() };
        state.set(settings::REPLICATION_FACTOR.to_owned(), stored("three"));
        state.set(settings::NODE_DEAD_AFTER.to_owned(), stored("0s"));
        state.set(settings::GC_RETENTION.to_owned(), stored("1h"));
        state.set("of_another_version".to_owned(), stored("?"));
        assert_eq!(state.settings().replication_factor, 3);
        assert_eq!(state.settings().node_dead_after, Duration::from_secs(30 * 60));
        assert_eq!(state.settings().gc_retention, Duration::from_secs(60 * 60));
        let told: Vec<&str> = state.unusable_settings().into_iter().map(|(name, _)| name).collect();
        assert_eq!(told, [settings::NODE_DEAD_AFTER, settings::REPLICATION_FACTOR]);
    }

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
        let mut told = |node_id, has: &[u64], count| -> Vec<u64> {
            let has = has.iter().map(|range| (*range, node_id)).collect();
            let elsewhere = state.elsewhere(node_id, &has, count);
            elsewhere.iter().map(|descriptor| descriptor.range_id).collect()
        };
        assert_eq!(told(1, &[1, 2], 9), [2]);
        assert_eq!(told(2, &[1, 2], 9), [0; 0], "a member of both");
        assert_eq!(told(4, &[1, 2, 7], 9), [1, 2], "of range 7 nothing is known");
        assert_eq!(told(4, &[1, 2], 1), [1]);
        assert_eq!(told(4, &[], 9), [0; 0], "it has no replica");
        let older = [(2, 1)].into();
        let elsewhere = state.elsewhere(2, &older, 9);
        assert_eq!(elsewhere.len(), 1, "replica 1 of range 2 is not the one that is a member");
    }
}
