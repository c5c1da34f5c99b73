//! Three nodes in one thread, with a record of all messages, and of what each node has promised
//! durably and has applied.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use prost::Message as _;
use raft_proto::eraftpb::{HardState, Message, MessageType};
use rangedb_proto::v1::{Epoch, RaftEnvelope, RangeDescriptor, Replica, SnapshotMeta};
use rangedb_proto::{NodeId, RangeId};
use rangedb_raftstore::{
    Applier, ApplyEffect, Config, Effect, Event, Io, Monotonic, Options, RangeRef, RangeStatus,
    Shard, Store, bootstrap,
};
use rangedb_storage::{
    Applied, ApplyContext, Batch, LogBatch, LogEngine as _, MemLog, MemState, RangeSize, Reader,
    Result, StateEngine as _, StateMachine,
};

use crate::forge::{message_of, with_message};

pub const NODES: u64 = 3;
pub const RANGE: u64 = 1;

/// Most messages remembered for forging.
const SEEN_MAX: usize = 64;

/// Most passes or rounds within which a store, or all stores, must come to rest.
const ROUNDS_MAX: usize = 200;

/// Commands by log index, as one node applied them.
type Commands = Arc<Mutex<BTreeMap<u64, Bytes>>>;

/// State machine that takes any command, and checks that its node never applies another one at an
/// index.
struct Machine(Commands);

impl StateMachine for Machine {
    fn load(&mut self, _state: &dyn Reader, _start_key: &[u8], _end_key: &[u8]) -> Result<()> {
        Ok(())
    }

    fn apply(
        &mut self,
        context: &ApplyContext<'_>,
        command: &[u8],
        _batch: &mut Batch<'_>,
    ) -> Result<Applied> {
        let command = Bytes::copy_from_slice(command);
        let before = self.0.lock().unwrap().insert(context.index, command.clone());
        assert!(before.is_none_or(|before| before == command), "entry {} changed", context.index);
        Ok(Applied::default())
    }

    fn size(&self) -> RangeSize {
        RangeSize::default()
    }
}

struct Node {
    id: u64,
    log: Arc<MemLog>,
    state: Arc<MemState>,
    /// `None` once opening has refused the stored data: an operator would wipe the node.
    store: Option<Store>,
    applier: Option<Applier>,
    appends: VecDeque<(u64, LogBatch)>,
    flushes: VecDeque<u64>,
    applied: Commands,
    /// Hard state last seen in the log.
    promised: HardState,
    rng: fastrand::Rng,
}

impl Node {
    fn new(id: u64, range: &RangeDescriptor) -> Self {
        let mut node = Node {
            id,
            log: Arc::new(MemLog::new()),
            state: Arc::new(MemState::new()),
            store: None,
            applier: None,
            appends: VecDeque::new(),
            flushes: VecDeque::new(),
            applied: Commands::default(),
            promised: HardState::default(),
            rng: fastrand::Rng::with_seed(id),
        };
        bootstrap(&*node.log, &*node.state, std::slice::from_ref(range)).unwrap();
        node.open();
        node
    }

    fn open(&mut self) {
        let options = Options {
            node: NodeId(self.id),
            shard: Shard { index: 0, count: 1 },
            config: Config::default(),
            vote_embargo_us: 0,
            seed: self.id,
        };
        let applied = self.applied.clone();
        let machines = Box::new(move |range: RangeId| {
            // Commands of another range, made up by a forged message, do not concern this one.
            let applied = if range.0 == RANGE { applied.clone() } else { Commands::default() };
            Box::new(Machine(applied)) as Box<dyn StateMachine>
        });
        let opened = Store::open(options, self.log.clone(), self.state.clone(), machines).ok();
        (self.store, self.applier) = opened.unzip();
    }

    fn crash(&mut self) {
        (self.store, self.applier) = (None, None);
        self.appends.clear();
        self.flushes.clear();
        self.log.crash();
        self.state.crash(&mut self.rng);
        self.open();
        self.check_promises();
    }

    /// Checks the node's promises against the hard state in its log.
    fn check_promises(&mut self) {
        let Some(found) = self.log.state(RANGE).unwrap().map(|state| state.hard_state) else {
            // The replica was destroyed; another one may come.
            self.promised = HardState::default();
            self.applied.lock().unwrap().clear();
            return;
        };
        let before = std::mem::replace(&mut self.promised, found.clone());
        assert!(found.term >= before.term, "n{}: {found:?} after {before:?}", self.id);
        assert!(found.commit >= before.commit, "n{}: {found:?} after {before:?}", self.id);
        let voted_again = before.vote != 0 && found.vote != before.vote;
        assert!(
            found.term > before.term || !voted_again,
            "n{}: {found:?} after {before:?}",
            self.id
        );
    }

    fn persist(&mut self) {
        for (token, batch) in std::mem::take(&mut self.appends) {
            self.log.append(batch).unwrap();
            self.check_promises();
            if let Some(store) = &mut self.store {
                store.step(Event::Persisted { token });
            }
        }
        self.state.flush().unwrap();
        for token in std::mem::take(&mut self.flushes) {
            if let Some(store) = &mut self.store {
                store.step(Event::Flushed { token });
            }
        }
    }
}

pub struct World {
    nodes: BTreeMap<u64, Node>,
    queue: VecDeque<RaftEnvelope>,
    seen: VecDeque<RaftEnvelope>,
    requests: u64,
}

impl World {
    /// Makes nodes of which none leads yet.
    pub fn founded() -> Self {
        let range = RangeDescriptor {
            range_id: RANGE,
            epoch: Some(Epoch { version: 1, conf_ver: 1 }),
            replicas: (1..=NODES).map(replica).collect(),
            next_replica_id: NODES + 1,
            ..Default::default()
        };
        let nodes = (1..=NODES).map(|id| (id, Node::new(id, &range))).collect();
        let mut world = World { nodes, queue: VecDeque::new(), seen: VecDeque::new(), requests: 0 };
        for id in 1..=NODES {
            world.node(id).store.as_mut().unwrap().found();
            world.flush(id);
        }
        world
    }

    /// Makes nodes of which node 1 leads and all have all entries.
    pub fn led() -> Self {
        let mut world = World::founded();
        world.run();
        assert_eq!(world.status(1).leader_replica_id, 1);
        // Heartbeats tell the others the commit index.
        (0..4).for_each(|_| world.tick(1));
        world.run();
        world
    }

    fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node of this world")
    }

    pub fn status(&self, id: u64) -> RangeStatus {
        let store = self.nodes[&id].store.as_ref().expect("a node that runs");
        let status = store.status();
        status.into_iter().find(|status| status.descriptor.range_id == RANGE).expect("a replica")
    }

    /// Shows everything that a message can change.
    pub fn show(&self) -> String {
        let show = |node: &Node| {
            let log = (node.log.ranges().unwrap(), node.log.state(RANGE).unwrap());
            format!("{:?} {log:?}\n", node.store.as_ref().unwrap().status())
        };
        self.nodes.values().map(show).collect()
    }

    pub fn tick(&mut self, id: u64) {
        self.event(id, Event::Tick);
    }

    pub fn persist(&mut self, id: u64) {
        self.node(id).persist();
        self.flush(id);
    }

    pub fn crash(&mut self, id: u64) {
        self.node(id).crash();
        self.flush(id);
    }

    pub fn propose(&mut self, id: u64) {
        self.requests += 1;
        let request = self.requests;
        let range = RangeRef { id: RangeId(RANGE), epoch: Epoch { version: 1, conf_ver: 1 } };
        let command = format!("command {request}").into();
        let frees_space = false;
        self.event(id, Event::Propose { request, range, command, cost: 1, frees_space });
    }

    /// Delivers the first messages in flight.
    pub fn deliver(&mut self, count: usize) {
        for _ in 0..count {
            let Some(envelope) = self.queue.pop_front() else { return };
            self.receive(envelope);
        }
    }

    /// Delivers a message to the node that it names; to node 2 if there is no such node.
    pub fn receive(&mut self, envelope: RaftEnvelope) {
        let node = envelope.to.map_or(0, |to| to.node_id);
        self.deliver_to(if self.nodes.contains_key(&node) { node } else { 2 }, envelope);
    }

    pub fn deliver_to(&mut self, node: u64, envelope: RaftEnvelope) {
        self.event(node, Event::Message(envelope));
    }

    /// Delivers a staged snapshot without records to the node that its envelope names.
    pub fn receive_snapshot(&mut self, envelope: RaftEnvelope) {
        let node = envelope.to.map_or(0, |to| to.node_id).clamp(1, NODES);
        let staged = self.node(node).state.stage().unwrap().finish().unwrap();
        self.event(node, Event::SnapshotReceived { envelope, staged });
    }

    /// Runs until no message is in flight and no write waits for a disk.
    pub fn run(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.deliver(self.queue.len());
            (1..=NODES).for_each(|id| self.persist(id));
            self.answer_fences();
            if self.queue.is_empty() && self.nodes.values().all(|node| node.appends.is_empty()) {
                return;
            }
        }
        panic!("the nodes do not come to rest");
    }

    fn answer_fences(&mut self) {
        for id in 1..=NODES {
            let Some(store) = &self.nodes[&id].store else { continue };
            let unfenced = store.status().into_iter().find(|status| status.leads && !status.fenced);
            if let Some(status) = unfenced {
                let range = RangeId(status.descriptor.range_id);
                let timestamp = rangedb_proto::Timestamp(100);
                self.event(id, Event::Fenced { range, term: status.term, timestamp });
            }
        }
    }

    /// Returns an earlier message.
    pub fn seen(&self, place: usize) -> RaftEnvelope {
        self.seen[place % self.seen.len()].clone()
    }

    pub fn envelope(&self, from: u64, to: u64) -> RaftEnvelope {
        RaftEnvelope {
            range_id: RANGE,
            from: Some(replica(from)),
            to: Some(replica(to)),
            epoch: Some(Epoch { version: 1, conf_ver: 1 }),
            ..Default::default()
        }
    }

    /// Returns the message of a possible snapshot, above another replica's log, based on an earlier
    /// message.
    pub fn snapshot_envelope(&self, place: usize) -> RaftEnvelope {
        let envelope = self.seen(place);
        let (from, to) = (envelope.from.unwrap(), envelope.to.unwrap());
        let sent = message_of(&envelope).unwrap_or_default();
        let mut message = Message {
            from: from.replica_id,
            to: to.replica_id,
            term: sent.term.max(1),
            ..Default::default()
        };
        message.set_msg_type(MessageType::MsgSnapshot);
        let snapshot = message.mut_snapshot();
        let descriptor = RangeDescriptor {
            range_id: RANGE,
            epoch: Some(Epoch { version: 1, conf_ver: 2 }),
            replicas: (1..=NODES).map(replica).collect(),
            next_replica_id: NODES + 1,
            ..Default::default()
        };
        let meta = SnapshotMeta { descriptor: Some(descriptor), format_version: 2 };
        snapshot.data = meta.encode_to_vec().into();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (sent.index + 3, sent.term.max(1));
        metadata.mut_conf_state().voters = (1..=NODES).collect();
        with_message(&envelope, &message)
    }

    fn event(&mut self, id: u64, event: Event) {
        if let Some(store) = &mut self.node(id).store {
            store.step(event);
        }
        self.flush(id);
    }

    /// Runs passes until the store has no work left. An error would end the process in production,
    /// and no message may have that effect.
    fn flush(&mut self, id: u64) {
        for _ in 0..ROUNDS_MAX {
            let Some(store) = &mut self.node(id).store else { return };
            let effects = store.flush(Monotonic(0)).expect("a message ends no process");
            effects.into_iter().for_each(|effect| self.perform(id, effect));
            self.apply(id);
            let store = self.nodes[&id].store.as_ref();
            if !store.is_some_and(Store::has_work) {
                return;
            }
        }
        panic!("n{id} does not come to rest");
    }

    fn apply(&mut self, id: u64) {
        let node = self.node(id);
        let (Some(store), Some(applier)) = (&mut node.store, &mut node.applier) else { return };
        while applier.has_work() {
            let mut effects = VecDeque::from(applier.run().expect("a message ends no process"));
            while let Some(effect) = effects.pop_front() {
                match effect {
                    ApplyEffect::Reply { .. } => {}
                    ApplyEffect::Event(event) => store.step(event),
                    ApplyEffect::Flush { flush } => {
                        node.state.flush().unwrap();
                        effects.extend(applier.on_flushed(flush));
                    }
                }
            }
        }
    }

    fn perform(&mut self, id: u64, effect: Effect) {
        match effect {
            Effect::Io(Io::Send(envelope)) => {
                self.seen.push_back(envelope.clone());
                self.queue.push_back(envelope);
                if self.seen.len() > SEEN_MAX {
                    self.seen.pop_front();
                }
            }
            Effect::Io(Io::Append { token, batch }) => {
                self.node(id).appends.push_back((token, batch))
            }
            Effect::Io(Io::Apply(task)) => {
                if let Some(applier) = &mut self.node(id).applier {
                    applier.step(task);
                }
            }
            Effect::Io(Io::Flush { token }) => self.node(id).flushes.push_back(token),
            Effect::Answer(_) | Effect::Io(Io::SendSnapshot { .. }) | Effect::Role(_) => {}
        }
    }
}

fn replica(id: u64) -> Replica {
    Replica { replica_id: id, node_id: id, role: 0 }
}
