//! Occurrences of the simulated world, and the hosts that they happen to.

use std::sync::Weak;

use prost::Message;
use rangedb_client::net::{BoxFuture, CallError};
use rangedb_proto::v1::{self, RaftEnvelope, raft_envelope::Body, request, response};
use rangedb_raftstore::{ApplyEffect, Effect, Event};
use rangedb_storage::FlushUnderWay;

use crate::executor::{TaskId, Timer};
use crate::net::{PendingCall, Responder};
use crate::process::FlushRequester;
use crate::snapshots::{Outbound, Part};
use crate::trace::Trace;

/// Host that an occurrence happens to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Host {
    /// The world itself, which injects faults and compares nodes.
    World,
    /// This client and no later one at the same place.
    Client { place: usize, life: u64 },
    /// The process that runs in the slot when the occurrence happens.
    Slot(usize),
    /// This process and no later one at the same place.
    Process { slot: usize, life: u64 },
}

impl Host {
    /// Adds the host to the hash of the trace.
    pub fn trace(self, trace: &mut Trace) {
        let [kind, place, life] = match self {
            Host::World => [0, 0, 0],
            Host::Client { place, life } => [1, place as u64, life],
            Host::Slot(slot) => [2, slot as u64, 0],
            Host::Process { slot, life } => [3, slot as u64, life],
        };
        trace.word(kind << 62 | place << 32 | life);
    }

    /// Returns the host's place in the network: nodes first, then clients.
    pub fn place(self, slots: usize) -> usize {
        match self {
            Host::Slot(slot) | Host::Process { slot, .. } => slot,
            Host::Client { place, .. } => slots + place,
            Host::World => unreachable!("the world does not send messages"),
        }
    }
}

/// Fault, step of a fault, or its mending.
#[derive(Clone, PartialEq, Debug)]
pub enum Fault {
    Crash,
    Restart {
        slot: usize,
    },
    /// Make a process crash at the next delicate moment.
    Ambush,
    /// Crash the process that an ambush has met.
    Strike {
        slot: usize,
    },
    /// Crash, and replace the disk by an empty one.
    Wipe,
    Pause,
    Resume {
        slot: usize,
    },
    Partition,
    /// Mend the network, if this episode is still under way.
    Mend {
        episode: u64,
    },
    /// Cut a leader's links to the other nodes, but not to clients.
    Isolate,
    /// Keep a follower from its leader until it asks for votes.
    Estrange,
    /// Second step of `Estrange`: isolate the leader too, and restart the follower that is still
    /// bound to it by a vote promise.
    Forget {
        episode: u64,
        leader: usize,
        first: usize,
        second: usize,
    },
    /// Isolate a leader while another is elected, then hold a second election without the winner.
    ElectTwice,
    /// Second step of `ElectTwice`: crash the voter, and cut off the winner.
    LoseVoter {
        episode: u64,
        leader: usize,
        voter: usize,
        winner: usize,
    },
    /// Third step of `ElectTwice`: mend the network for all nodes but the winner.
    Reunite {
        episode: u64,
        winner: usize,
    },
    TransferLeader,
    /// Make a leader hand over as soon as it serves a snapshot read.
    TransferAfterRead,
    /// Second step of `TransferAfterRead`: the read was served.
    HandOver {
        slot: usize,
        range: u64,
    },
    /// End a follower's process, and keep it away until it needs a snapshot.
    LeaveBehind,
    /// Check of `LeaveBehind`: restart the follower if it needs a snapshot by now.
    LookBehind {
        episode: u64,
        slot: usize,
        range: u64,
    },
    /// Make a node deaf to the other nodes.
    Deafen {
        slot: usize,
        others: Vec<usize>,
    },
    /// Delay the answers to a leader more and more, then make the leader mute.
    Lag,
    /// Second step of `Lag`: make the node mute to the other nodes.
    Mute {
        episode: u64,
        slot: usize,
        others: Vec<usize>,
    },
    SlowDisk,
    FailDisk,
    FillDisk,
    FreeDisk {
        slot: usize,
    },
    /// Remove a node for good, as an operator would.
    RemoveNode,
    WallClockJump,
    /// Delay what a client sends for a while. What it sends afterwards overtakes it.
    DelayClient,
    /// End a client in the middle of a transaction. Another one takes its place.
    KillClient,
    /// Pause a client, one in the middle of a transaction if there is one.
    PauseClient,
    ResumeClient {
        place: usize,
    },
}

pub enum Occurrence {
    Spawn(BoxFuture<'static, ()>),
    Poll(TaskId),
    Timer(Weak<Timer>),
    Tick {
        shard: usize,
    },
    /// A store has mail.
    Pass {
        shard: usize,
    },
    /// Effects of a pass that was cut off in the middle by a pause.
    Perform {
        shard: usize,
        effects: Vec<Effect>,
    },
    /// The log writer's sync is finished.
    Synced,
    /// An applier has work.
    Apply {
        shard: usize,
    },
    /// An applier ends a round that took time.
    Applied {
        shard: usize,
        effects: Vec<ApplyEffect>,
    },
    /// A heavy read has its turn.
    HeavyRead(Box<dyn FnOnce() + Send>),
    Flushed {
        shard: usize,
        asked: FlushRequester,
        flush: FlushUnderWay,
    },
    Raft {
        cluster_id: u64,
        envelope: RaftEnvelope,
    },
    /// An event for a store, from within the store's own process.
    Store {
        range: rangedb_proto::RangeId,
        event: Event,
    },
    Call {
        request: request::Body,
        timeout_us: u64,
        responder: Responder,
    },
    Return {
        call: PendingCall,
        result: Result<response::Body, CallError>,
    },
    /// A snapshot is read and sent after its wait.
    Stream(Box<Outbound>),
    Snapshot(Box<Part>),
    /// The cluster has admitted the directory.
    Joined {
        cluster_id: u64,
        node_id: u64,
    },
    Fault(Fault),
    /// Time for the checks that compare nodes with each other.
    Compare,
}

impl Occurrence {
    /// Adds the occurrence to the hash of the trace.
    pub fn trace(&self, trace: &mut Trace) {
        match self {
            Occurrence::Spawn(_) => trace.word(1),
            Occurrence::Poll(task) => {
                trace.word(2);
                trace.word(*task);
            }
            Occurrence::Timer(_) => trace.word(3),
            Occurrence::Tick { shard } => trace.word(0x400 + *shard as u64),
            Occurrence::Pass { shard } => trace.word(0x500 + *shard as u64),
            Occurrence::Perform { shard, effects } => {
                trace.word(0x600 + *shard as u64);
                trace.word(effects.len() as u64);
            }
            Occurrence::Synced => trace.word(7),
            Occurrence::Apply { shard } => trace.word(0x1100 + *shard as u64),
            Occurrence::Applied { shard, effects } => {
                trace.word(0x1200 + *shard as u64);
                trace.word(effects.len() as u64);
            }
            Occurrence::HeavyRead(_) => trace.word(0x1300),
            Occurrence::Flushed { shard, asked, .. } => {
                trace.word(0x800 + *shard as u64);
                trace.word(match asked {
                    FlushRequester::Store { token } => *token,
                    FlushRequester::Applier { flush } => *flush << 1,
                });
            }
            Occurrence::Raft { envelope, .. } => {
                trace.word(9);
                trace.word(envelope.range_id);
                match &envelope.body {
                    Some(Body::Message(bytes)) => trace.bytes(bytes),
                    _ => trace.bytes(&envelope.encode_to_vec()),
                }
            }
            Occurrence::Store { range, .. } => {
                trace.word(10);
                trace.word(range.0);
            }
            Occurrence::Call { request, timeout_us, .. } => {
                trace.word(11);
                trace.word(*timeout_us);
                let request = v1::Request { body: Some(request.clone()), ..Default::default() };
                trace.bytes(&request.encode_to_vec());
            }
            Occurrence::Return { result, .. } => {
                trace.word(12);
                match result {
                    Ok(body) => {
                        let response = v1::Response { id: 0, body: Some(body.clone()) };
                        trace.bytes(&response.encode_to_vec());
                    }
                    Err(CallError::NotSent(reason) | CallError::Lost(reason)) => {
                        trace.bytes(reason.as_bytes());
                    }
                }
            }
            Occurrence::Stream(outbound) => {
                trace.word(16);
                trace.word(outbound.transfer.stamp);
            }
            Occurrence::Snapshot(part) => {
                trace.word(13);
                trace.word(part.transfer.stamp);
            }
            Occurrence::Joined { node_id, .. } => {
                trace.word(15);
                trace.word(*node_id);
            }
            Occurrence::Fault(fault) => trace.bytes(format!("{fault:?}").as_bytes()),
            Occurrence::Compare => trace.word(14),
        }
    }

    /// Describes the occurrence in the trace, for people.
    pub fn describe(&self) -> String {
        match self {
            Occurrence::Spawn(_) => "spawn".into(),
            Occurrence::Poll(task) => format!("poll {task}"),
            Occurrence::Timer(_) => "timer".into(),
            Occurrence::Tick { shard } => format!("tick {shard}"),
            Occurrence::Pass { shard } => format!("pass {shard}"),
            Occurrence::Perform { shard, effects } => {
                format!("perform {} effects of a cut-off pass of store {shard}", effects.len())
            }
            Occurrence::Synced => "synced".into(),
            Occurrence::Apply { shard } => format!("apply {shard}"),
            Occurrence::Applied { shard, effects } => {
                format!("applied {shard}, with {} effects", effects.len())
            }
            Occurrence::HeavyRead(_) => "heavy read".into(),
            Occurrence::Flushed { shard, asked, .. } => format!("flushed {asked:?} of {shard}"),
            Occurrence::Raft { envelope, .. } => crate::check::describe_envelope(envelope),
            Occurrence::Store { range, event } => format!("store event of {range}: {event:?}"),
            Occurrence::Call { request, .. } => format!("call {}", shortened(request)),
            Occurrence::Return { result, .. } => format!("return {}", shortened(result)),
            Occurrence::Stream(outbound) => format!("stream snapshot {}", outbound.transfer.stamp),
            Occurrence::Snapshot(part) => part.describe(),
            Occurrence::Joined { node_id, .. } => format!("joined as node {node_id}"),
            Occurrence::Fault(fault) => format!("FAULT {fault:?}"),
            Occurrence::Compare => "compare".into(),
        }
    }
}

/// Returns the debug text, cut short: values are padded, and the beginning says enough.
pub fn shortened(what: &impl std::fmt::Debug) -> String {
    let mut text = format!("{what:?}");
    if let Some((cut, _)) = text.char_indices().nth(300) {
        text.truncate(cut);
        text.push('…');
    }
    text
}
