//! Kinds of system records: the place of each in the key space, its type, and the range that holds
//! it (design, "Key space").
//!
//! A record's key is the prefix of its kind and a name. Kinds with one record have an empty name.

use std::fmt::Display;
use std::marker::PhantomData;

use bytes::Bytes;
use prost::Message;
use rangedb_proto::v1::{ConfigValue, NodeDescriptor, NodeState, RangeDescriptor, SkippedEntry};
use rangedb_proto::{RangeId, Timestamp};
use serde_json::{Value, json};

use crate::founding::CONTROL_RANGE_ID;

/// The control range.
pub const CONTROL: RangeId = RangeId(CONTROL_RANGE_ID);

/// The cluster's id; written once, at the founding.
pub static CLUSTER_ID: Kind<ClusterId> = Kind::of_control("_/cluster/id");
/// Id for the next node.
pub static NEXT_NODE_ID: Kind<u64> = Kind::of_control("_/cluster/next-node-id");
/// Only timestamps below it may have been handed out.
pub static TIMESTAMP_BOUND: Kind<Timestamp> = Kind::of_control("_/cluster/timestamp-bound");
/// Term of the newest control plane: its owner's record.
pub static CONTROL_TERM: Kind<u64> = Kind::of_control("_/cluster/control-term");
/// Nodes by id.
pub static NODES: Kind<NodeDescriptor> = Kind::of_control("_/cluster/nodes/");
/// Settings by name.
pub static CONFIG: Kind<ConfigValue> = Kind::of_control("_/cluster/config/");
/// Settings by name and version.
pub static CONFIG_HISTORY: Kind<ConfigValue> = Kind::of_control("_/cluster/config-history/");
/// Timestamp below which nothing is read any more.
pub static GC_FLOOR: Kind<Timestamp> = Kind::of_control("_/cluster/gc-floor");
/// Timestamps by name of the hold that keeps the floor at or below them.
pub static GC_HOLDS: Kind<Timestamp> = Kind::of_control("_/cluster/gc-holds/");
/// Entries without effect, by range id and index.
pub static SKIPPED_ENTRIES: Kind<SkippedEntry> = Kind::of_control("_/cluster/skipped-entries/");
/// Ranges by id.
pub static PARTITIONS: Kind<RangeDescriptor> = Kind::of_control("_/partitions/");

/// Every kind. Anything else under `_/` is shown as text.
pub static KINDS: [&dyn AnyKind; 11] = [
    &CLUSTER_ID,
    &NEXT_NODE_ID,
    &TIMESTAMP_BOUND,
    &CONTROL_TERM,
    &NODES,
    &CONFIG,
    &CONFIG_HISTORY,
    &GC_FLOOR,
    &GC_HOLDS,
    &SKIPPED_ENTRIES,
    &PARTITIONS,
];

/// Prefix of the raft groups. Not stored: computed from the leaders' reports.
pub const RAFT_GROUPS: &[u8] = b"_/raft/groups/";

/// Key of one version of a setting. Versions are padded so that they list in order.
pub fn config_history(name: &str, version: u64) -> Key<ConfigValue> {
    CONFIG_HISTORY.key(format_args!("{name}/{version:010}"))
}

/// Beginning of the names of all versions of a setting.
pub fn config_history_of(name: &str) -> String {
    format!("{name}/")
}

pub fn skipped_entry(range_id: u64, index: u64) -> Key<SkippedEntry> {
    SKIPPED_ENTRIES.key(format_args!("{range_id}/{index}"))
}

/// Kind of record.
pub struct Kind<R> {
    prefix: &'static str,
    range: RangeId,
    record: PhantomData<fn() -> R>,
}

/// Key of a record.
pub struct Key<R> {
    bytes: Bytes,
    prefix_bytes: usize,
    record: PhantomData<fn() -> R>,
}

/// A kind of record, whatever its type.
pub trait AnyKind: Sync {
    fn prefix(&self) -> &'static str;

    /// Range that holds the records.
    fn range(&self) -> RangeId;

    /// Returns a stored record as people are shown it; `None` if it cannot be decoded.
    fn show(&self, stored: &[u8]) -> Option<Value>;
}

/// Type of a record: its codec, and its form for people.
pub trait Record: Sized {
    fn to_stored(&self) -> Bytes;

    /// Reads a stored record. The error says what is wrong with it.
    fn from_stored(stored: &[u8]) -> Result<Self, String>;

    fn show(&self) -> Value;
}

impl<R> Kind<R> {
    const fn of_control(prefix: &'static str) -> Self {
        Kind { prefix, range: CONTROL, record: PhantomData }
    }

    pub fn prefix(&self) -> &'static str {
        self.prefix
    }

    /// Returns the key of the record with this name.
    pub fn key(&self, name: impl Display) -> Key<R> {
        let bytes = format!("{}{name}", self.prefix).into();
        Key { bytes, prefix_bytes: self.prefix.len(), record: PhantomData }
    }

    /// Returns the key of the only record.
    pub fn only(&self) -> Key<R> {
        self.key("")
    }
}

impl<R> Key<R> {
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    pub fn name(&self) -> &[u8] {
        &self.bytes[self.prefix_bytes..]
    }
}

impl<R: Record> AnyKind for Kind<R> {
    fn prefix(&self) -> &'static str {
        self.prefix
    }

    fn range(&self) -> RangeId {
        self.range
    }

    fn show(&self, stored: &[u8]) -> Option<Value> {
        R::from_stored(stored).ok().map(|record| record.show())
    }
}

/// Returns a stored value under `_/` as people are shown it.
pub fn show(key: &[u8], value: &[u8]) -> Value {
    let is_of = |kind: &&&dyn AnyKind| match kind.prefix() {
        prefix if prefix.ends_with('/') => key.starts_with(prefix.as_bytes()),
        only => key == only.as_bytes(),
    };
    let known = KINDS.iter().find(is_of).and_then(|kind| kind.show(value));
    known.unwrap_or_else(|| match std::str::from_utf8(value) {
        Ok(text) => json!(text),
        Err(_) => json!({ "bytes": value.escape_ascii().to_string() }),
    })
}

/// Id of a cluster; stored as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClusterId(pub u64);

impl Record for ClusterId {
    fn to_stored(&self) -> Bytes {
        format!("{:016x}", self.0).into()
    }

    fn from_stored(stored: &[u8]) -> Result<Self, String> {
        let id = u64::from_str_radix(text(stored)?, 16).map_err(|error| error.to_string())?;
        Ok(ClusterId(id))
    }

    fn show(&self) -> Value {
        json!(format!("{:016x}", self.0))
    }
}

/// A number; stored in decimal.
impl Record for u64 {
    fn to_stored(&self) -> Bytes {
        self.to_string().into()
    }

    fn from_stored(stored: &[u8]) -> Result<Self, String> {
        text(stored)?.parse().map_err(|error: std::num::ParseIntError| error.to_string())
    }

    fn show(&self) -> Value {
        json!(self.to_string())
    }
}

/// A timestamp; stored in decimal.
impl Record for Timestamp {
    fn to_stored(&self) -> Bytes {
        self.0.to_stored()
    }

    fn from_stored(stored: &[u8]) -> Result<Self, String> {
        let timestamp = Timestamp(u64::from_stored(stored)?);
        let is_valid = timestamp <= Timestamp::MAX;
        is_valid.then_some(timestamp).ok_or_else(|| format!("{} is no timestamp", timestamp.0))
    }

    fn show(&self) -> Value {
        self.0.show()
    }
}

fn text(stored: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(stored).map_err(|error| error.to_string())
}

/// Implements [`Record`] for messages, which are stored in their encoding.
macro_rules! messages {
    ($($message:ident => $show:expr;)*) => {
        $(impl Record for $message {
            fn to_stored(&self) -> Bytes {
                self.encode_to_vec().into()
            }

            fn from_stored(stored: &[u8]) -> Result<Self, String> {
                <$message as Message>::decode(stored).map_err(|error| error.to_string())
            }

            fn show(&self) -> Value {
                let show: fn(&$message) -> Value = $show;
                show(self)
            }
        })*
    };
}

messages! {
    NodeDescriptor => |node| json!({
        "node_id": node.node_id,
        "peer_address": node.peer_address,
        "client_address": node.client_address,
        "status_address": node.status_address,
        "directory_id": format!("{:016x}", node.directory_id),
        "state": match node.state() {
            NodeState::NodeUp => "up",
            NodeState::NodeDead => "dead",
            NodeState::NodeRemoved => "removed",
        },
        "version": node.version,
    });
    ConfigValue => |value| json!({
        "value": value.value,
        "version": value.version,
        "actor": value.actor,
        "changed_ts": value.changed_ts,
    });
    SkippedEntry => |entry| json!({
        "range_id": entry.range_id,
        "index": entry.index,
        "reason": entry.reason,
        "actor": entry.actor,
        "decided_ts": entry.decided_ts,
    });
    RangeDescriptor => |descriptor| {
        let replicas = descriptor.replicas.iter().map(|replica| json!({
            "replica_id": replica.replica_id,
            "node_id": replica.node_id,
            "role": replica.role().as_str_name().to_lowercase(),
        }));
        let epoch = descriptor.epoch.unwrap_or_default();
        json!({
            "range_id": descriptor.range_id,
            "start_key": descriptor.start_key.escape_ascii().to_string(),
            "end_key": descriptor.end_key.escape_ascii().to_string(),
            "epoch": { "version": epoch.version, "conf_ver": epoch.conf_ver },
            "replicas": replicas.collect::<Vec<_>>(),
            "next_replica_id": descriptor.next_replica_id,
        })
    };
}

#[cfg(test)]
mod tests {
    use rangedb_proto::RangeDescriptorExt;
    use rangedb_proto::v1::Formation;

    use super::*;
    use crate::founding::founding_ranges;

    #[test]
    fn every_kind_lies_in_its_range_and_apart_from_the_others() {
        let nodes = vec![NodeDescriptor { node_id: 1, ..Default::default() }];
        let formation = Formation { nodes, replication_factor: 1, ..Default::default() };
        let ranges = founding_ranges(&formation);
        for kind in KINDS {
            let range = ranges.iter().find(|range| range.range_id == kind.range().0).unwrap();
            assert!(range.contains(kind.prefix().as_bytes()), "{}", kind.prefix());
            let last = [kind.prefix().as_bytes(), &[0xff]].concat();
            assert!(range.contains(&last), "{}", kind.prefix());
            let lists = |other: &&&dyn AnyKind| {
                other.prefix() != kind.prefix() && other.prefix().starts_with(kind.prefix())
            };
            let mixed = KINDS.iter().find(lists).filter(|_| kind.prefix().ends_with('/'));
            assert!(mixed.is_none(), "{} lists {}", kind.prefix(), mixed.unwrap().prefix());
        }
    }

    #[test]
    fn records_come_back_and_others_are_refused_with_the_reason() {
        assert_eq!(ClusterId::from_stored(&ClusterId(0xab).to_stored()), Ok(ClusterId(0xab)));
        assert_eq!(u64::from_stored(&7_u64.to_stored()), Ok(7));
        assert_eq!(Timestamp::from_stored(&Timestamp::MAX.to_stored()), Ok(Timestamp::MAX));
        assert!(
            Timestamp::from_stored(&u64::MAX.to_stored()).unwrap_err().contains("no timestamp")
        );
        for bad in [&b""[..], b"x", b"\xff"] {
            assert!(u64::from_stored(bad).is_err() && ClusterId::from_stored(bad).is_err());
            assert!(Timestamp::from_stored(bad).is_err());
        }
        assert!(NodeDescriptor::from_stored(b"\xff").is_err());
    }

    #[test]
    fn what_cannot_be_decoded_is_shown_as_text_or_as_bytes() {
        assert_eq!(show(b"_/cluster/id", b"00000000000000ab"), json!("00000000000000ab"));
        assert_eq!(show(b"_/cluster/id", b"x"), json!("x"));
        assert_eq!(show(b"_/cluster/identity", b"12"), json!("12"), "another key");
        assert_eq!(show(b"_/cluster/nodes/1", b"\xff"), json!({ "bytes": "\\xff" }));
        let node = NodeDescriptor { node_id: 1, ..Default::default() };
        assert_eq!(show(b"_/cluster/nodes/1", &node.to_stored())["node_id"], json!(1));
    }
}
