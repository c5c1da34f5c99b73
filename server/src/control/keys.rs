//! Keys of the control plane: ordinary keys of the control range (design, "Key space").

use bytes::Bytes;

/// The cluster's id as 16 hex digits; written once, at the founding.
pub const CLUSTER_ID: &[u8] = b"_/cluster/id";
/// Decimal id for the next node.
pub const NEXT_NODE_ID: &[u8] = b"_/cluster/next-node-id";
/// Decimal timestamp. Only timestamps below it may have been handed out.
pub const TIMESTAMP_BOUND: &[u8] = b"_/cluster/timestamp-bound";
/// Decimal term of the newest control plane. Every commit of a control plane is under the condition
/// that this is its own term.
pub const CONTROL_TERM: &[u8] = b"_/cluster/control-term";
/// `v1::NodeDescriptor` by decimal id.
pub const NODES: &[u8] = b"_/cluster/nodes/";
/// `v1::ConfigValue` by name.
pub const CONFIG: &[u8] = b"_/cluster/config/";
/// `v1::ConfigValue` by name and version.
pub const CONFIG_HISTORY: &[u8] = b"_/cluster/config-history/";
/// Decimal timestamp below which nothing is read any more.
pub const GC_FLOOR: &[u8] = b"_/cluster/gc-floor";
/// Decimal timestamp by name of the hold that keeps the floor at or below it.
pub const GC_HOLDS: &[u8] = b"_/cluster/gc-holds/";
/// `v1::RangeDescriptor` by decimal id.
pub const PARTITIONS: &[u8] = b"_/partitions/";
/// `v1::SkippedEntry` by decimal range id and index.
pub const SKIPPED_ENTRIES: &[u8] = b"_/cluster/skipped-entries/";
/// Not stored: computed from the leaders' reports.
pub const RAFT_GROUPS: &[u8] = b"_/raft/groups/";

fn below(prefix: &[u8], name: &str) -> Bytes {
    [prefix, name.as_bytes()].concat().into()
}

pub fn node(node_id: u64) -> Bytes {
    below(NODES, &node_id.to_string())
}

pub fn config(name: &str) -> Bytes {
    below(CONFIG, name)
}

pub fn gc_hold(name: &str) -> Bytes {
    below(GC_HOLDS, name)
}

/// Key of one version of a setting. Versions are padded so that they list in order.
pub fn config_history(name: &str, version: u64) -> Bytes {
    below(CONFIG_HISTORY, &format!("{name}/{version:010}"))
}

pub fn skipped_entry(range_id: u64, index: u64) -> Bytes {
    below(SKIPPED_ENTRIES, &format!("{range_id}/{index}"))
}

pub fn partition(range_id: u64) -> Bytes {
    below(PARTITIONS, &range_id.to_string())
}
