//! Operators' requests to the control plane.

use std::collections::BTreeMap;

use rangedb_proto::v1::{
    self, ClusterStatus, ConfigEntry, ConfigGet, ConfigGetReply, ConfigSet, ConfigSetReply,
    ConfigValue, NodeState, NodeStatus, PartitionList, PartitionListReply, PartitionStatus,
    RemoveNode, RemoveNodeReply, ReplicaRole,
};

use super::Control;
use super::directory::Entry;
use super::settings::{SETTINGS, Setting, find};
use super::time::Doubt;
use crate::system::Changes;
use crate::system::records;

/// Partitions in one page at most.
const PARTITIONS_MAX: u64 = 500;

/// Actor recorded with a change, until there are users: every client may make changes.
pub(super) const ACTOR: &str = "operator";

impl Control {
    pub fn cluster_status(&self) -> ClusterStatus {
        let now = self.around.net.now();
        let (timestamps_ahead_ms, doubt) = self.oracle_state();
        let state = self.state();
        let found = state.diagnose(now);
        let view = state.view(now);
        let wanted = view.replication_factor.min(view.living.len() + view.dead.len());
        let living_voters = |entry: &&Entry| {
            let replicas = entry.descriptor().replicas.iter();
            let voters = replicas.filter(|r| r.role() == ReplicaRole::Voter);
            let is_living = |id: &u64| view.living.contains_key(id) && !found.suspects.contains(id);
            voters.filter(|r| is_living(&r.node_id)).count()
        };
        let entries = || state.directory.entries();
        let mut replicas: BTreeMap<u64, u32> = BTreeMap::new();
        let mut leaders: BTreeMap<u64, u32> = BTreeMap::new();
        for entry in entries() {
            for replica in &entry.descriptor().replicas {
                *replicas.entry(replica.node_id).or_default() += 1;
            }
            *leaders.entry(entry.report.leader_node_id).or_default() += 1;
        }
        let nodes = state.nodes.values().map(|node| {
            let id = node.node_id;
            let heard = state.heard.get(&id);
            NodeStatus {
                node: Some(node.clone()),
                silent_ms: heard.map(|heard| millis(now.saturating_sub(heard.at))),
                stats: heard.map(|heard| heard.stats.clone()),
                clock_offset_ms: Self::clock_offset(&state, id, now),
                clock_differs: state.clocks.differs(id),
                suspect: found.suspects.contains(&id),
                replicas: replicas.get(&id).copied().unwrap_or_default(),
                leaders: leaders.get(&id).copied().unwrap_or_default(),
            }
        });
        ClusterStatus {
            cluster_id: self.around.cluster_id,
            nodes: nodes.collect(),
            replication_factor: state.settings().replication_factor,
            ranges: entries().count() as u32,
            ranges_under_replicated: entries().filter(|e| living_voters(e) < wanted).count() as u32,
            ranges_without_leader: found.without_leader,
            control_leader_node_id: self.around.node_id,
            timestamps_ahead_ms,
            ranges_quarantined: state.ranges_quarantined() as u32,
            clock_doubt: doubt.map_or("", Doubt::reason).to_owned(),
            ranges_replica_down: found.replica_down,
            ranges_without_quorum: found.without_quorum,
            ranges_under_factor: found.under_factor,
            problems: found.problems,
        }
    }

    pub(super) fn partition_list(&self, ask: &PartitionList) -> PartitionListReply {
        let now = self.around.net.now();
        let limit = if ask.limit == 0 { PARTITIONS_MAX } else { ask.limit.min(PARTITIONS_MAX) };
        let state = self.state();
        let behind =
            |entry: &&Entry| ask.after.is_empty() || entry.descriptor().start_key > ask.after;
        let mut partitions: Vec<_> = state
            .directory
            .entries()
            .filter(behind)
            .take(limit as usize + 1)
            .map(|entry| PartitionStatus {
                report: Some(entry.report.clone()),
                reported_ms: reported_ms(entry, now),
                operation: entry.operation.clone(),
                quarantined: state.quarantined_of(entry.descriptor().range_id).cloned().collect(),
            })
            .collect();
        let more = partitions.len() > limit as usize;
        partitions.truncate(limit as usize);
        PartitionListReply { partitions, more }
    }

    pub(super) async fn remove_node(&self, ask: RemoveNode) -> Result<RemoveNodeReply, v1::Error> {
        let _change = self.changing.lock().await;
        let (mut node, range_ids) = {
            let state = self.state();
            let node = state.find_node(&ask.node).cloned().ok_or_else(|| {
                v1::Error::not_found(format!("no node has the address or id `{}`", ask.node))
            })?;
            let ranges = state.ranges_on(node.node_id);
            if node.state() == NodeState::NodeRemoved {
                // A repetition: the first request has done it.
                return Ok(RemoveNodeReply { node: Some(node), range_ids: ranges });
            }
            let other = |id: &u64| *id != node.node_id;
            if !state.view(self.around.net.now()).living.keys().any(other) {
                let message = format!("node {} is the last living one", node.node_id);
                return Err(v1::Error::failed_precondition(message));
            }
            (node, ranges)
        };
        if !ask.dry_run {
            node.set_state(NodeState::NodeRemoved);
            self.commit(Changes::default().put(records::NODES.key(node.node_id), &node)).await?;
            self.state().nodes.insert(node.node_id, node.clone());
        }
        Ok(RemoveNodeReply { node: Some(node), range_ids })
    }

    pub(super) async fn config_get(&self, ask: ConfigGet) -> Result<ConfigGetReply, v1::Error> {
        let wanted: Vec<&Setting> = if ask.name.is_empty() {
            SETTINGS.iter().collect()
        } else {
            vec![known_setting(&ask.name)?]
        };
        let mut entries = Vec::new();
        for setting in wanted {
            let mut entry = self.config_entry(setting);
            if ask.history {
                let versions = records::config_history_of(setting.name);
                let history =
                    self.store.read().await?.list_below(&records::CONFIG_HISTORY, &versions)?;
                entry.history.extend(history.into_iter().map(|stored| stored.record));
            }
            entries.push(entry);
        }
        Ok(ConfigGetReply { entries })
    }

    pub(super) async fn config_set(&self, ask: ConfigSet) -> Result<ConfigSetReply, v1::Error> {
        let setting = known_setting(&ask.name)?;
        let value = setting.check(&ask.value)?;
        let _change = self.changing.lock().await;
        if let Some(done) = self.done_before(setting, ask.request_id).await? {
            if done.value != value {
                let message = format!("this request has set `{}` to another value", setting.name);
                return Err(v1::Error::invalid("request_id", message));
            }
            let entry = ConfigEntry { value: Some(done), ..self.config_entry(setting) };
            return Ok(ConfigSetReply { entry: Some(entry) });
        }
        let stored = self.state().stored_setting(setting.name).cloned();
        let version = stored.as_ref().map_or(0, |stored| stored.version);
        let changed_ts = self.fresh_timestamp().await?.0;
        let actor = ACTOR.to_owned();
        let request_id = ask.request_id;
        let new = ConfigValue { value, version: version + 1, actor, changed_ts, request_id };
        let mut entry = self.config_entry(setting);
        entry.value = Some(new.clone());
        if ask.dry_run {
            return Ok(ConfigSetReply { entry: Some(entry) });
        }
        let changes = Changes::default()
            .if_version(records::CONFIG.key(setting.name), version)
            .put(records::CONFIG.key(setting.name), &new)
            .put(records::config_history(setting.name, new.version), &new);
        self.commit(changes).await?;
        self.state().set(setting.name.to_owned(), new);
        Ok(ConfigSetReply { entry: Some(entry) })
    }

    /// Returns the value that a request of this id has set. Another change may have come after it, and
    /// a repetition must not undo that one.
    async fn done_before(
        &self,
        setting: &Setting,
        request_id: u64,
    ) -> Result<Option<ConfigValue>, v1::Error> {
        if request_id == 0 || self.state().stored_setting(setting.name).is_none() {
            return Ok(None);
        }
        let versions = records::config_history_of(setting.name);
        let history = self.store.read().await?.list_below(&records::CONFIG_HISTORY, &versions)?;
        let mut values = history.into_iter().map(|stored| stored.record);
        Ok(values.find(|value| value.request_id == request_id))
    }

    fn config_entry(&self, setting: &Setting) -> ConfigEntry {
        let state = self.state();
        let never_set = || ConfigValue { value: setting.default.to_owned(), ..Default::default() };
        let mut description = setting.description.to_owned();
        let mut unusable = state.unusable_settings().into_iter();
        if let Some((_, why)) = unusable.find(|(name, _)| *name == setting.name) {
            description.push_str(&format!(" (the default is in force: {why})"));
        }
        ConfigEntry {
            name: setting.name.to_owned(),
            value: Some(state.stored_setting(setting.name).cloned().unwrap_or_else(never_set)),
            default_value: setting.default.to_owned(),
            description,
            history: Vec::new(),
        }
    }

    /// Last reports of the leaders of all ranges, for the view at `_/raft/groups/`.
    pub(super) fn groups(&self) -> Vec<(u64, v1::RangeReport)> {
        let state = self.state();
        let entries = state.directory.entries();
        let mut groups: Vec<_> =
            entries.map(|e| (e.descriptor().range_id, e.report.clone())).collect();
        groups.sort_by_key(|(id, _)| *id);
        groups
    }
}

fn known_setting(name: &str) -> Result<&'static Setting, v1::Error> {
    find(name).ok_or_else(|| {
        let names: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
        let message =
            format!("there is no configuration `{name}`; there are: {}", names.join(", "));
        v1::Error::invalid("name", message)
    })
}

fn reported_ms(entry: &Entry, now: std::time::Duration) -> Option<u64> {
    entry.reported_at.map(|at| millis(now.saturating_sub(at)))
}

fn millis(duration: std::time::Duration) -> u64 {
    duration.as_millis() as u64
}
