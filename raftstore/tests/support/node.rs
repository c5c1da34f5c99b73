//! A node: a store, its engines, its clock, and the work that its threads have not done yet.

use std::collections::VecDeque;
use std::sync::Arc;

use rangedb_proto::NodeId;
use rangedb_proto::v1::RangeDescriptor;
use rangedb_raftstore::{
    Applier, ApplyEffect, ApplyTask, Config, Effect, Error, Event, Monotonic, Options, RangeStatus,
    Shard, Store, bootstrap,
};
use rangedb_storage::{
    ColumnFamily, Direction, LogBatch, LogEngine as _, MemLog, MemState, Reader, StateEngine,
};

use super::machine::Machine;
use super::show;
use super::words::shortened_value;

pub const TICK_MS: u64 = 100;

/// A read that may be served, evaluated once the process gets to it.
pub struct ReadableRead {
    pub request: u64,
    pub reader: Arc<dyn Reader>,
    pub lease_until: Option<Monotonic>,
}

pub struct Node {
    pub id: u64,
    pub config: Config,
    pub log: Arc<MemLog>,
    pub state: Arc<MemState>,
    /// Vote embargo of the previous run, as the node keeps it.
    pub vote_embargo_us: u64,
    /// `None` between a crash and a restart.
    pub store: Option<Store>,
    /// Applier beside the store, and `None` with it.
    applier: Option<Applier>,
    /// Tasks that wait while applying is paused.
    pub tasks: VecDeque<ApplyTask>,
    pub apply_paused: bool,
    pub clock: Monotonic,
    pub appends: VecDeque<(u64, LogBatch)>,
    pub flushes: VecDeque<u64>,
    pub reads: Vec<ReadableRead>,
    pub persist_paused: bool,
    pub reads_paused: bool,
    /// Decides what a crash keeps.
    rng: fastrand::Rng,
}

impl Node {
    pub fn new(id: u64, config: Config, range: Option<&RangeDescriptor>) -> Self {
        let mut node = Node {
            id,
            config,
            log: Arc::new(MemLog::new()),
            state: Arc::new(MemState::new()),
            store: None,
            applier: None,
            vote_embargo_us: 0,
            tasks: VecDeque::new(),
            apply_paused: false,
            clock: Monotonic(0),
            appends: VecDeque::new(),
            flushes: VecDeque::new(),
            reads: Vec::new(),
            persist_paused: false,
            reads_paused: false,
            rng: fastrand::Rng::with_seed(id),
        };
        if let Some(range) = range {
            bootstrap(&*node.log, &*node.state, std::slice::from_ref(range)).unwrap();
        }
        node.open();
        node
    }

    pub fn open(&mut self) {
        assert!(self.store.is_none(), "n{} is running", self.id);
        let options = Options {
            node: NodeId(self.id),
            shard: Shard { index: 0, count: 1 },
            config: self.config.clone(),
            vote_embargo_us: self.vote_embargo_us,
            seed: self.id,
        };
        let (log, state) = (self.log.clone(), self.state.clone());
        let machines = Box::new(|_| Box::new(Machine) as Box<_>);
        let (store, applier) = Store::open(options, log, state, machines).unwrap();
        (self.store, self.applier) = (Some(store), Some(applier));
    }

    pub fn crash(&mut self) {
        (self.store, self.applier) = (None, None);
        self.tasks.clear();
        self.appends.clear();
        self.flushes.clear();
        self.reads.clear();
        self.log.crash();
        self.state.crash(&mut self.rng);
    }

    /// Queues an event, if the node runs.
    pub fn step(&mut self, event: Event) {
        if let Some(store) = &mut self.store {
            store.step(event);
        }
    }

    /// Runs one pass.
    pub fn flush(&mut self) -> Vec<Effect> {
        let Some(store) = &mut self.store else { return Vec::new() };
        store.flush(self.clock).unwrap()
    }

    /// Carries out the applier's tasks. Returns its answers.
    pub fn apply(&mut self) -> Vec<(u64, Result<bytes::Bytes, Error>)> {
        let mut answers = Vec::new();
        let Some(applier) = &mut self.applier else { return answers };
        self.tasks.drain(..).for_each(|task| applier.step(task));
        let mut events = Vec::new();
        while applier.has_work() {
            let mut effects = VecDeque::from(applier.run().unwrap());
            while let Some(effect) = effects.pop_front() {
                match effect {
                    ApplyEffect::Reply { request, result } => answers.push((request, result)),
                    ApplyEffect::Event(event) => events.push(event),
                    ApplyEffect::Flush { flush } => {
                        self.state.flush().unwrap();
                        effects.extend(applier.on_flushed(flush));
                    }
                }
            }
        }
        events.into_iter().for_each(|event| self.step(event));
        answers
    }

    /// True if the store has work, also from the applier's reports.
    pub fn has_work(&self) -> bool {
        self.store.as_ref().is_some_and(Store::has_work)
    }

    /// Persists all waiting log writes.
    pub fn persist(&mut self) {
        for (token, batch) in std::mem::take(&mut self.appends) {
            self.log.append(batch).unwrap();
            self.step(Event::Persisted { token });
        }
    }

    pub fn status(&self) -> Option<RangeStatus> {
        self.store.as_ref()?.status().into_iter().find(|s| s.descriptor.range_id == 1)
    }

    pub fn show_status(&self) -> String {
        let id = self.id;
        if self.store.is_none() {
            return format!("n{id} is down");
        }
        let Some(s) = self.status() else { return format!("n{id} has no replica") };
        let me = s.replica.replica_id;
        let role = match s.leader_replica_id {
            leader if leader == me && s.fenced => "leads, fenced".into(),
            leader if leader == me && s.leads => "leads, not fenced".into(),
            leader if leader == me => "leads, not ready".into(),
            0 => "knows no leader".into(),
            leader => format!("follows p{leader}"),
        };
        let (term, truncated, last) = (s.term, s.truncated_index, s.last_index);
        let log = if truncated == last {
            format!("empty behind {last}")
        } else {
            format!("{}..{last}", truncated + 1)
        };
        let (applied, commit) = (s.applied_index, s.commit_index);
        let sends = if s.sends_snapshot { ", sends a snapshot" } else { "" };
        let stands = s
            .quarantine
            .map_or(String::new(), |q| format!(", quarantined at {}: {}", q.index, q.reason));
        format!(
            "n{id} p{me} {role}, term {term}, applied {applied}, commit {commit}, log \
             {log}{sends}{stands}"
        )
    }

    pub fn show_members(&self) -> String {
        match self.status() {
            Some(status) => format!("n{} {}", self.id, show::members(&status.descriptor)),
            None => format!("n{} nothing", self.id),
        }
    }

    /// Shows the data that readers see, or that a crash just left.
    pub fn show_data(&self) -> String {
        let mut records =
            self.state.scan(ColumnFamily::Current, b"", b"", Direction::Forward).unwrap();
        let mut out = format!("n{}", self.id);
        while let Some((key, value)) = records.next().unwrap() {
            let value = shortened_value(std::str::from_utf8(value).unwrap());
            out += &format!(" {}={value}", key.escape_ascii());
        }
        out
    }

    pub fn leads(&self) -> bool {
        self.status().is_some_and(|s| s.leader_replica_id == s.replica.replica_id)
    }

    pub fn flush_state(&mut self) {
        let token = self.flushes.pop_front().expect("no flush was asked for");
        self.state.flush().unwrap();
        self.step(Event::Flushed { token });
    }
}
