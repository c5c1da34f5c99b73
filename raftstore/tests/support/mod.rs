//! A cluster in one thread. Everything that takes time waits for a step of the script.

mod machine;
mod network;
mod node;
mod requests;
mod show;
mod steps;
mod words;

use std::collections::BTreeMap;

use rangedb_proto::v1::{Epoch, RangeDescriptor, RangeState, Replica, Tombstone};
use rangedb_raftstore::{Answer, Config, Effect, Event, Io, ReadGrant, RoleChange};
use rangedb_storage::ColumnFamily;

use network::{Network, Stream};
use node::{Node, ReadableRead};
use words::Words;

/// Id of the only range.
const RANGE: u64 = 1;

/// Most passes within which a store must come to rest.
const PASSES_MAX: usize = 100;

/// Most rounds within which a cluster must come to rest.
const ROUNDS_MAX: usize = 200;

#[derive(Default)]
pub struct Cluster {
    nodes: BTreeMap<u64, Node>,
    network: Network,
    last_request: u64,
    /// Parameters of each read, by request.
    reads: BTreeMap<u64, requests::Read>,
    out: Vec<String>,
}

impl Cluster {
    /// Carries out one step. Returns what happened.
    pub fn carry_out(&mut self, step: &str) -> Vec<String> {
        let (step, quiet) = match step.strip_prefix("quiet ") {
            Some(rest) => (rest, true),
            None => (step, false),
        };
        let mut words = Words::new(step);
        self.step(&mut words);
        words.expect_end();
        let out = std::mem::take(&mut self.out);
        if quiet { Vec::new() } else { out }
    }

    fn found(&mut self, words: &mut Words<'_>) {
        let nodes = words.named_number("nodes").unwrap();
        let replicas = words.named_number("replicas").unwrap_or(nodes);
        let leader = words.named_number("leader");
        let mut config = Config::default();
        if let Some(bytes) = words.named_number("log-keep") {
            config.log_keep_bytes = bytes;
        }
        if let Some(bytes) = words.named_number("flush-log") {
            config.flush_log_bytes = bytes;
        }
        config.lease_reads = !words.flag("no-lease");
        let ticks_ms: Vec<u64> = words
            .named("tick-ms")
            .map_or(Vec::new(), |ticks| ticks.split(',').map(|ms| ms.parse().unwrap()).collect());
        let range = RangeDescriptor {
            range_id: RANGE,
            epoch: Some(Epoch { version: 1, conf_ver: 1 }),
            replicas: (1..=replicas)
                .map(|id| Replica { replica_id: id, node_id: id, role: 0 })
                .collect(),
            next_replica_id: replicas + 1,
            ..Default::default()
        };
        *self = Cluster::default();
        for id in 1..=nodes {
            let range = (id <= replicas).then_some(&range);
            let mut config = config.clone();
            if let Some(ms) = ticks_ms.get(id as usize - 1) {
                config.tick_us = ms * 1000;
            }
            self.nodes.insert(id, Node::new(id, config.clone(), range));
        }
        if let Some(leader) = leader {
            // As at the founding of a cluster: no replica has promised anything.
            for node in self.nodes.values_mut() {
                node.store.as_mut().unwrap().found();
            }
            self.flush_all();
            self.stabilize();
            if leader != 1 {
                self.elect(leader);
                self.stabilize();
            }
            let term = self.node(leader).status().expect("a replica").term;
            self.fence(leader, term, 100);
            self.stabilize();
            self.out.clear();
        }
    }

    fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).unwrap_or_else(|| panic!("no node {id}"))
    }

    fn event(&mut self, id: u64, event: Event) {
        self.node(id).step(event);
        self.flush(id);
    }

    fn flush_all(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.flush(id);
        }
    }

    /// Runs passes until the store has no work left.
    fn flush(&mut self, id: u64) {
        for _ in 0..PASSES_MAX {
            for effect in self.node(id).flush() {
                self.perform(id, effect);
            }
            if !self.node(id).apply_paused {
                self.apply(id);
            }
            if !self.node(id).has_work() {
                return;
            }
        }
        panic!("n{id} does not come to rest:\n{}", self.out.join("\n"));
    }

    fn apply(&mut self, id: u64) {
        for (request, result) in self.node(id).apply() {
            self.out.push(format!("n{id} reply #{request} {}", show::answer(&result)));
        }
    }

    fn perform(&mut self, id: u64, effect: Effect) {
        let line = match effect {
            Effect::Io(Io::Send(envelope)) => {
                let line = show::envelope(&envelope);
                let lost = if self.network.send(envelope) { "" } else { " (lost)" };
                format!("{line}{lost}")
            }
            Effect::Io(Io::Append { token, batch }) => {
                let line = format!("n{id} append #{token} [{}]", show::batch(&batch));
                self.node(id).appends.push_back((token, batch));
                line
            }
            Effect::Io(Io::Apply(task)) => {
                self.node(id).tasks.push_back(task);
                return;
            }
            Effect::Io(Io::Flush { token }) => {
                self.node(id).flushes.push_back(token);
                format!("n{id} flush #{token}")
            }
            Effect::Answer(Answer::Reply { request, result }) => {
                format!("n{id} reply #{request} {}", show::answer(&result))
            }
            Effect::Answer(Answer::Read { request, result: Err(error) }) => {
                format!("n{id} reply #{request} {}", show::answer(&Err(error)))
            }
            Effect::Answer(Answer::Read { request, result: Ok(grant) }) => {
                let ReadGrant { reader, lease_until, .. } = grant;
                let read = ReadableRead { request, reader, lease_until };
                self.on_read_ready(id, read);
                return;
            }
            Effect::Io(Io::SendSnapshot { envelope, index, reader, span }) => {
                let line = show::envelope(&envelope);
                self.network.streams.push_back(Stream { envelope, index, reader, span });
                line
            }
            Effect::Role(RoleChange::NeedFence { term, .. }) => {
                format!("n{id} needs a fence for term {term}")
            }
            Effect::Role(RoleChange::SteppedDown { .. }) => format!("n{id} stepped down"),
        };
        self.out.push(line);
    }

    fn each(&mut self, show: impl Fn(&Node) -> String) {
        self.out.extend(self.nodes.values().map(show));
    }

    /// Shows stored tombstones and range states.
    fn tombstones(node: &Node) -> String {
        use prost::Message as _;
        use rangedb_storage::{Reader as _, keys};
        let get = |key: bytes::Bytes| node.state.get(ColumnFamily::Meta, &key).unwrap();
        let tombstone = get(keys::tombstone(RANGE)).map(|v| Tombstone::decode(v).unwrap());
        let kept = get(keys::range_state(RANGE)).map(|v| RangeState::decode(v).unwrap());
        let tombstone = match tombstone {
            Some(tombstone) => format!("a tombstone below p{}", tombstone.replica_ids_below),
            None => "no tombstone".into(),
        };
        let kept = kept.map_or("no state".into(), |s| format!("state at {}", s.applied_index));
        format!("n{} {tombstone}, {kept}", node.id)
    }
}
