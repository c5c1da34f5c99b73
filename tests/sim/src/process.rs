//! One running node: the stores, the node's logic, and the performing of effects. In production,
//! threads perform the effects (driver, log writer, flusher, transport, snapshots).

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use rangedb_proto::v1::{NodeDescriptor, RaftEnvelope, request};
use rangedb_proto::{NodeId, RangeId, SYSTEM_PREFIX};
use rangedb_raftstore::{
    Applier, ApplyEffect, Config, Effect, Event, Io, Monotonic, Options, RoleChange, Room, Shard,
    Store,
};
use rangedb_server::compaction::CompactionBounds;
use rangedb_server::handle::{EventSink, StoreHandle};
use rangedb_server::node::{Caller, Node, NodeParts, WalkPace};
use rangedb_server::status_board::StatusBoard;
use rangedb_storage::{Compaction, FlushUnderWay, Reader, Span, keys};

use crate::ambush::{Ambush, Moment, ReachedMoment};
use crate::check::Watch;
use crate::check::replicas_equal::hash_of_what_is_kept;
use crate::clock::{Clock, TimeOfDay};
use crate::disk::{Append, Disk, Space};
use crate::executor::Executor;
use crate::heavy_reads::HeavyReadsLater;
use crate::looks::{look_at_effects, look_at_event, look_at_message};
use crate::machine::WatchedMachine;
use crate::mailbox::Mailbox;
use crate::net::{Responder, SimNet, client_address, peer_address, slot_of};
use crate::occurrence::{Host, Occurrence};
use crate::schedule::{MILLISECOND, Micros, Schedule};
use crate::snapshots::{self, Broken, Incoming, Outbound, Part, Transfer};
use crate::stored_range::stored_range;

/// Maximum time until an applier begins a round after it was given work.
const APPLY_DELAY_MAX: Micros = 200;

/// Maximum lateness of a tick. A tick is never early.
const TICK_LATE_MAX: Micros = 5_000;

/// Ticks between two updates of the compaction bounds. They make a second instead of production's
/// ten, because runs are short. As in production, no tick counts while the process is paused.
const COMPACTION_LOOK_TICKS: u64 = 10;

/// Mean number of ticks between two compactions.
const COMPACTION_MEAN_TICKS: u64 = 5;

/// Minimum time between two flushes before which replicas are compared. A comparison hashes all
/// data.
const COMPARE_EVERY: Micros = 250 * MILLISECOND;

/// Requester of a flush, with its id of the flush.
#[derive(Clone, Copy, Debug)]
pub enum FlushRequester {
    Store { token: u64 },
    Applier { flush: u64 },
}

/// Time until a write that finds no room is tried again.
const WITHOUT_ROOM_FOR: Micros = 200 * MILLISECOND;

/// Surroundings of a node that all its processes share.
#[derive(Clone)]
pub struct Site {
    pub slot: usize,
    pub slots: usize,
    pub clock: Clock,
    pub time_of_day: TimeOfDay,
    pub stores: usize,
    pub config: Config,
    pub schedule: Schedule,
    pub watch: Watch,
    /// Requests to a store that find its queue full, out of 10,000.
    pub mailbox_full: u32,
    /// Passes after which the process is paused before it performs the effects, out of 10,000.
    pub stalls: u32,
    pub walk_pace: WalkPace,
    /// Maximum time for which a snapshot waits until it is read and sent.
    pub stream_waits_max: Micros,
    /// Maximum delay of an applier's work.
    pub apply_max: Micros,
    /// Time that an applier takes for each record that it looks up or walks over.
    pub record_cost: Micros,
    /// Maximum delay of a heavy read. Shared by all processes of all nodes.
    pub heavy_read_max: Arc<AtomicU64>,
    /// Slots whose addresses this node was started with.
    pub peers: Vec<usize>,
    pub ambush: Ambush,
}

impl Site {
    pub fn net(&self, host: Host) -> Arc<SimNet> {
        Arc::new(SimNet {
            host,
            clock: self.clock,
            schedule: self.schedule.clone(),
            watch: self.watch.clone(),
            slots: self.slots,
        })
    }

    pub fn now(&self) -> Monotonic {
        #[cfg(feature = "planted")]
        if rangedb_planted::Bug::LeaseOnWallClock.is_planted() {
            let millis = rangedb_server::surroundings::WallClock::unix_millis(&self.time_of_day);
            return Monotonic(millis * 1000);
        }
        self.clock.read(self.schedule.now())
    }
}

/// Progress of the next round of an applier.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    None,
    /// The round begins soon.
    Scheduled,
    /// The round takes its time; its effects come when it ends.
    UnderWay,
}

/// A node's process.
pub struct Process {
    host: Host,
    pub site: Site,
    pub cluster_id: u64,
    pub node_id: u64,
    stores: Vec<Store>,
    appliers: Vec<Applier>,
    /// The round of each applier, by shard.
    rounds: Vec<Round>,
    /// Last [`Event::LogStalled`] that each store got, by shard.
    log_stalled: Vec<bool>,
    mailboxes: Vec<Arc<Mailbox>>,
    pub handle: StoreHandle,
    pub board: Arc<StatusBoard>,
    pub node: Arc<Node>,
    incoming: Incoming,
    compaction_bounds: CompactionBounds,
    /// Number of ticks of the first store.
    ticks: u64,
    /// Time from which the next flush compares the replicas first.
    compare_from: Micros,
}

impl Process {
    /// Opens the disk, which must have an identity, and starts the node.
    pub fn start(site: Site, host: Host, disk: &mut Disk) -> rangedb_storage::Result<Process> {
        let schedule = site.schedule.clone();
        let identity = disk.identity.as_mut().expect("a node without an identity joins first");
        let found = identity.formation.is_some() && !identity.opened;
        identity.opened = true;
        let vote_embargo_us = identity.vote_embargo_us.max(site.config.vote_embargo_us());
        identity.vote_embargo_us = vote_embargo_us;
        let identity = identity.clone();
        let (mut stores, mut appliers) = (Vec::new(), Vec::new());
        for index in 0..site.stores as u64 {
            let options = Options {
                node: NodeId(identity.node_id),
                shard: Shard { index, count: site.stores as u64 },
                config: site.config.clone(),
                vote_embargo_us: identity.vote_embargo_us,
                seed: schedule.random(|rng| rng.u64(..)),
            };
            let (slot, watch, schedule) = (site.slot, site.watch.clone(), schedule.clone());
            let machines = Box::new(move |range| {
                let (watch, schedule) = (watch.clone(), schedule.clone());
                Box::new(WatchedMachine::new(range, slot, watch, schedule)) as Box<_>
            });
            let (log, state) = (disk.log.clone(), disk.state.clone());
            let (mut store, applier) = Store::open(options, log, state, machines)?;
            if found {
                store.found();
            }
            if disk.space != Space::Enough {
                store.step(Event::DiskRoom(room(disk.space)));
            }
            stores.push(store);
            appliers.push(applier);
        }
        let mailboxes: Vec<_> = (0..site.stores)
            .map(|shard| Arc::new(Mailbox::new(&schedule, host, shard, site.mailbox_full)))
            .collect();
        let sinks = mailboxes.iter().map(|mailbox| mailbox.clone() as Arc<dyn EventSink>);
        let handle = StoreHandle::new(sinks.collect());
        let board = Arc::new(StatusBoard::new(site.stores));
        let node = Node::new(NodeParts {
            cluster_id: identity.cluster_id,
            descriptor: NodeDescriptor {
                node_id: identity.node_id,
                ..descriptor(site.slot, disk.directory_id)
            },
            formation: identity.formation,
            stores: handle.clone(),
            board: board.clone(),
            net: site.net(host),
            clock: Arc::new(site.time_of_day.clone()),
            known_nodes: identity.known_nodes,
            seeds: site.peers.iter().copied().map(peer_address).collect(),
            walk_pace: site.walk_pace,
            heavy_reads: Arc::new(HeavyReadsLater {
                schedule: schedule.clone(),
                host,
                delay_max: site.heavy_read_max.clone(),
            }),
        });
        let process = Process {
            host,
            cluster_id: identity.cluster_id,
            node_id: identity.node_id,
            rounds: vec![Round::None; stores.len()],
            log_stalled: vec![false; stores.len()],
            stores,
            appliers,
            mailboxes,
            handle,
            board,
            node,
            incoming: Incoming::default(),
            compaction_bounds: CompactionBounds::default(),
            ticks: 0,
            compare_from: 0,
            site,
        };
        for shard in 0..process.stores.len() {
            process.board.publish(shard, &process.stores[shard]);
            process.mailboxes[shard].want_pass();
            process.schedule_tick(shard);
        }
        process.compare(disk)?;
        process.node.start();
        Ok(process)
    }

    /// Compares each replica of this node with the first that was seen at the same entry, and with
    /// the changes up to there.
    pub fn compare(&self, disk: &Disk) -> rangedb_storage::Result<()> {
        for status in self.stores.iter().flat_map(Store::status) {
            // The state may be ahead of what its store knows, so the index comes from the state.
            let Some(stored) = stored_range(&*disk.state, status.descriptor.range_id)? else {
                continue;
            };
            let descriptor = stored.descriptor.unwrap_or_default();
            let span = keys::data_span(&descriptor.start_key, &descriptor.end_key);
            let hash = hash_of_what_is_kept(&*disk.state, &span)?;
            self.site.schedule.trace_word(hash);
            let (range, applied) = (RangeId(descriptor.range_id), stored.applied_index);
            let slot = self.site.slot;
            let mut rows = Ok(Ok(()));
            self.site.watch.note(|checks| {
                checks.replicas_equal.stands(range, slot, applied, hash)?;
                rows = checks.changes.stands(range, applied, &*disk.state, &span);
                rows.as_ref().map_or(Ok(()), Clone::clone)
            });
            rows?.ok();
        }
        Ok(())
    }

    pub fn stores(&self) -> &[Store] {
        &self.stores
    }

    /// Ticks one store, runs a pass over its mail, and publishes its status.
    pub fn tick(
        &mut self,
        shard: usize,
        disk: &mut Disk,
    ) -> rangedb_storage::Result<Option<Stall>> {
        self.schedule_tick(shard);
        self.look_at_log(shard, disk);
        self.looks_at_no_data(shard, disk, |store| store.step(Event::Tick));
        let stalled = self.pass(shard, disk)?;
        self.board.publish(shard, &self.stores[shard]);
        if let Some(identity) = &mut disk.identity {
            identity.known_nodes = self.node.address_book();
        }
        if shard == 0 {
            self.compact(disk)?;
        }
        Ok(stalled)
    }

    /// Tells the store when log writes begin to hang, and when they complete again, as in
    /// production.
    fn look_at_log(&mut self, shard: usize, disk: &Disk) {
        let config = &self.site.config;
        let stalled_after = config.election_ticks as u64 * config.tick_us / 2;
        let stalled = disk.waits_for(self.site.schedule.now()) > stalled_after;
        if std::mem::replace(&mut self.log_stalled[shard], stalled) != stalled {
            self.stores[shard].step(Event::LogStalled(stalled));
        }
    }

    /// Updates the engine's compaction bounds now and then, and compacts at random.
    fn compact(&mut self, disk: &Disk) -> rangedb_storage::Result<()> {
        self.ticks += 1;
        if self.ticks.is_multiple_of(COMPACTION_LOOK_TICKS) {
            self.compaction_bounds.raise(&*disk.state, &self.board.ranges())?;
        }
        if may_compact(disk)
            && self.site.schedule.random(|rng| rng.u64(0..COMPACTION_MEAN_TICKS)) == 0
        {
            let dropped = self.site.schedule.random(|rng| disk.state.compact(rng));
            self.site.watch.note(|checks| checks.floor.compacted(dropped as u64));
        }
        Ok(())
    }

    fn schedule_tick(&self, shard: usize) {
        let late = self.site.schedule.between(0, TICK_LATE_MAX);
        let delay = self.site.clock.until(self.site.config.tick_us) + late;
        self.site.schedule.after(delay, self.host, Occurrence::Tick { shard });
    }

    /// Runs one pass over the mail of a store. If the process is to be paused in the middle,
    /// returns the effects instead of performing them.
    pub fn pass(
        &mut self,
        shard: usize,
        disk: &mut Disk,
    ) -> rangedb_storage::Result<Option<Stall>> {
        let events = self.mailboxes[shard].take();
        events.iter().for_each(|event| look_at_event(event, self.host, &self.site));
        let now = self.site.now();
        let effects = self.looks_at_no_data(shard, disk, |store| {
            events.into_iter().for_each(|event| store.step(event));
            store.flush(now)
        })?;
        let store = &self.stores[shard];
        look_at_effects(store, &effects, (self.host, self.node_id), &self.site);
        if store.has_work() {
            self.mailboxes[shard].want_pass();
        }
        let stalls = self.site.stalls;
        if !effects.is_empty() && self.site.schedule.random(|rng| rng.u32(0..10_000) < stalls) {
            return Ok(Some(Stall { shard, effects }));
        }
        self.perform(shard, effects, disk)?;
        Ok(None)
    }

    /// Runs work of a store, and reports a violation if it reads records of data. The thread of a
    /// store ticks, sends heartbeats and votes, so its work must not depend on the number of
    /// records.
    fn looks_at_no_data<T>(
        &mut self,
        shard: usize,
        disk: &Disk,
        work: impl FnOnce(&mut Store) -> T,
    ) -> T {
        let before = disk.state.data_reads();
        let done = work(&mut self.stores[shard]);
        let looks = disk.state.data_reads() - before;
        if looks > 0 {
            let slot = self.site.slot;
            let wrong = format!("store {shard} of node-{slot} looked at {looks} records of data");
            self.site.watch.violated(wrong);
        }
        done
    }

    pub fn perform(
        &mut self,
        shard: usize,
        effects: Vec<Effect>,
        disk: &mut Disk,
    ) -> rangedb_storage::Result<()> {
        for effect in effects {
            match effect {
                Effect::Answer(answer) => self.handle.answer(answer, self.site.now()),
                Effect::Io(io) => self.perform_io(shard, io, disk)?,
                Effect::Role(change) => {
                    if let RoleChange::NeedFence { .. } = change {
                        self.comes(Moment::LeadershipBegins);
                    }
                    self.node.on_role_change(change);
                }
            }
        }
        Ok(())
    }

    fn perform_io(&mut self, shard: usize, io: Io, disk: &mut Disk) -> rangedb_storage::Result<()> {
        match io {
            Io::Send(envelope) => self.send(envelope),
            Io::Append { token, batch } => {
                if disk.append(Append { at: self.site.schedule.now(), shard, token, batch }) {
                    self.begin_sync(disk);
                }
            }
            Io::Apply(task) => {
                self.appliers[shard].step(task);
                self.schedule_apply(shard);
            }
            Io::Flush { token } => {
                self.begin_flush(shard, FlushRequester::Store { token }, disk)?
            }
            Io::SendSnapshot { envelope, index, reader, span } => {
                self.send_snapshot(envelope, index, (reader, span), disk)?;
            }
        }
        Ok(())
    }

    /// Begins to send a snapshot, now or when its turn has come.
    fn send_snapshot(
        &mut self,
        envelope: RaftEnvelope,
        index: u64,
        view: (Arc<dyn Reader>, Span),
        disk: &mut Disk,
    ) -> rangedb_storage::Result<()> {
        let to = envelope.to.unwrap_or_default();
        let Some(slot) = self.slot_of_node(to.node_id) else {
            let range = RangeId(envelope.range_id);
            let to = rangedb_proto::ReplicaId(to.replica_id);
            self.put(range, Event::SnapshotSent { range, to, index, delivered: false });
            return Ok(());
        };
        let transfer = Transfer::new(&self.site.schedule, self.cluster_id, envelope, index);
        let waits_max = self.site.stream_waits_max;
        let outbound = Outbound::new(transfer, slot, view, waits_max > 0)?;
        match waits_max {
            0 => self.stream(outbound, disk),
            most => {
                let turn = self.site.schedule.between(1, most);
                let stream = Occurrence::Stream(Box::new(outbound));
                self.site.schedule.after(turn, self.host, stream);
                Ok(())
            }
        }
    }

    fn begin_flush(
        &mut self,
        shard: usize,
        asked: FlushRequester,
        disk: &mut Disk,
    ) -> rangedb_storage::Result<()> {
        self.comes(Moment::FlushBegins);
        // A crash may bring back the state of this moment, without the versions that compaction
        // dropped.
        let now = self.site.schedule.now();
        if now >= self.compare_from && may_compact(disk) {
            self.compare_from = now + COMPARE_EVERY;
            self.compare(disk)?;
        }
        let flush = disk.state.begin_flush();
        let delay = self.site.schedule.between(1, disk.speed.flush_max);
        let flushed = Occurrence::Flushed { shard, asked, flush };
        self.site.schedule.after(delay, self.host, flushed);
        Ok(())
    }

    fn schedule_apply(&mut self, shard: usize) {
        if self.appliers[shard].has_work() && self.rounds[shard] == Round::None {
            self.rounds[shard] = Round::Scheduled;
            let most = APPLY_DELAY_MAX.max(self.site.apply_max);
            let delay = self.site.schedule.between(1, most);
            self.site.schedule.after(delay, self.host, Occurrence::Apply { shard });
        }
    }

    /// Runs one round of an applier. The round takes time in proportion to the records that it
    /// reads.
    pub fn apply(&mut self, shard: usize, disk: &mut Disk) -> rangedb_storage::Result<()> {
        let before = disk.state.data_reads();
        let effects = self.appliers[shard].run()?;
        let cost = (disk.state.data_reads() - before) * self.site.record_cost;
        if cost == 0 {
            return self.applied(shard, effects, disk);
        }
        self.rounds[shard] = Round::UnderWay;
        self.site.schedule.after(cost, self.host, Occurrence::Applied { shard, effects });
        Ok(())
    }

    /// Ends a round of an applier and performs its effects.
    pub fn applied(
        &mut self,
        shard: usize,
        effects: Vec<ApplyEffect>,
        disk: &mut Disk,
    ) -> rangedb_storage::Result<()> {
        self.rounds[shard] = Round::None;
        self.perform_applied(shard, effects, disk)?;
        self.schedule_apply(shard);
        Ok(())
    }

    fn perform_applied(
        &mut self,
        shard: usize,
        effects: Vec<ApplyEffect>,
        disk: &mut Disk,
    ) -> rangedb_storage::Result<()> {
        for effect in effects {
            match effect {
                ApplyEffect::Reply { request, result } => self.handle.reply(request, result),
                ApplyEffect::Event(event) => self.mailboxes[shard].put(event),
                ApplyEffect::Flush { flush } => {
                    self.begin_flush(shard, FlushRequester::Applier { flush }, disk)?;
                }
            }
        }
        Ok(())
    }

    /// Reads a snapshot and sends it.
    pub fn stream(&self, outbound: Outbound, disk: &Disk) -> rangedb_storage::Result<()> {
        let Site { schedule, watch, .. } = &self.site;
        snapshots::send(schedule, self.host, outbound, &*disk.state, watch)
    }

    fn comes(&self, moment: Moment) {
        let came = ReachedMoment { moment, slot: self.site.slot, range: None, other: None };
        self.site.ambush.comes(came, &self.site.schedule);
    }

    fn begin_sync(&self, disk: &mut Disk) {
        if disk.begin_sync() {
            let delay = self.site.schedule.between(1, disk.speed.sync_max);
            self.site.schedule.after(delay, self.host, Occurrence::Synced);
        }
    }

    /// Finishes the log writer's sync. Without room on the disk, tries again after a while.
    pub fn synced(&mut self, disk: &mut Disk) -> rangedb_storage::Result<()> {
        if disk.space == Space::None {
            self.site.schedule.after(WITHOUT_ROOM_FOR, self.host, Occurrence::Synced);
            return Ok(());
        }
        let tokens = disk.finish_sync(self.stores.len())?;
        for (mailbox, token) in self.mailboxes.iter().zip(tokens) {
            if let Some(token) = token {
                mailbox.put(Event::Persisted { token });
            }
        }
        self.begin_sync(disk);
        Ok(())
    }

    /// Finishes a flush. Without room on the disk, tries again after a while.
    pub fn flushed(
        &mut self,
        (shard, asked): (usize, FlushRequester),
        flush: FlushUnderWay,
        disk: &mut Disk,
    ) -> rangedb_storage::Result<()> {
        // An applier learns of its flush only after its current round.
        let is_busy = matches!(asked, FlushRequester::Applier { .. })
            && self.rounds[shard] == Round::UnderWay;
        if disk.space == Space::None || is_busy {
            let later = if is_busy { MILLISECOND } else { WITHOUT_ROOM_FOR };
            let flushed = Occurrence::Flushed { shard, asked, flush };
            self.site.schedule.after(later, self.host, flushed);
            return Ok(());
        }
        disk.state.finish_flush(flush)?;
        match asked {
            FlushRequester::Store { token } => self.mailboxes[shard].put(Event::Flushed { token }),
            FlushRequester::Applier { flush } => {
                let effects = self.appliers[shard].on_flushed(flush);
                self.perform_applied(shard, effects, disk)?;
                self.schedule_apply(shard);
            }
        }
        Ok(())
    }

    fn send(&self, envelope: RaftEnvelope) {
        let to = envelope.to.unwrap_or_default();
        let slot = self.slot_of_node(to.node_id);
        look_at_message(&envelope, slot, &self.site);
        let Some(slot) = slot else { return };
        let schedule = &self.site.schedule;
        let message = |envelope| Occurrence::Raft { cluster_id: self.cluster_id, envelope };
        let from = self.site.slot;
        if schedule.network(|network, rng| network.repeats(rng)) {
            schedule.send(from, slot, Host::Slot(slot), message(envelope.clone()));
        }
        schedule.send(from, slot, Host::Slot(slot), message(envelope));
    }

    /// Returns the slot of a node, as far as this node knows it.
    fn slot_of_node(&self, node_id: u64) -> Option<usize> {
        slot_of(&self.node.address_of(node_id)?.peer_address)
    }

    /// Takes in a raft message, unless it is for another node or cluster.
    pub fn receive(&self, cluster_id: u64, envelope: RaftEnvelope) {
        let is_mine = envelope.to.is_some_and(|to| to.node_id == self.node_id);
        if is_mine && cluster_id == self.cluster_id {
            self.put(RangeId(envelope.range_id), Event::Message(envelope));
        }
    }

    /// Takes in a part of a snapshot.
    pub fn receive_part(&mut self, part: &Part, disk: &Disk) {
        let range = RangeId(part.transfer.envelope.range_id);
        let schedule = self.site.schedule.clone();
        let is_mine = part.transfer.envelope.to.is_some_and(|to| to.node_id == self.node_id);
        if !is_mine || part.transfer.cluster_id != self.cluster_id {
            return part.report_broken(&schedule);
        }
        // As in production, a disk without room accepts only snapshots of system ranges, which the
        // cluster itself needs.
        let is_system = || {
            part.transfer
                .described()
                .is_some_and(|range| range.start_key.starts_with(SYSTEM_PREFIX))
        };
        if disk.space != Space::Enough && !is_system() {
            self.incoming.give_up(part);
            return part.report_broken(&schedule);
        }
        match self.incoming.take(part, &*disk.state) {
            Ok(None) => {}
            Ok(Some(staged)) => {
                self.comes(Moment::SnapshotComes);
                let envelope = part.transfer.envelope.clone();
                self.put(range, Event::SnapshotReceived { envelope, staged });
                part.report(&schedule, true, schedule.between(100, 10_000));
            }
            Err(Broken::BeganEarlier) => {
                schedule.remark(|| format!("snapshot {} broke off", part.transfer.stamp));
                part.report_broken(&schedule);
            }
            Err(Broken::Wrong(what)) => {
                self.site.watch.violated(format!("{} was refused: {what}", part.describe()));
            }
        }
    }

    /// Queues an event that no queue may refuse.
    pub fn put(&self, range: RangeId, event: Event) {
        self.mailboxes[Shard::of(range, self.mailboxes.len()).place()].put(event);
    }

    /// Reports the room on the disk to all stores, as the disk watch does.
    pub fn tell_of_space(&self, space: Space) {
        let room = room(space);
        self.mailboxes.iter().for_each(|mailbox| mailbox.put(Event::DiskRoom(room)));
    }

    /// Answers a request that came over the network.
    pub fn answer(
        &self,
        executor: &mut Executor,
        request: request::Body,
        timeout_us: Micros,
        responder: Responder,
    ) {
        let node = self.node.clone();
        let answering = async move {
            let caller = Caller::within(responder.caller_kind());
            let (answer, _) = node.handle(caller, request, Duration::from_micros(timeout_us)).await;
            responder.answer(answer);
        };
        executor.spawn(&self.site.schedule, self.host, Box::pin(answering));
    }
}

/// Effects of a pass, which the process performs only after a pause.
pub struct Stall {
    pub shard: usize,
    pub effects: Vec<Effect>,
}

/// Room on a disk, as stores are told of it.
fn room(space: Space) -> Room {
    match space {
        Space::Enough => Room::Enough,
        Space::Reserve => Room::Reserve,
        Space::Low | Space::None => Room::None,
    }
}

/// True if a compaction bound has come into force.
fn may_compact(disk: &Disk) -> bool {
    disk.state.collected_up_to(&Span::everything()) > 0
}

/// Descriptor of a node that has no id yet.
pub fn descriptor(slot: usize, directory_id: u64) -> NodeDescriptor {
    NodeDescriptor {
        peer_address: peer_address(slot),
        client_address: client_address(slot),
        directory_id,
        ..Default::default()
    }
}
