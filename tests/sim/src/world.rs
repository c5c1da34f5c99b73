//! The simulated world: nodes in their slots, clients, and the loop that carries out one occurrence
//! after the other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{Formation, NodeDescriptor};
use rangedb_raftstore::{Event, RangeStatus};
use rangedb_server::founding::founding_ranges;
use rangedb_server::surroundings::WallClock;
use rangedb_storage::{FailedAppend, LogEngine};

use crate::ambush::Ambush;
use crate::check::Watch;
use crate::clients::ClientPlace;
use crate::clock::{Clock, TimeOfDay};
use crate::disk::{Disk, Identity};
use crate::executor::Executor;
use crate::gateway::Gateways;
use crate::history::History;
use crate::joining::join;
use crate::network::Network;
use crate::occurrence::{Fault, Host, Occurrence};
use crate::plan::Plan;
use crate::process::{Process, Site, Stall, descriptor};
use crate::schedule::{Micros, SECOND, Schedule};
use crate::trace::{Lines, Trace};
use crate::transactions::Transactions;
use crate::workload::Common;

/// Time between two comparisons of replicas. Each comparison hashes all data.
const COMPARE_EVERY: Micros = 5 * SECOND;

/// Percentage of calls to a stopped node that are refused at once. The others look like a broken
/// connection.
const REFUSED_BY_DOWN: u32 = 80;

const REPLICATION_FACTOR: u32 = 3;

/// Number of log entries, among those checked before, that every tick checks once more.
const LOOKED_AT_AGAIN: u64 = 8;

/// Slot of a node, which outlives the node's processes.
pub struct Slot {
    pub site: Site,
    pub disk: Disk,
    /// Number of the current life of the process. Each start and each end raises it, so that
    /// occurrences of an earlier life have no effect.
    pub life: u64,
    /// True if a process runs, or the node asks to join.
    pub up: bool,
    pub process: Option<Process>,
    /// Occurrences held back until the process goes on, in order; `None` if it is not paused.
    pub held: Option<VecDeque<(Host, Occurrence)>>,
    /// Index up to which the log of each range was checked, by range id.
    looked_at: BTreeMap<u64, u64>,
}

impl Slot {
    fn host(&self) -> Host {
        Host::Process { slot: self.site.slot, life: self.life }
    }
}

/// The simulated world.
pub struct World {
    pub plan: Plan,
    pub schedule: Schedule,
    pub watch: Watch,
    pub slots: Vec<Slot>,
    /// Number of founding ranges, whose ids begin at 1.
    pub ranges: u64,
    pub common: Common,
    pub faults_on: bool,
    pub ambush: Ambush,
    /// Number of the newest step of an episode. The next field is true while an episode is under
    /// way.
    pub episode: u64,
    pub in_episode: bool,
    pub wiped: bool,
    /// Id of the node that an operator has removed, or tried to remove.
    pub removed: Option<u64>,
    pub crashes: u64,
    pub clients: Vec<ClientPlace>,
    /// Number of settings that the first client has still to make.
    pub settings_unset: Arc<AtomicUsize>,
    pub executor: Executor,
}

impl World {
    pub fn new(seed: u64, lines: Option<Lines>) -> World {
        let mut rng = fastrand::Rng::with_seed(seed);
        let plan = Plan::draw(&mut rng);
        let clocks: Vec<(Clock, i64)> = (0..plan.shape.nodes())
            .map(|_| {
                let skew = rng.i64(-plan.skew_millis..=plan.skew_millis);
                (Clock::draw(&mut rng, plan.drift), skew)
            })
            .collect();
        let directories: Vec<u64> = clocks.iter().map(|_| rng.u64(1..)).collect();
        let cluster_id = rng.u64(1..);
        let clients = (0..plan.load.clients).map(|_| ClientPlace::draw(&mut rng, plan.drift));
        let clients: Vec<ClientPlace> = clients.collect();
        let network = Network::new(plan.weather.clone());
        let schedule = Schedule::new(rng, network, Trace::new(lines));
        let watch = Watch::default();
        let ambush = Ambush::default();
        schedule.remark(|| format!("{plan:?}"));
        watch.note(|checks| {
            checks.timestamps.near = plan.liar.is_some();
            Ok(())
        });

        let heavy_read_max = Arc::new(AtomicU64::new(plan.heavy_read_max));
        let slots = clocks.into_iter().zip(directories).enumerate();
        let slots = slots.map(|(slot, ((clock, skew), directory))| Slot {
            site: Site {
                slot,
                slots: plan.shape.nodes(),
                clock,
                time_of_day: TimeOfDay::new(schedule.clone(), skew),
                stores: plan.stores,
                config: plan.config.clone(),
                schedule: schedule.clone(),
                watch: watch.clone(),
                mailbox_full: plan.mailbox_full,
                stalls: plan.stalls,
                walk_pace: plan.walk_pace,
                stream_waits_max: plan.stream_waits_max,
                apply_max: plan.apply_max,
                record_cost: plan.record_cost,
                heavy_read_max: heavy_read_max.clone(),
                peers: plan.peers_of(slot),
                ambush: ambush.clone(),
            },
            disk: Disk::new(directory, plan.disk),
            life: 0,
            up: false,
            process: None,
            held: None,
            looked_at: BTreeMap::new(),
        });
        let soon_too_old = plan.retention_seconds.is_some();
        let common = Common {
            schedule: schedule.clone(),
            watch: watch.clone(),
            history: History::default(),
            load: plan.load,
            stop: Arc::new(AtomicBool::new(false)),
            active: Arc::new(AtomicUsize::new(plan.load.clients)),
            numbers: Arc::new(AtomicU64::new(0)),
            transactions: Transactions::new(&plan.load, &schedule, soon_too_old),
            soon_too_old,
            splits_pairs: plan.split_keys.iter().any(|key| key.ends_with("pair-b")),
            gateways: Gateways::new(schedule.clone(), plan.shape.nodes()),
            in_transaction: (0..plan.load.clients).map(|_| AtomicBool::new(false)).collect(),
        };
        let mut world = World {
            slots: slots.collect(),
            ranges: 0,
            schedule,
            watch,
            common,
            faults_on: true,
            ambush,
            episode: 0,
            in_episode: false,
            wiped: false,
            removed: None,
            crashes: 0,
            clients,
            settings_unset: Arc::default(),
            executor: Executor::default(),
            plan,
        };
        world.found(cluster_id);
        world.begin();
        world
    }

    /// Writes the founding state to the founders' disks, as the forming of a cluster does.
    fn found(&mut self, cluster_id: u64) {
        let founders = self.plan.shape.founders;
        let nodes = self.slots[..founders].iter().zip(1..).map(|(slot, node_id)| NodeDescriptor {
            node_id,
            ..descriptor(slot.site.slot, slot.disk.directory_id)
        });
        let mut clocks: Vec<u64> =
            self.slots[..founders].iter().map(|slot| slot.site.time_of_day.unix_millis()).collect();
        clocks.sort_unstable();
        let replication_factor = REPLICATION_FACTOR;
        let formation = Formation {
            cluster_id,
            nodes: nodes.collect(),
            replication_factor,
            split_keys: self.plan.split_keys.iter().map(|&key| key.to_owned()).collect(),
            founded_unix_ms: clocks[(clocks.len() - 1) / 2],
        };
        let ranges = founding_ranges(&formation);
        self.ranges = ranges.len() as u64;
        for (slot, node_id) in self.slots[..founders].iter_mut().zip(1..) {
            let mut ranges = ranges.clone();
            ranges.retain(|range| range.replica_on(node_id).is_some());
            rangedb_raftstore::bootstrap(&*slot.disk.log, &*slot.disk.state, &ranges)
                .expect("an empty disk takes the founding state");
            slot.disk.identity = Some(Identity {
                cluster_id,
                node_id,
                formation: Some(formation.clone()),
                opened: false,
                vote_embargo_us: 0,
                known_nodes: Vec::new(),
            });
        }
    }

    /// Schedules the first occurrences: starts of nodes, faults, settings, comparisons, and
    /// clients.
    fn begin(&mut self) {
        let schedule = self.schedule.clone();
        let (founders, safety) = (self.plan.shape.founders, self.plan.safety_phase);
        for slot in 0..self.slots.len() {
            let latest = if slot < founders { SECOND } else { safety / 2 };
            let at = schedule.between(0, latest);
            schedule.at(at, Host::World, Occurrence::Fault(Fault::Restart { slot }));
        }
        for (fault, mean) in self.plan.faults.clone() {
            let at = schedule.between(SECOND, SECOND + 2 * mean);
            schedule.at(at, Host::World, Occurrence::Fault(fault));
        }
        let dead_after =
            self.plan.node_dead_after.map(|after| ("node_dead_after", after.to_owned()));
        let retention = self.plan.retention_seconds.map(|s| ("gc_retention", format!("{s}s")));
        // Runs are short, and no operator removes the member whose disk was wiped.
        let replace_after = [("node_replace_after", "3s".to_owned())];
        for (name, value) in dead_after.into_iter().chain(retention).chain(replace_after) {
            let worker = self.worker(0);
            let unset = self.settings_unset.clone();
            unset.fetch_add(1, Ordering::Relaxed);
            let setting = async move {
                let admin = worker.client.admin();
                while admin.config_set(name, &value, false).await.is_err() {}
                unset.fetch_sub(1, Ordering::Relaxed);
            };
            self.executor.spawn(&schedule, Host::Client { place: 0, life: 0 }, Box::pin(setting));
        }
        schedule.at(COMPARE_EVERY, Host::World, Occurrence::Compare);
        for client in 0..self.plan.load.clients {
            let worker = self.worker(client);
            self.executor.spawn(&schedule, worker.host, Box::pin(worker.run()));
        }
    }

    pub fn spawn(&mut self, host: Host, task: impl Future<Output = ()> + Send + 'static) {
        let schedule = self.schedule.clone();
        self.executor.spawn(&schedule, host, Box::pin(task));
    }

    /// Carries out the next occurrence. False if none is left.
    pub fn step(&mut self) -> bool {
        let Some((host, occurrence)) = self.schedule.next() else { return false };
        if let Host::Process { slot, life } = host
            && self.slots[slot].life != life
        {
            return true;
        }
        if let Host::Client { place, life } = host
            && self.clients[place].life != life
        {
            return true;
        }
        if let Host::Process { slot, .. } | Host::Slot(slot) = host
            && let Some(held) = &mut self.slots[slot].held
        {
            held.push_back((host, occurrence));
            return true;
        }
        if let Host::Client { place, .. } = host
            && let Some(held) = &mut self.clients[place].held
        {
            held.push_back((host, occurrence));
            return true;
        }
        self.schedule.trace(host, &occurrence);
        let happened = self.happen(host, occurrence);
        let happened = match (happened, host) {
            (Err(error), Host::Process { slot, .. } | Host::Slot(slot)) => {
                self.on_error(slot, error)
            }
            (happened, _) => happened,
        };
        if let Err(error) = happened {
            self.watch.violated(format!("{host:?}: {error}"));
        }
        true
    }

    fn happen(&mut self, host: Host, occurrence: Occurrence) -> rangedb_storage::Result<()> {
        match occurrence {
            Occurrence::Spawn(task) => {
                self.executor.spawn(&self.schedule, host, task);
                return Ok(());
            }
            Occurrence::Poll(task) => {
                self.executor.poll(task);
                return Ok(());
            }
            Occurrence::Timer(timer) => {
                if let Some(timer) = timer.upgrade() {
                    timer.fire();
                }
                return Ok(());
            }
            Occurrence::Return { call, result } => {
                call.complete(result);
                return Ok(());
            }
            Occurrence::HeavyRead(read) => {
                read();
                return Ok(());
            }
            Occurrence::Fault(fault) => return self.fault(fault),
            Occurrence::Compare => {
                self.compare()?;
                self.schedule.after(COMPARE_EVERY, Host::World, Occurrence::Compare);
                return Ok(());
            }
            _ => {}
        }
        match host {
            Host::Slot(slot) | Host::Process { slot, .. } => self.happen_at(slot, occurrence),
            Host::World | Host::Client { .. } => unreachable!("nothing else happens to {host:?}"),
        }
    }

    fn happen_at(&mut self, at: usize, occurrence: Occurrence) -> rangedb_storage::Result<()> {
        let schedule = &self.schedule;
        let slot = &mut self.slots[at];
        if let Occurrence::Joined { cluster_id, node_id } = occurrence {
            let (formation, known_nodes) = (None, Vec::new());
            let identity = Identity {
                cluster_id,
                node_id,
                formation,
                opened: false,
                vote_embargo_us: 0,
                known_nodes,
            };
            slot.disk.identity = Some(identity);
            return self.open(at);
        }
        let Some(process) = &mut slot.process else {
            self.nobody_there(occurrence);
            return Ok(());
        };
        let disk = &mut slot.disk;
        let stalled = match occurrence {
            Occurrence::Tick { shard } => {
                let stalled = process.tick(shard, disk)?;
                let stopped = process.node.stopped();
                look_at_log(&self.watch, slot, shard)?;
                if let Some(reason) = stopped {
                    self.on_stopped(at, &reason)?;
                    return Ok(());
                }
                stalled
            }
            Occurrence::Pass { shard } => process.pass(shard, disk)?,
            Occurrence::Perform { shard, effects } => {
                process.perform(shard, effects, disk)?;
                None
            }
            Occurrence::Synced => {
                process.synced(disk)?;
                None
            }
            Occurrence::Apply { shard } => {
                process.apply(shard, disk)?;
                None
            }
            Occurrence::Applied { shard, effects } => {
                process.applied(shard, effects, disk)?;
                None
            }
            Occurrence::Flushed { shard, asked, flush } => {
                process.flushed((shard, asked), flush, disk)?;
                None
            }
            Occurrence::Raft { cluster_id, envelope } => {
                process.receive(cluster_id, envelope);
                None
            }
            Occurrence::Store { range, event } => {
                process.put(range, event);
                None
            }
            Occurrence::Call { request, timeout_us, responder } => {
                process.answer(&mut self.executor, request, timeout_us, responder);
                None
            }
            Occurrence::Stream(outbound) => {
                process.stream(*outbound, disk)?;
                None
            }
            Occurrence::Snapshot(part) => {
                process.receive_part(&part, disk);
                None
            }
            _ => unreachable!("handled before it came to a node"),
        };
        if let Some(Stall { shard, effects }) = stalled {
            let pause = schedule.between(1, self.plan.outage_max);
            let host = self.slots[at].host();
            self.pause(at, pause);
            let held = self.slots[at].held.as_mut().expect("just paused");
            held.push_front((host, Occurrence::Perform { shard, effects }));
        }
        Ok(())
    }

    /// Ends a node that the control plane told to stop, and restarts it with an empty disk. The
    /// control plane may do so only after an operator removed this node.
    fn on_stopped(&mut self, slot: usize, reason: &str) -> rangedb_storage::Result<()> {
        self.schedule.remark(|| format!("node-{slot} was told to stop: {reason}"));
        let is_removed = self.removed.is_some_and(|id| {
            reason.starts_with(&format!("node {id} was removed from the cluster"))
        });
        let process = self.slots[slot].process.as_ref();
        if !is_removed || process.map(|process| process.node_id) != self.removed {
            self.watch.violated(format!("node-{slot} was told to stop without a reason: {reason}"));
        }
        self.crash(slot)?;
        self.replace_disk(slot);
        let restart = Occurrence::Fault(Fault::Restart { slot });
        self.schedule.after(SECOND, Host::World, restart);
        Ok(())
    }

    /// Handles an occurrence at a slot where no node runs.
    fn nobody_there(&mut self, occurrence: Occurrence) {
        let refuses = self.schedule.random(|rng| rng.u32(0..100) < REFUSED_BY_DOWN);
        match occurrence {
            Occurrence::Call { responder, .. } if refuses => {
                responder.refuse("connection refused");
            }
            Occurrence::Raft { envelope, .. } => {
                let (from, to) =
                    (envelope.from.unwrap_or_default(), envelope.to.unwrap_or_default());
                let node = rangedb_proto::NodeId(to.node_id);
                let sender = self.slots.iter().filter_map(|slot| slot.process.as_ref());
                let sender = sender.filter(|process| process.node_id == from.node_id);
                let range = rangedb_proto::RangeId(envelope.range_id);
                for process in sender {
                    process.put(range, Event::Unreachable(node));
                }
            }
            Occurrence::Snapshot(part) => part.report_broken(&self.schedule),
            _ => {}
        }
    }

    /// Starts the node in a slot, unless it is up.
    pub fn start(&mut self, at: usize) -> rangedb_storage::Result<()> {
        let slot = &mut self.slots[at];
        if slot.up {
            return Ok(());
        }
        slot.up = true;
        slot.life += 1;
        slot.looked_at.clear();
        let host = slot.host();
        if slot.disk.identity.is_some() {
            return self.open(at);
        }
        let Site { peers, .. } = &slot.site;
        let joining = join(slot.site.net(host), at, peers.clone(), slot.disk.directory_id);
        self.spawn(host, joining);
        Ok(())
    }

    /// Opens the disk and starts the process. In some seeds a log write fails while the stores
    /// open, or soon after. Each store makes one write when it opens, so some stores may be open by
    /// then.
    fn open(&mut self, at: usize) -> rangedb_storage::Result<()> {
        let fails = self.faults_on
            && self.schedule.random(|rng| rng.u32(0..100) < self.plan.failed_openings);
        let slot = &mut self.slots[at];
        if fails {
            let (after, written) =
                self.schedule.random(|rng| (rng.usize(0..=self.plan.stores), rng.bool()));
            slot.disk.fail_append(FailedAppend { after, written });
        }
        if !self.plan.ticks_us.is_empty() {
            let choices = &self.plan.ticks_us;
            let place = self.schedule.random(|rng| rng.usize(0..choices.len()));
            slot.site.config.tick_us = choices[place];
        }
        let host = slot.host();
        match Process::start(slot.site.clone(), host, &mut slot.disk) {
            Ok(process) => {
                self.common.gateways.set(at, Some((host, process.node.gateway().clone())));
                slot.process = Some(process);
                Ok(())
            }
            Err(error) => self.on_error(at, error),
        }
    }

    /// Ends the process without a warning, if one runs.
    pub fn crash(&mut self, at: usize) -> rangedb_storage::Result<()> {
        let slot = &mut self.slots[at];
        if !slot.up {
            return Ok(());
        }
        self.crashes += 1;
        let host = slot.host();
        slot.up = false;
        slot.life += 1;
        let (process, held) = (slot.process.take(), slot.held.take());
        self.common.gateways.set(at, None);
        self.executor.end(host);
        drop(process);
        // Occurrences that came from outside of the process find no node here. Occurrences of the
        // process itself are dropped.
        for (host, occurrence) in held.into_iter().flatten() {
            if matches!(host, Host::Slot(_)) {
                self.nobody_there(occurrence);
            }
        }
        let crash = &mut fastrand::Rng::with_seed(self.schedule.random(|rng| rng.u64(..)));
        self.slots[at].disk.crash(crash)
    }

    /// Pauses the process: for a while no code runs and no message is read.
    pub fn pause(&mut self, at: usize, duration: Micros) {
        let slot = &mut self.slots[at];
        if slot.up && slot.held.is_none() {
            slot.held = Some(VecDeque::new());
            let resume = Occurrence::Fault(Fault::Resume { slot: at });
            self.schedule.after(duration, Host::World, resume);
        }
    }

    pub fn resume(&mut self, at: usize) {
        for (host, occurrence) in self.slots[at].held.take().into_iter().flatten() {
            self.schedule.after(0, host, occurrence);
        }
    }

    /// Returns every replica of a running node, with the node's slot.
    pub fn replicas(&self) -> Vec<(usize, RangeStatus)> {
        let processes = self.slots.iter().filter_map(|slot| Some((slot, slot.process.as_ref()?)));
        let mut replicas = Vec::new();
        for (slot, process) in processes {
            let statuses = process.stores().iter().flat_map(|store| store.status());
            replicas.extend(statuses.map(|status| (slot.site.slot, status)));
        }
        replicas
    }

    /// Compares each replica of a running node with the first that was seen at the same entry.
    pub fn compare(&self) -> rangedb_storage::Result<()> {
        let processes = self.slots.iter().filter_map(|slot| Some((slot, slot.process.as_ref()?)));
        processes.into_iter().try_for_each(|(slot, process)| process.compare(&slot.disk))
    }

    /// Makes each client end after its current operation.
    pub fn stop_clients(&self) {
        self.common.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for World {
    /// Breaks a cycle of references: tasks hold the schedule, and the schedule holds their wakers.
    fn drop(&mut self) {
        self.executor.clear();
        self.slots.clear();
        self.schedule.close();
    }
}

/// Compares the entries that came to the logs of a shard since the last tick with those of other
/// logs. Compares the newest of the earlier entries again.
fn look_at_log(watch: &Watch, slot: &mut Slot, shard: usize) -> rangedb_storage::Result<()> {
    let Some(process) = &slot.process else { return Ok(()) };
    for status in process.stores()[shard].status() {
        let range = status.descriptor.range_id;
        let stored = slot.disk.log.state(range)?;
        let Some(stored) = stored.filter(|_| !slot.disk.is_replacing(range)) else { continue };
        let looked_at = slot.looked_at.entry(range).or_default();
        // A log may have become shorter.
        let again = stored.last_index.min(*looked_at).saturating_sub(LOOKED_AT_AGAIN);
        let again = again.max(stored.truncated_index);
        for entry in slot.disk.log.entries(range, again + 1, stored.last_index + 1, u64::MAX)? {
            let at = slot.site.slot;
            watch.note(|checks| checks.log_matching.holds(range, at, &entry));
            if entry.index <= status.applied_index {
                watch.note(|checks| checks.committed.holds(range, at, &entry));
            }
        }
        // Entries that are not yet applied are checked again at every tick, until they are.
        *looked_at = stored.last_index.min(status.applied_index);
    }
    Ok(())
}
