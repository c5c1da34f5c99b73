//! Steps by name, and the steps about time, the network and disks.

use rangedb_proto::{NodeId, RangeId, ReplicaId};
use rangedb_raftstore::{Event, Room};
use rangedb_storage::{ColumnFamily, Direction, Reader, Span, StagedSnapshot, StateEngine};

use super::network::{Stream, ends};
use super::node::{Node, TICK_MS};
use super::words::{Link, Words};
use super::{Cluster, RANGE, ROUNDS_MAX, show};

/// Ticks within which a follower that hears nothing must campaign: twice its timeout.
const CAMPAIGN_TICKS_MAX: usize = 20;

/// Ticks after which a follower votes for another one: the least election timeout.
const ELECTION_TICKS: usize = 10;

impl Cluster {
    pub fn step(&mut self, words: &mut Words<'_>) {
        match words.take() {
            "cluster" => self.found(words),
            "stabilize" => self.stabilize(),
            "deliver" => {
                let link = words.link();
                self.deliver(link);
            }
            "drop" => drop(self.network.take(words.link())),
            "hold" => self.network.hold(words.link()),
            "release" => self.network.release(),
            "cut" => self.network.cut(words.link()),
            "heal" => self.network.heal(),
            "persist" => {
                let id = words.number();
                self.node(id).persist();
                self.flush(id);
            }
            "pause" => self.pause(words, true),
            "resume" => self.pause(words, false),
            "tick" => self.tick_step(words),
            "elect" => self.elect(words.number()),
            "advance-clock" => {
                let id = words.number();
                self.node(id).clock.0 += words.number() * 1000;
            }
            "crash" => self.node(words.number()).crash(),
            "restart" => {
                let id = words.number();
                if let Some(ms) = words.named_number("tick-ms") {
                    let node = self.node(id);
                    node.vote_embargo_us = node.config.vote_embargo_us();
                    node.config.tick_us = ms * 1000;
                }
                self.node(id).open();
                self.flush(id);
                let status = self.node(id).show_status();
                self.out.push(status);
            }
            "fence" => {
                let id = words.number();
                let term = words.named_number("term");
                let term = term.unwrap_or_else(|| self.node(id).status().expect("a replica").term);
                self.fence(id, term, words.number());
            }
            "propose" => self.propose(words),
            "read" => self.read(words),
            "operate" => self.operate(words),
            "forge" => self.forge(words),
            "snapshot" => {
                let fate = words.take();
                let heard = !words.flag("unheard");
                if words.flag("behind") {
                    let link = words.link();
                    for envelope in self.network.take(link) {
                        self.node(ends(&envelope).1).step(Event::Message(envelope));
                    }
                }
                self.snapshot(fate, heard);
            }
            "flush" => {
                let id = words.number();
                self.node(id).flush_state();
                if !words.flag("unheard") {
                    self.flush(id);
                }
            }
            "skip-entry" => {
                let id = words.number();
                let index = words.number();
                let request = self.next_request();
                let range = RangeId(RANGE);
                self.event(id, Event::SkipEntry { request, range, index });
            }
            "disk" => {
                let id = words.number();
                let room = match words.take() {
                    "full" => Room::None,
                    "reserve" => Room::Reserve,
                    _ => Room::Enough,
                };
                self.event(id, Event::DiskRoom(room));
            }
            "log" => {
                let id = words.number();
                let stalled = words.take() == "stalled";
                self.event(id, Event::LogStalled(stalled));
            }
            "elsewhere" => {
                let id = words.number();
                let known_by = words.number();
                if words.flag("behind-messages") {
                    for envelope in self.network.take(Link::to(id)) {
                        self.node(id).step(Event::Message(envelope));
                    }
                }
                let range = self.node(known_by).status().expect("a replica").descriptor;
                self.event(id, Event::DescriptorHint((*range).clone()));
            }
            "unreachable" => {
                let id = words.number();
                self.event(id, Event::Unreachable(NodeId(words.number())));
            }
            "status" => self.each(Node::show_status),
            "members" => self.each(Node::show_members),
            "data" => self.each(Node::show_data),
            "staged" => self.each(|node| {
                format!("n{} holds {} staged", node.id, node.state.staged_snapshots())
            }),
            "tombstones" => self.each(Cluster::tombstones),
            "waiting" => self.show_waiting(),
            other => panic!("no step is called {other:?}"),
        }
    }

    fn pause(&mut self, words: &mut Words<'_>, pause: bool) {
        let what = words.take();
        let id = words.number();
        match what {
            "persist" => self.node(id).persist_paused = pause,
            "apply" => {
                self.node(id).apply_paused = pause;
                self.flush(id);
            }
            "reads" if pause => self.node(id).reads_paused = true,
            "reads" => self.resume_reads(id),
            other => panic!("{other:?} cannot be paused"),
        }
    }

    fn tick_step(&mut self, words: &mut Words<'_>) {
        let id = words.number();
        if words.flag("until") {
            assert!(words.flag("campaign"), "until campaign");
            self.tick_until_campaign(id);
        } else {
            for _ in 0..words.maybe_number().unwrap_or(1) {
                self.tick(id);
            }
        }
    }

    fn tick(&mut self, id: u64) {
        self.node(id).clock.0 += TICK_MS * 1000;
        self.event(id, Event::Tick);
    }

    fn tick_until_campaign(&mut self, id: u64) {
        for _ in 0..CAMPAIGN_TICKS_MAX {
            let before = self.network.queue().count();
            self.tick(id);
            let asks = |envelope| {
                ends(envelope).0 == id && show::envelope(envelope).contains("PreVote last")
            };
            if self.node(id).leads() || self.network.queue().skip(before).any(asks) {
                return;
            }
        }
        panic!("n{id} does not campaign:\n{}", self.out.join("\n"));
    }

    /// Elects a node. The other followers hear nothing for long enough to vote for it; their own
    /// messages meanwhile are lost.
    pub fn elect(&mut self, id: u64) {
        let others = self.nodes.values().filter(|n| n.id != id && n.store.is_some() && !n.leads());
        let others: Vec<_> = others.map(|node| node.id).collect();
        let said = self.out.len();
        for other in others {
            let before: Vec<_> = self.network.take(Link::default());
            for _ in 0..ELECTION_TICKS {
                self.tick(other);
            }
            self.network.take(Link::default());
            for envelope in before {
                self.network.send(envelope);
            }
        }
        self.out.truncate(said);
        self.tick_until_campaign(id);
    }

    /// Delivers the messages in flight; each receiver makes one pass for all its messages.
    fn deliver(&mut self, link: Link) {
        let mut receivers = Vec::new();
        for envelope in self.network.take(link) {
            let (_, to) = ends(&envelope);
            if !receivers.contains(&to) {
                receivers.push(to);
            }
            self.node(to).step(Event::Message(envelope));
        }
        for id in receivers {
            self.flush(id);
        }
    }

    pub fn stabilize(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let writes = |node: &&Node| !node.persist_paused && !node.appends.is_empty();
            let writers: Vec<_> = self.nodes.values().filter(writes).map(|n| n.id).collect();
            if writers.is_empty() && self.network.is_empty() {
                return;
            }
            for id in writers {
                self.node(id).persist();
                self.flush(id);
            }
            self.deliver(Link::default());
        }
        panic!("the cluster does not come to rest:\n{}", self.out.join("\n"));
    }

    /// Ends the oldest snapshot stream. If not `heard`, the snapshot waits at the receiver for the
    /// next pass.
    fn snapshot(&mut self, fate: &str, heard: bool) {
        let Stream { envelope, index, reader, span } =
            self.network.streams.pop_front().expect("no snapshot is on its way");
        let (from, to) = ends(&envelope);
        let replica = ReplicaId(envelope.to.unwrap().replica_id);
        let range = RangeId(RANGE);
        let arrives = fate != "lose" && self.node(to).store.is_some();
        if arrives {
            let staged = self.stage(to, &*reader, &span);
            self.out.push(format!("n{to} staged {} records", staged.records));
            self.node(to).step(Event::SnapshotReceived { envelope, staged });
            if heard {
                self.flush(to);
            }
        }
        let delivered = arrives && fate != "repeat";
        self.event(from, Event::SnapshotSent { range, to: replica, index, delivered });
    }

    fn stage(&mut self, id: u64, reader: &dyn Reader, span: &Span) -> StagedSnapshot {
        let mut staging = self.node(id).state.stage().unwrap();
        for cf in ColumnFamily::DATA {
            let mut records = reader.scan(cf, &span.start, &span.end, Direction::Forward).unwrap();
            while let Some((key, value)) = records.next().unwrap() {
                let record = (key.to_vec().into(), value.to_vec().into());
                staging.add(cf, &[record]).unwrap();
            }
        }
        staging.finish().unwrap()
    }

    /// Shows everything in flight, to disks and to other nodes.
    fn show_waiting(&mut self) {
        for node in self.nodes.values() {
            for (token, batch) in &node.appends {
                self.out.push(format!("n{} append #{token} [{}]", node.id, show::batch(batch)));
            }
        }
        self.out.extend(self.network.queue().map(show::envelope));
        self.out.extend(self.network.streams.iter().map(|s| show::envelope(&s.envelope)));
    }
}
