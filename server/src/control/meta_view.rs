//! View of the keys under `_/` for people: stored messages as JSON, and the raft groups, which are
//! not stored.

use bytes::Bytes;
use futures::TryStreamExt;
use prost::Message;
use rangedb_client::RangeOptions;
use rangedb_proto::v1::{
    self, ConfigValue, MetaEntry, MetaRead, MetaReadReply, NodeDescriptor, NodeState,
    RangeDescriptor, RangeReport, SkippedEntry,
};
use rangedb_proto::{SYSTEM_PREFIX, prefix_end};
use serde_json::{Value, json};

use super::{Control, keys};

/// Entries in one page at most.
const ENTRIES_MAX: u64 = 500;

impl Control {
    pub(super) async fn meta_read(&self, ask: MetaRead) -> Result<MetaReadReply, v1::Error> {
        let prefix = if ask.prefix.is_empty() { SYSTEM_PREFIX.into() } else { ask.prefix.clone() };
        if !prefix.starts_with(SYSTEM_PREFIX) && !SYSTEM_PREFIX.starts_with(&prefix) {
            return Err(v1::Error::invalid("prefix", "system keys start with `_/`"));
        }
        let limit = if ask.limit == 0 { ENTRIES_MAX } else { ask.limit.min(ENTRIES_MAX) };
        let mut entries = self.stored(&ask, &prefix, limit).await?;
        entries.extend(self.groups_view(&ask, &prefix));
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        let more = entries.len() > limit as usize;
        entries.truncate(limit as usize);
        Ok(MetaReadReply { entries, more })
    }

    async fn stored(
        &self,
        ask: &MetaRead,
        prefix: &Bytes,
        limit: u64,
    ) -> Result<Vec<MetaEntry>, v1::Error> {
        let end = if ask.exact { successor(prefix) } else { prefix_end(prefix).into() };
        let after = if ask.after.is_empty() { prefix.clone() } else { successor(&ask.after) };
        let start = after.max(prefix.clone());
        if !end.is_empty() && start >= end {
            return Ok(Vec::new());
        }
        let options = RangeOptions::new(start, end).limit(limit + 1);
        let rows = self.around.gateway.system().range(options);
        let rows = rows.map_ok(|kv| MetaEntry {
            json: to_json(&kv.key, &kv.value).to_string(),
            key: kv.key,
            version: kv.version,
            mod_ts: kv.mod_ts.0,
        });
        rows.try_collect().await.map_err(|e: rangedb_client::Error| e.into())
    }

    fn groups_view(&self, ask: &MetaRead, prefix: &Bytes) -> Vec<MetaEntry> {
        let wanted = |key: &[u8]| {
            let asked = if ask.exact { key == &prefix[..] } else { key.starts_with(prefix) };
            asked && key > &ask.after[..]
        };
        let entry = |(id, report): (u64, RangeReport)| MetaEntry {
            key: [keys::RAFT_GROUPS, id.to_string().as_bytes()].concat().into(),
            json: report_json(&report).to_string(),
            ..Default::default()
        };
        self.groups().into_iter().map(entry).filter(|entry| wanted(&entry.key)).collect()
    }
}

/// The smallest key above this one.
fn successor(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

fn to_json(key: &[u8], value: &[u8]) -> Value {
    let known = if key.starts_with(keys::NODES) {
        NodeDescriptor::decode(value).ok().map(|node| node_json(&node))
    } else if key.starts_with(keys::CONFIG) || key.starts_with(keys::CONFIG_HISTORY) {
        ConfigValue::decode(value).ok().map(|value| config_json(&value))
    } else if key.starts_with(keys::PARTITIONS) {
        RangeDescriptor::decode(value).ok().map(|descriptor| descriptor_json(&descriptor))
    } else if key.starts_with(keys::SKIPPED_ENTRIES) {
        SkippedEntry::decode(value).ok().map(|entry| skipped_json(&entry))
    } else {
        None
    };
    known.unwrap_or_else(|| match std::str::from_utf8(value) {
        Ok(text) => json!(text),
        Err(_) => json!({ "bytes": value.escape_ascii().to_string() }),
    })
}

fn node_json(node: &NodeDescriptor) -> Value {
    let state = match node.state() {
        NodeState::NodeUp => "up",
        NodeState::NodeDead => "dead",
        NodeState::NodeRemoved => "removed",
    };
    json!({
        "node_id": node.node_id,
        "peer_address": node.peer_address,
        "client_address": node.client_address,
        "status_address": node.status_address,
        "directory_id": format!("{:016x}", node.directory_id),
        "state": state,
        "version": node.version,
    })
}

fn config_json(value: &ConfigValue) -> Value {
    json!({
        "value": value.value,
        "version": value.version,
        "actor": value.actor,
        "changed_ts": value.changed_ts,
    })
}

fn skipped_json(entry: &SkippedEntry) -> Value {
    json!({
        "range_id": entry.range_id,
        "index": entry.index,
        "reason": entry.reason,
        "actor": entry.actor,
        "decided_ts": entry.decided_ts,
    })
}

fn descriptor_json(descriptor: &RangeDescriptor) -> Value {
    let replicas = descriptor.replicas.iter().map(|replica| {
        json!({
            "replica_id": replica.replica_id,
            "node_id": replica.node_id,
            "role": replica.role().as_str_name().to_lowercase(),
        })
    });
    let epoch = descriptor.epoch.unwrap_or_default();
    json!({
        "range_id": descriptor.range_id,
        "start_key": descriptor.start_key.escape_ascii().to_string(),
        "end_key": descriptor.end_key.escape_ascii().to_string(),
        "epoch": { "version": epoch.version, "conf_ver": epoch.conf_ver },
        "replicas": replicas.collect::<Vec<_>>(),
        "next_replica_id": descriptor.next_replica_id,
    })
}

fn report_json(report: &RangeReport) -> Value {
    json!({
        "descriptor": report.descriptor.as_ref().map(descriptor_json),
        "term": report.term,
        "leader_node_id": report.leader_node_id,
        "down_replica_ids": report.down_replica_ids,
        "lagging_replica_ids": report.lagging_replica_ids,
        "applied_index": report.applied_index,
        "log_entries": report.log_entries,
        "rows": report.rows,
        "row_bytes": report.row_bytes,
        "in_joint_change": report.in_joint_change,
    })
}
