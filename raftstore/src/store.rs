//! A store: the replicas of one shard of a node, stepped by one thread.
//!
//! [`Store::step`] queues one event. [`Store::flush`] handles the queued events, makes one pass
//! over the peers that they concern, and returns effects. Events between two flushes share a pass:
//! one entry for the commands of a range, one append for the log. A store neither evaluates
//! commands nor writes the state: the shard's [`Applier`] does.

mod flushing;
mod messages;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use prost::Message as _;
use rangedb_proto::v1::{RangeReport, RangeState, Replica, ReplicaRole};
use rangedb_proto::{NodeId, RangeDescriptorExt, RangeId, ReplicaId};
use rangedb_storage::{
    ColumnFamily, Direction, Error as StorageError, LogBatch, LogChange, LogEngine, Result,
    StateEngine, StateMachine, keys,
};

use crate::apply::{Applier, ApplyTask, ReplicaRef};
use crate::membership::are_sound;
use crate::pass::Pass;
use crate::peer::{INDEX_MAX, Peer, QueuedCommand, Shared, reserve_bytes};
use crate::planted::planted;
use crate::position::Position;
use crate::{
    Answer, Config, Counters, Effect, Error, Event, Io, Monotonic, RangeStatus, RoleChange, Room,
};
use flushing::Flushing;

/// Creates the state machine of a range that is opened or created.
pub type MachineFactory = Box<dyn Fn(RangeId) -> Box<dyn StateMachine> + Send>;

/// Shard of a node: the ranges whose id modulo `count` is `index`. Each shard has one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    pub index: u64,
    pub count: u64,
}

impl Shard {
    /// The shard of a range among `count`: the only place that decides it.
    pub fn of(range: RangeId, count: usize) -> Shard {
        let count = count as u64;
        Shard { index: range.0 % count, count }
    }

    pub fn holds(self, range: RangeId) -> bool {
        Shard::of(range, self.count as usize) == self
    }

    /// Position of the shard's store among those of the node.
    pub fn place(self) -> usize {
        self.index as usize
    }
}

/// Parameters for opening a store.
pub struct Options {
    pub node: NodeId,
    pub shard: Shard,
    pub config: Config,
    /// Time for which replicas from before this start refuse votes, in microseconds. Must be at
    /// least [`Config::vote_embargo_us`] of the timings of the node's previous run, because leaders
    /// still rely on the promises of that run.
    pub vote_embargo_us: u64,
    /// Seed for randomised election timeouts, the store's only randomness.
    pub seed: u64,
}

/// Bytes of log since the last flush at which a store short of room requests a flush, so that the
/// log behind it can be dropped. Less is not worth a file.
const SHORT_OF_ROOM_LOG_BYTES: u64 = 64 << 10;

/// Readies that the append with this token makes durable.
struct Appending {
    token: u64,
    readies: Vec<(RangeId, ReplicaId, u64)>,
}

/// Steps of the removal of a replica. The log goes last: a replica in the state cannot be opened
/// without its log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Destroying {
    State,
    /// Token of the append that drops the log.
    Log(u64),
}

/// The replicas of one shard, as raft sees them.
///
/// Invariants:
/// - only the shard's applier writes the state;
/// - tokens of appends ascend, and readies are persisted in that order.
pub struct Store {
    shared: Shared,
    shard: Shard,
    rng: fastrand::Rng,
    peers: BTreeMap<RangeId, Peer>,
    touched: BTreeSet<RangeId>,
    /// Events since the last flush, in order.
    inbox: Vec<Event>,
    appending: VecDeque<Appending>,
    last_token: u64,
    /// Ranges of which a replica is being removed.
    destroying: BTreeMap<RangeId, Destroying>,
    flushing: Flushing,
    /// Log changes for the next append. No ready waits for them.
    log_changes: Vec<LogChange>,
    room: Room,
    /// Bytes of entries that followers of this store still accept while its disk is short of room.
    reserve_bytes_left: u64,
    log_stalled: bool,
    counters: Counters,
}

impl Store {
    /// Opens every replica of the shard that the engines hold, as they were when the process ended.
    pub fn open(
        options: Options,
        log: Arc<dyn LogEngine>,
        state: Arc<dyn StateEngine>,
        machines: MachineFactory,
    ) -> Result<(Self, Applier)> {
        let config = Arc::new(options.config);
        let embargo_us = options.vote_embargo_us.max(config.vote_embargo_us());
        let embargo_ticks = embargo_us.div_ceil(config.tick_us.max(1));
        let vote_embargo_ticks = usize::try_from(embargo_ticks).unwrap_or(usize::MAX);
        let shared =
            Shared { node: options.node, config, log, state: state.clone(), vote_embargo_ticks };
        let mut store = Store {
            shared,
            shard: options.shard,
            rng: fastrand::Rng::with_seed(options.seed),
            peers: BTreeMap::new(),
            touched: BTreeSet::new(),
            inbox: Vec::new(),
            appending: VecDeque::new(),
            last_token: 0,
            destroying: BTreeMap::new(),
            flushing: Flushing::default(),
            log_changes: Vec::new(),
            room: Room::Enough,
            reserve_bytes_left: reserve_bytes(options.shard),
            log_stalled: false,
            counters: Counters::default(),
        };
        let mut changes = LogBatch::default();
        let mut applied = Vec::new();
        for stored in store.stored_ranges()? {
            let (peer, mended) = store.open_peer(stored.clone())?;
            changes.extend(mended);
            applied.push(RangeState { replica_id: peer.me.replica_id, ..stored });
            store.peers.insert(peer.range, peer);
        }
        // Logs of replicas that never got their first snapshot, or whose destruction was cut short.
        for range in store.shared.log.ranges()?.into_iter().map(RangeId) {
            if store.shard.holds(range) && !store.peers.contains_key(&range) {
                changes.changes.push(LogChange::Destroy { range_id: range.0 });
            }
        }
        if !changes.is_empty() {
            store.shared.log.append(changes)?;
        }
        for peer in store.peers.values_mut() {
            if peer.is_lone_voter() {
                peer.campaign();
            }
        }
        store.touch_all();
        let applier = Applier::open(state, machines, applied)?;
        for (range, size) in applier.sizes() {
            if let Some(peer) = store.peers.get_mut(&range) {
                peer.set_size(size);
            }
        }
        Ok((store, applier))
    }

    /// Starts the replicas of a new cluster. None has run before, so none has promised anything:
    /// votes are not refused, and the first replica of each range stands for election at once.
    pub fn found(&mut self) {
        for peer in self.peers.values_mut() {
            peer.lift_vote_embargo();
            let first = peer.descriptor().replicas.iter().map(|r| r.replica_id).min();
            if first == Some(peer.me.replica_id) {
                peer.campaign();
            }
        }
        self.touch_all();
    }

    /// Queues an event. Never blocks; its effects come out of [`Store::flush`].
    pub fn step(&mut self, event: Event) {
        self.inbox.push(event);
    }

    /// Handles all events since the last flush. `now` is the time at which the events were taken
    /// in, or later.
    ///
    /// # Errors
    ///
    /// Errors of the engines, or a contradiction between raft and the state. The process must then
    /// end: memory may be ahead of the disk, and nobody can tell how far.
    pub fn flush(&mut self, now: Monotonic) -> Result<Vec<Effect>> {
        let state = self.shared.state.clone();
        let mut pass = Pass::new(now, self.reserve_bytes_left);
        self.counters.passes += 1;
        for event in std::mem::take(&mut self.inbox) {
            self.on_event(event, &mut pass)?;
        }
        pass.log.changes.append(&mut self.log_changes);

        let touched = std::mem::take(&mut self.touched);
        for range in touched.difference(&pass.removed.clone()) {
            let Some(peer) = self.peers.get_mut(range) else { continue };
            // Before proposals and reads: raft-rs forwards those of a deposed leader to its
            // successor, past the fence and the lease.
            peer.note_role(&mut pass);
            peer.propose_waiting(&mut pass);
            peer.start_read_round(now);
            if peer.on_ready(&mut pass) {
                self.touched.insert(*range);
            }
        }
        for range in std::mem::take(&mut pass.removed) {
            self.destroy(range, &mut pass);
        }
        for range in &touched {
            if let Some(peer) = self.peers.get_mut(range) {
                peer.serve_reads(&*state, &mut pass);
                if peer.wants_read_round(now) {
                    self.touched.insert(*range);
                }
            }
        }
        self.reserve_bytes_left = pass.reserve_bytes_left;
        self.append(&mut pass);
        self.count(&pass.effects);
        Ok(pass.effects)
    }

    /// True if a pass has work without a new event.
    pub fn has_work(&self) -> bool {
        !self.touched.is_empty() || !self.inbox.is_empty() || !self.log_changes.is_empty()
    }

    /// Status of every replica, in order of range ids.
    pub fn status(&self) -> Vec<RangeStatus> {
        self.peers.values().map(Peer::status).collect()
    }

    /// Reports of the ranges that this store leads.
    pub fn reports(&self) -> Vec<RangeReport> {
        self.peers.values().filter_map(Peer::report).collect()
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn on_event(&mut self, event: Event, pass: &mut Pass) -> Result<()> {
        match event {
            Event::Tick => {
                self.on_tick(pass);
                if let Some(Effect::Io(Io::Flush { token })) = pass.effects.last()
                    && planted!(TruncateBeforeFlush)
                {
                    self.on_flushed(*token)?;
                }
            }
            Event::Message(envelope) => self.on_envelope(envelope, pass)?,
            Event::SnapshotReceived { envelope, staged } => {
                self.on_snapshot_received(envelope, staged, pass)?;
            }
            Event::Applied { replica, index, term, membership, size } => {
                if let Some(peer) = self.touch_replica(replica) {
                    peer.set_size(size);
                    peer.on_applied(Position { index, term }, membership, pass)?;
                }
            }
            Event::Installed { replica, descriptor, size } => {
                if let Some(peer) = self.touch_replica(replica) {
                    peer.set_size(size);
                    peer.on_installed(*descriptor, pass);
                }
            }
            Event::Destroyed { replica } => {
                // The removal of the log is durable with the append at the end of this pass.
                self.destroying.insert(replica.range, Destroying::Log(self.last_token + 1));
                self.log_changes.push(LogChange::Destroy { range_id: replica.range.0 });
            }
            Event::Quarantined { replica, quarantine } => {
                if let Some(peer) = self.touch_replica(replica) {
                    peer.on_quarantined(quarantine, pass);
                }
            }
            Event::QuarantineLifted { replica, request } => match self.touch_replica(replica) {
                Some(peer) => peer.on_quarantine_lifted(request, pass),
                None => pass.reply(request, Err(Error::RangeNotFound(replica.range))),
            },
            Event::SkipEntry { request, range, index } => match self.touch(range) {
                Some(peer) => peer.skip_entry(request, index, pass),
                None => pass.reply(request, Err(Error::RangeNotFound(range))),
            },
            Event::Propose { request, range, command, cost, frees_space } => {
                let command = QueuedCommand { request, command, cost, frees_space };
                match self.touch(range.id) {
                    Some(peer) => peer.propose(range, command, pass),
                    None => pass.reply(request, Err(Error::RangeNotFound(range.id))),
                };
            }
            Event::Read { request, range, at, confirm } => match self.touch(range.id) {
                Some(peer) => peer.read(request, range, at, confirm, pass),
                None => {
                    let result = Err(Error::RangeNotFound(range.id));
                    pass.answer(Answer::Read { request, result });
                }
            },
            Event::Operate { request, operation } => {
                let range = RangeId(operation.range_id);
                match self.touch(range) {
                    Some(peer) => peer.operate(request, operation, pass),
                    None => pass.reply(request, Err(Error::RangeNotFound(range))),
                }
            }
            Event::Persisted { token } => self.on_persisted(token, pass),
            Event::Flushed { token } => self.on_flushed(token)?,
            Event::SnapshotSent { range, to, index, delivered } => {
                if let Some(peer) = self.touch(range) {
                    peer.on_snapshot_sent(to, index, delivered);
                }
            }
            Event::Fenced { range, term, timestamp } => {
                if let Some(peer) = self.touch(range) {
                    peer.on_fenced(term, timestamp.0);
                }
            }
            Event::DescriptorHint(descriptor) => {
                if let Some(peer) = self.peers.get(&RangeId(descriptor.range_id)) {
                    peer.on_elsewhere(&descriptor, pass);
                }
            }
            Event::Unreachable(node) => {
                self.peers.values_mut().for_each(|peer| peer.on_unreachable(node));
            }
            Event::DiskRoom(room) => {
                self.room = room;
                if room == Room::Enough {
                    pass.reserve_bytes_left = reserve_bytes(self.shard);
                }
                self.peers.values_mut().for_each(|peer| peer.set_room(room));
            }
            Event::LogStalled(stalled) => {
                self.log_stalled = stalled;
                self.peers.values_mut().for_each(|peer| peer.set_log_stalled(stalled));
            }
        }
        Ok(())
    }

    fn on_tick(&mut self, pass: &mut Pass) {
        for peer in self.peers.values_mut() {
            peer.tick(pass);
            if peer.hand_over_stalled() {
                self.counters.stalled_hand_overs += 1;
            }
        }
        self.touch_all();
        let log_bytes = match self.room {
            Room::Enough => self.shared.config.flush_log_bytes,
            Room::Reserve | Room::None => SHORT_OF_ROOM_LOG_BYTES,
        };
        if let Some(flush) = self.flushing.begin_if_wanted(log_bytes, self.peers.values_mut()) {
            pass.io(flush);
        }
    }

    fn on_persisted(&mut self, token: u64, pass: &mut Pass) {
        self.destroying.retain(|_, destroying| match destroying {
            Destroying::State => true,
            Destroying::Log(append) => *append > token,
        });
        while self.appending.front().is_some_and(|appending| appending.token <= token) {
            let appending = self.appending.pop_front().expect("just seen");
            for (range, replica, ready) in appending.readies {
                // The replica may have been destroyed meanwhile, and another one created.
                let Some(peer) = self.touch(range).filter(|p| p.replica_id() == replica) else {
                    continue;
                };
                peer.on_persisted(ready, pass);
            }
        }
    }

    fn on_flushed(&mut self, token: u64) -> Result<()> {
        for ((range, replica), flushed) in self.flushing.finish(token) {
            let peer = self.peers.get_mut(&range).filter(|peer| peer.replica_id() == replica);
            if let Some(peer) = peer {
                self.log_changes.extend(peer.truncate(flushed)?);
            }
        }
        Ok(())
    }

    /// Emits the pass's log writes as one [`Io::Append`].
    fn append(&mut self, pass: &mut Pass) {
        if pass.log.is_empty() && pass.persisting.is_empty() {
            return;
        }
        let readies = std::mem::take(&mut pass.persisting);
        if let Some(last) = self.appending.back_mut().filter(|_| pass.log.is_empty()) {
            // Nothing to write: the readies only wait for the newest append in flight.
            last.readies.extend(readies);
            return;
        }
        self.last_token += 1;
        let token = self.last_token;
        self.appending.push_back(Appending { token, readies });
        let batch = std::mem::take(&mut pass.log);
        pass.io(Io::Append { token, batch });
    }

    fn destroy(&mut self, range: RangeId, pass: &mut Pass) {
        if let Some(peer) = self.peers.remove(&range) {
            self.counters.replicas_destroyed += 1;
            self.destroying.insert(range, Destroying::State);
            peer.destroy(pass);
        }
    }

    /// Returns the replica, or `None` if the range has another one here, or none.
    fn touch_replica(&mut self, replica: ReplicaRef) -> Option<&mut Peer> {
        self.touch(replica.range).filter(|peer| peer.replica_id() == replica.id)
    }

    fn touch(&mut self, range: RangeId) -> Option<&mut Peer> {
        let peer = self.peers.get_mut(&range)?;
        self.touched.insert(range);
        Some(peer)
    }

    fn touch_all(&mut self) {
        self.touched.extend(self.peers.keys().copied());
    }

    fn peer_rng(&mut self) -> fastrand::Rng {
        self.rng.fork()
    }

    fn stored_ranges(&self) -> Result<Vec<RangeState>> {
        let span = keys::range_states();
        let state = &self.shared.state;
        let mut records =
            state.scan(ColumnFamily::Meta, &span.start, &span.end, Direction::Forward)?;
        let mut ranges = Vec::new();
        while let Some((key, value)) = records.next()? {
            let stored = RangeState::decode(value).map_err(|e| {
                StorageError::corrupt(format!("range state {}: {e}", key.escape_ascii()))
            })?;
            let range = stored.descriptor.as_ref().map_or(0, |d| d.range_id);
            if keys::range_state(range) != key || !is_sound(&stored) {
                let reason = format!("range state {}: {stored:?}", key.escape_ascii());
                return Err(StorageError::corrupt(reason));
            }
            if self.shard.holds(RangeId(range)) {
                ranges.push(stored);
            }
        }
        Ok(ranges)
    }

    fn open_peer(&mut self, stored: RangeState) -> Result<(Peer, LogBatch)> {
        let node = self.shared.node;
        let descriptor = stored.descriptor.clone().unwrap_or_default();
        let range = RangeId(descriptor.range_id);
        let named = match stored.replica_id {
            0 => descriptor.replica_on(node.0).copied(),
            id => Some(descriptor.replica(id).copied().unwrap_or(Replica {
                replica_id: id,
                node_id: node.0,
                role: ReplicaRole::OutgoingVoter.into(),
            })),
        };
        let me = named.filter(|replica| replica.node_id == node.0).ok_or_else(|| {
            StorageError::corrupt(format!(
                "range {range} is stored here without a replica on {node}"
            ))
        })?;
        let rng = self.peer_rng();
        Peer::open(&self.shared, me, stored, rng)
    }

    fn count(&mut self, effects: &[Effect]) {
        let counters = &mut self.counters;
        for effect in effects {
            match effect {
                Effect::Io(Io::Send(_)) => counters.messages_sent += 1,
                Effect::Io(Io::Append { .. }) => counters.appends += 1,
                Effect::Io(Io::Flush { .. }) => counters.flushes += 1,
                Effect::Io(Io::SendSnapshot { .. }) => counters.snapshots_sent += 1,
                // The applier answers these requests.
                Effect::Io(Io::Apply(ApplyTask::Entries { entries, .. })) => {
                    let requests = entries.iter().map(|entry| entry.requests.len() as u64);
                    counters.requests_answered += requests.sum::<u64>();
                }
                Effect::Answer(Answer::Read { result: Ok(grant), .. }) => match grant.lease_until {
                    Some(_) => counters.reads_under_lease += 1,
                    None => counters.reads_confirmed += 1,
                },
                Effect::Answer(Answer::Read { result: Err(_), .. } | Answer::Reply { .. }) => {
                    counters.requests_answered += 1;
                }
                Effect::Role(RoleChange::NeedFence { .. }) => counters.leaderships_won += 1,
                Effect::Io(Io::Apply(_)) | Effect::Role(RoleChange::SteppedDown { .. }) => {}
            }
        }
    }
}

/// True if a replica can have reached this state: its numbers are small enough that calculations
/// with them do not overflow, and its members form a raft configuration.
fn is_sound(stored: &RangeState) -> bool {
    let Some(descriptor) = &stored.descriptor else { return false };
    stored.applied_index <= INDEX_MAX
        && stored.snapshot_index <= stored.applied_index
        && are_sound(&descriptor.replicas, descriptor.next_replica_id)
        && stored.replica_id < u64::MAX
}
