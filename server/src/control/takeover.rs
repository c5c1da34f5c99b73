//! Takeover: a node becomes the control plane. Each step rests on the one before.
//!
//! 1. The stored timestamp bound becomes this leader's fence: no read was ever served above it, so
//!    the leader's commits may begin there. (Other ranges ask the oracle for a fence. The control
//!    range needs its fence before there is an oracle.)
//! 2. A new bound and the term are committed in one command. The commit also proves that this node
//!    leads. From then on no older control plane can commit anything.
//! 3. On the very first takeover, the founding state is written.
//! 4. Nodes, ranges and configuration are loaded.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use prost::Message;
use rangedb_proto::Timestamp;
use rangedb_proto::v1::{
    self, ConfigValue, Formation, NodeDescriptor, RangeDescriptor, SkippedEntry,
};
use rangedb_raftstore::Event;

use super::commit::{absent, at_version, put};
use super::garbage::Garbage;
use super::state::State;
use super::time::SeenTimestamp;
use super::timestamps::{commit_bound, stored_bound, timestamp};
use super::{CONTROL, Control, Surroundings, keys, oracle::Oracle};
use crate::founding::founding_ranges;

/// Makes this node, which leads the control range in `term`, the control plane.
///
/// `seen` is the last timestamp of the earlier oracle that this node saw.
pub async fn take_over(
    around: Surroundings,
    term: u64,
    seen: Option<SeenTimestamp>,
) -> Result<Arc<Control>, v1::Error> {
    let (stored, version) = stored_bound(&around).await?;
    let old_bound = if stored == Timestamp::ZERO { founded_at(&around) } else { stored };
    let fence = Event::Fenced { range: CONTROL, term, timestamp: old_bound };
    if !around.stores.send(CONTROL, fence) {
        return Err(v1::Error::unavailable("the store is too busy to take the fence"));
    }
    let mut oracle = Oracle::behind(old_bound, seen);
    let now_ms = oracle.time_ms(around.clock.unix_millis(), around.net.now());
    let bound = oracle.wanted_bound(now_ms).unwrap_or(old_bound);
    // Timestamps below the old bound may have been handed out; the bound itself was not. Timestamp
    // 0 is not valid, so the first start_ts of all is 1.
    let start_ts = old_bound.max(Timestamp(1));
    // An older control plane of this node may have committed a higher bound since this one was
    // read.
    let unchanged = at_version(keys::TIMESTAMP_BOUND.into(), version);
    if !commit_bound(&around, term, start_ts, bound, unchanged).await? {
        // That attempt may be of another term. The next attempt begins at its bound.
        return Err(v1::Error::unavailable("an earlier attempt to take over came through"));
    }
    oracle.extend(bound);

    let since = around.net.now();
    let control = Arc::new(Control {
        term,
        around,
        oracle: Mutex::new(oracle),
        extending: futures::lock::Mutex::new(()),
        state: Mutex::new(State { since, ..Default::default() }),
        changing: futures::lock::Mutex::new(()),
        deadlocks: Mutex::default(),
    });
    control.found_if_first().await?;
    control.load().await?;
    Ok(control)
}

/// Time at which the cluster was founded, by the founders' clocks. The first oracle starts from it:
/// its own clock alone may be wrong, and no oracle before it shows a better one.
fn founded_at(around: &Surroundings) -> Timestamp {
    let founded_unix_ms =
        around.formation.as_ref().map_or(0, |formation| formation.founded_unix_ms);
    Timestamp::from_millis(founded_unix_ms)
}

impl Control {
    /// Writes the founding state, unless it is already stored.
    async fn found_if_first(&self) -> Result<(), v1::Error> {
        if self.around.get_control(keys::CLUSTER_ID).await?.is_some() {
            return Ok(());
        }
        let Some(formation) = &self.around.formation else {
            let message = "the control range is empty and this node did not found the cluster";
            return Err(v1::Error::unavailable(message));
        };
        let conditions = vec![absent(keys::CLUSTER_ID)];
        self.commit(conditions, founding_writes(formation)).await?;
        Ok(())
    }

    async fn load(&self) -> Result<(), v1::Error> {
        let nodes = self.around.list_control(keys::NODES).await?;
        let partitions = self.around.list_control(keys::PARTITIONS).await?;
        let config = self.around.list_control(keys::CONFIG).await?;
        let skipped = self.around.list_control(keys::SKIPPED_ENTRIES).await?;
        let garbage = self.load_garbage().await?;
        let mut state = self.state();
        for kv in nodes {
            let node: NodeDescriptor = decode(&kv.key, kv.value)?;
            state.nodes.insert(node.node_id, node);
        }
        for kv in partitions {
            let descriptor: RangeDescriptor = decode(&kv.key, kv.value)?;
            state.directory.load(descriptor);
        }
        for kv in config {
            let name = String::from_utf8_lossy(&kv.key[keys::CONFIG.len()..]).into_owned();
            let value: ConfigValue = decode(&kv.key, kv.value)?;
            state.config.insert(name, value);
        }
        for kv in skipped {
            let entry: SkippedEntry = decode(&kv.key, kv.value)?;
            state.skipped.insert((entry.range_id, entry.index), entry);
        }
        state.garbage = garbage;
        for (name, why) in state.unusable_settings() {
            tracing::error!(name, why, "a stored setting cannot be used: its default is in force");
        }
        Ok(())
    }

    async fn load_garbage(&self) -> Result<Garbage, v1::Error> {
        let floor = self.around.get_control(keys::GC_FLOOR).await?;
        let floor = floor.map_or(Ok(Timestamp::ZERO), |kv| timestamp(&kv))?;
        let mut holds = Vec::new();
        for kv in self.around.list_control(keys::GC_HOLDS).await? {
            let name = String::from_utf8_lossy(&kv.key[keys::GC_HOLDS.len()..]).into_owned();
            holds.push((name, timestamp(&kv)?));
        }
        Ok(Garbage::load(floor, holds.into_iter(), self.around.net.now()))
    }
}

fn founding_writes(formation: &Formation) -> Vec<v1::Operation> {
    let next_node_id = formation.nodes.iter().map(|node| node.node_id).max().unwrap_or(0) + 1;
    let mut writes = vec![
        put(keys::CLUSTER_ID.into(), format!("{:016x}", formation.cluster_id)),
        put(keys::NEXT_NODE_ID.into(), next_node_id.to_string()),
    ];
    let nodes = formation.nodes.iter();
    writes.extend(nodes.map(|node| put(keys::node(node.node_id), node.encode_to_vec())));
    let ranges = founding_ranges(formation);
    writes.extend(ranges.iter().map(|r| put(keys::partition(r.range_id), r.encode_to_vec())));
    writes
}

pub(super) fn decode<M: Message + Default>(key: &[u8], value: Bytes) -> Result<M, v1::Error> {
    M::decode(value).map_err(|e| {
        let what = format!("the value of {}: {e}", key.escape_ascii());
        crate::node::storage_error(rangedb_storage::Error::corrupt(what))
    })
}
