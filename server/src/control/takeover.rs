//! Takeover: a node becomes the control plane. Each step rests on the one before.
//!
//! 1. The stored timestamp bound becomes this leader's fence: no read was ever served above it, so
//!    the leader's commits may begin there. (Other ranges ask the oracle for a fence. The control
//!    range needs its fence before there is an oracle.)
//! 2. A new bound and the term are committed in one command. The commit also proves that this node
//!    leads. From then on no older control plane can commit anything.
//! 3. On the very first takeover, the founding state is written.
//! 4. Nodes, ranges and configuration are loaded.

use std::sync::Arc;

use parking_lot::Mutex;
use rangedb_client::net::BoxFuture;
use rangedb_proto::v1::{self, Formation};
use rangedb_proto::{RangeId, Timestamp};
use rangedb_raftstore::Event;

use super::garbage::Garbage;
use super::state::State;
use super::timestamps::bound_changes;
use super::{CONTROL, Control, oracle::Oracle};
use crate::founding::founding_ranges;
use crate::surroundings::Surroundings;
use crate::system::records::{self, ClusterId};
use crate::system::{Changes, CommitError, Owner, Role, SystemStore, View};

impl Role for Control {
    const RANGE: RangeId = CONTROL;

    fn take_over(
        around: Surroundings,
        term: u64,
    ) -> BoxFuture<'static, Result<Arc<Self>, v1::Error>> {
        Box::pin(take_over(around, term))
    }

    fn serve(self: &Arc<Self>) {
        self.watch();
    }
}

/// Makes this node, which leads the control range in `term`, the control plane.
async fn take_over(around: Surroundings, term: u64) -> Result<Arc<Control>, v1::Error> {
    let owner = Owner::new(&records::CONTROL_TERM.only(), &term);
    let store = SystemStore::new(around.clone(), CONTROL, owner);
    let stored = store.read().await?.get(&records::TIMESTAMP_BOUND.only())?;
    let (old_bound, version) = match stored {
        Some(stored) => (stored.record, stored.version),
        None => (founded_at(&around), 0),
    };
    let fence = Event::Fenced { range: CONTROL, term, timestamp: old_bound };
    if !around.stores.send(CONTROL, fence) {
        return Err(v1::Error::unavailable("the store is too busy to take the fence"));
    }
    let seen = *around.oracle_seen.lock();
    let mut oracle = Oracle::behind(old_bound, seen);
    let now_ms = oracle.time_ms(around.clock.unix_millis(), around.net.now());
    let bound = oracle.wanted_bound(now_ms).unwrap_or(old_bound);
    // Timestamps below the old bound may have been handed out; the bound itself was not. Timestamp
    // 0 is not valid, so the first start_ts of all is 1.
    let start_ts = old_bound.max(Timestamp(1));
    // An older control plane of this node may have committed a higher bound since this one was
    // read.
    let unchanged = Changes::default().if_version(records::TIMESTAMP_BOUND.only(), version);
    match store.take_over(start_ts, bound_changes(unchanged, bound)).await {
        Ok(committed) if !committed.repeated_command => {}
        // That attempt may be of another term. The next attempt begins at its bound.
        Ok(_) | Err(CommitError::StartUsed) => {
            return Err(v1::Error::unavailable("an earlier attempt to take over came through"));
        }
        Err(error) => return Err(error.into()),
    }
    oracle.extend(bound);

    let since = around.net.now();
    let control = Arc::new(Control {
        term,
        around,
        store,
        oracle: Mutex::new(oracle),
        extending: futures::lock::Mutex::new(()),
        state: Mutex::new(State::new(since)),
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
        let cluster_id = records::CLUSTER_ID.only();
        if self.store.read().await?.get(&cluster_id)?.is_some() {
            return Ok(());
        }
        let Some(formation) = &self.around.formation else {
            let message = "the control range is empty and this node did not found the cluster";
            return Err(v1::Error::unavailable(message));
        };
        self.commit(founding_changes(formation).if_absent(cluster_id)).await?;
        Ok(())
    }

    async fn load(&self) -> Result<(), v1::Error> {
        let view = self.store.read().await?;
        let garbage = self.load_garbage(&view)?;
        let mut state = self.state();
        for stored in view.list(&records::NODES)? {
            state.nodes.insert(stored.record.node_id, stored.record);
        }
        for stored in view.list(&records::PARTITIONS)? {
            state.directory.load(stored.record);
        }
        for stored in view.list(&records::CONFIG)? {
            state.set(stored.name, stored.record);
        }
        for stored in view.list(&records::SKIPPED_ENTRIES)? {
            let entry = stored.record;
            state.skipped.insert((entry.range_id, entry.index), entry);
        }
        state.garbage = garbage;
        for (name, why) in state.unusable_settings() {
            tracing::error!(name, why, "a stored setting cannot be used: its default is in force");
        }
        Ok(())
    }

    fn load_garbage(&self, view: &View) -> Result<Garbage, v1::Error> {
        let floor = view.get(&records::GC_FLOOR.only())?;
        let floor = floor.map_or(Timestamp::ZERO, |stored| stored.record);
        let holds = view.list(&records::GC_HOLDS)?;
        let holds = holds.into_iter().map(|stored| (stored.name, stored.record));
        Ok(Garbage::load(floor, holds, self.around.net.now()))
    }
}

fn founding_changes(formation: &Formation) -> Changes {
    let next_node_id = formation.nodes.iter().map(|node| node.node_id).max().unwrap_or(0) + 1;
    let mut changes = Changes::default()
        .put(records::CLUSTER_ID.only(), &ClusterId(formation.cluster_id))
        .put(records::NEXT_NODE_ID.only(), &next_node_id);
    for node in &formation.nodes {
        changes = changes.put(records::NODES.key(node.node_id), node);
    }
    for range in founding_ranges(formation) {
        changes = changes.put(records::PARTITIONS.key(range.range_id), &range);
    }
    changes
}
