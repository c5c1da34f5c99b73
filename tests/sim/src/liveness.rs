//! Liveness phase: the state that the cluster must come back to once it is mended, and the time
//! limit.
//!
//! In some seeds a minority stays away at first: one node is down, deaf, mute or cut off from the
//! others. The other nodes must serve nevertheless, and clients reach all nodes. Then everything is
//! mended, and the cluster must be as before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::ReplicaRole;
use rangedb_raftstore::RangeStatus;

use crate::disk::Space;
use crate::run::{Failure, Run, Step, of_the_world};
use crate::schedule::{Micros, SECOND};
use crate::world::World;

/// Time after the mending within which the cluster must serve, be fully replicated and agree. An
/// election takes up to two seconds, a step of the scheduler half a second, and a cluster that
/// grows takes some twenty steps.
pub(crate) const LIVENESS_BOUND: Micros = 60 * SECOND;

/// Percentage of seeds in which all disks are nearly full at first.
const NEARLY_FULL_PERCENT: u32 = 25;

/// Percentage of seeds, among those that allow it, in which a minority stays away at first.
const MINORITY_PERCENT: u32 = 50;

/// Maximum number of entries that a follower lacks while it keeps up with its leader.
const ON_THEIR_WAY_MAX: u64 = 4;

/// Keys that only this phase writes. Every range of users has one, however users' ranges are split.
const PROBES: [&str; 7] =
    ["!alive", "/alive", "/pair-z", "/register-z", "x/alive", "x/pair-z", "z/alive"];

/// Keys that lie in two ranges, however users' ranges are split.
const PROBES_ACROSS: [&str; 2] = ["!across", "z/across"];

impl Run<'_> {
    /// Mends everything, then leaves the disks room only for writes that free space, and demands
    /// deletes in every range of users. All replicas must keep up before: there is no room for a
    /// snapshot later.
    pub(crate) fn empty_full_disks(&mut self) -> Step {
        let world = &mut *self.world;
        if world.schedule.random(|rng| rng.u32(0..100)) >= NEARLY_FULL_PERCENT {
            return Ok(());
        }
        world.heal().map_err(of_the_world)?;
        let deadline = world.schedule.now() + LIVENESS_BOUND;
        self.wait_until(deadline, "no replica is far behind", |world| {
            is_fully_replicated(world) && keeps_up(world)
        })?;
        let world = &mut *self.world;
        world.schedule.remark(|| "--- disks are nearly full ---".to_owned());
        (0..world.slots.len()).for_each(|slot| world.set_space(slot, Space::Reserve));
        let deadline = world.schedule.now() + LIVENESS_BOUND;
        let done = Arc::new(AtomicUsize::new(0));
        for key in PROBES {
            let (worker, done) = (self.world.worker(0), done.clone());
            self.world.spawn(worker.host, async move {
                while !worker.delete(key).await {}
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        let what = "deletes succeed in every range of users though disks are nearly full";
        self.wait_until(deadline, what, move |_| done.load(Ordering::Relaxed) == PROBES.len())
    }

    /// Mends all but one node and demands writes. Only in seeds where no range needs that node,
    /// because none was lost or replaced.
    pub(crate) fn go_on_without_a_minority(&mut self) -> Step {
        let world = &mut *self.world;
        let all_as_founded = world.plan.shape.founders >= 3
            && world.plan.shape.joiners == 0
            && !world.wiped
            && world.removed.is_none()
            && world.plan.node_dead_after.is_none();
        if !all_as_founded || world.schedule.random(|rng| rng.u32(0..100)) >= MINORITY_PERCENT {
            return Ok(());
        }
        world.schedule.remark(|| "--- everything but a minority is mended ---".to_owned());
        world.heal().map_err(of_the_world)?;
        world.leave_one_out().map_err(of_the_world)?;
        let deadline = world.schedule.now() + LIVENESS_BOUND;
        self.wait_for_writes(deadline)
    }

    pub fn wait_until(
        &mut self,
        deadline: Micros,
        what: &str,
        is_so: impl Fn(&World) -> bool,
    ) -> Step {
        if self.run_until(deadline, is_so)? {
            return Ok(());
        }
        let replicas = self.world.replicas();
        let line = |(slot, s): &(usize, RangeStatus)| {
            format!(
                "\n    node-{slot} r{} replica {} term {} leader {} leads {} fenced {} applied {} \
                 commit {} last {} members {:?}",
                s.descriptor.range_id,
                s.replica.replica_id,
                s.term,
                s.leader_replica_id,
                s.leads,
                s.fenced,
                s.applied_index,
                s.commit_index,
                s.last_index,
                s.descriptor
                    .replicas
                    .iter()
                    .map(|r| (r.replica_id, r.node_id, r.role))
                    .collect::<Vec<_>>()
            )
        };
        let state: String = replicas.iter().map(line).collect();
        Err(Failure::Liveness(format!("in time it should be that {what}, but:{state}")))
    }

    /// Waits until writes succeed in every range of users, and in two at once.
    pub(crate) fn wait_for_writes(&mut self, deadline: Micros) -> Step {
        let done = Arc::new(AtomicUsize::new(0));
        for key in PROBES {
            let (worker, done) = (self.world.worker(0), done.clone());
            self.world.spawn(worker.host, async move {
                while !worker.put(key).await {}
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        let (worker, across) = (self.world.worker(0), done.clone());
        self.world.spawn(worker.host, async move {
            let keys = PROBES_ACROSS.map(str::to_owned);
            while !worker.write_pair(&keys, true).await {}
            across.fetch_add(1, Ordering::Relaxed);
        });
        let what = "writes succeed in every range of users, and in two at once";
        self.wait_until(deadline, what, move |_| done.load(Ordering::Relaxed) == PROBES.len() + 1)
    }
}

/// True if all nodes run, and every range has as many voters as it should, all on these nodes, and
/// no other replicas.
pub(crate) fn is_fully_replicated(world: &World) -> bool {
    let wanted = world.slots.len().min(3);
    let running: Vec<u64> = world
        .slots
        .iter()
        .filter_map(|slot| slot.process.as_ref().map(|process| process.node_id))
        .collect();
    let leaders: Vec<RangeStatus> =
        world.replicas().into_iter().map(|(_, status)| status).filter(|s| s.leads).collect();
    running.len() == world.slots.len()
        && (1..=world.ranges).all(|range| {
            let leader = leaders.iter().filter(|s| s.descriptor.range_id == range);
            let leader = leader.max_by_key(|status| status.term);
            leader.is_some_and(|status| {
                let replicas = &status.descriptor.replicas;
                replicas.len() == wanted
                    && !status.descriptor.in_joint_change()
                    && replicas.iter().all(|replica| {
                        replica.role() == ReplicaRole::Voter && running.contains(&replica.node_id)
                    })
            })
        })
}

/// True if every replica has the entries that any other replica has applied, but for a few in
/// flight.
fn keeps_up(world: &World) -> bool {
    let mut applied: BTreeMap<u64, u64> = BTreeMap::new();
    let replicas = world.replicas();
    for (_, status) in &replicas {
        let highest = applied.entry(status.descriptor.range_id).or_default();
        *highest = status.applied_index.max(*highest);
    }
    replicas.iter().all(|(_, status)| {
        status.last_index + ON_THEIR_WAY_MAX >= applied[&status.descriptor.range_id]
    })
}

/// True if the members of every range, and no other nodes, hold a replica of it, all at the same
/// entry.
pub(crate) fn agrees(world: &World) -> bool {
    let mut ranges: BTreeMap<u64, Vec<(u64, RangeStatus)>> = BTreeMap::new();
    for (slot, status) in world.replicas() {
        let node = world.slots[slot].process.as_ref().map_or(0, |process| process.node_id);
        ranges.entry(status.descriptor.range_id).or_default().push((node, status));
    }
    ranges.values().all(|replicas| {
        let first = &replicas[0].1;
        replicas.len() == first.descriptor.replicas.len()
            && replicas.iter().all(|(node, status)| {
                first.descriptor.replica_on(*node).is_some()
                    && status.applied_index == first.applied_index
                    && status.descriptor == first.descriptor
            })
    })
}

#[cfg(test)]
mod tests {
    use rangedb_proto::SYSTEM_PREFIX;
    use rangedb_proto::v1::{Formation, NodeDescriptor};
    use rangedb_server::founding::founding_ranges;

    use super::*;
    use crate::plan::SPLIT_KEYS;

    #[test]
    fn every_range_of_users_has_a_probe_however_they_are_split() {
        let formation = Formation {
            cluster_id: 1,
            nodes: vec![NodeDescriptor { node_id: 1, ..Default::default() }],
            replication_factor: 1,
            split_keys: SPLIT_KEYS.map(str::to_owned).to_vec(),
            ..Default::default()
        };
        for range in founding_ranges(&formation) {
            let of_users = !range.start_key.starts_with(SYSTEM_PREFIX);
            let holds = |key: &&str| range.contains(key.as_bytes());
            assert_eq!(PROBES.iter().any(holds), of_users, "{range:?}");
            assert!(!PROBES_ACROSS.iter().all(holds), "{range:?}");
        }
    }
}
