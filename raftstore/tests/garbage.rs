//! Fuzz tests with messages that no sound replica sends: damaged, forged, or from a faulty replica.
//! A store that gets them must not panic, and must keep what it has promised: its term, its vote,
//! its commit index and the entries that it has applied.
//!
//! Replicas need not agree if somebody forges messages that a sound replica could have sent. So
//! each node is checked only against its own promises. A message that a store can recognise as
//! wrong must change nothing at all.
//!
//! `PROPTEST_CASES` sets the number of random runs.

#[path = "garbage/forge.rs"]
mod forge;
#[path = "garbage/world.rs"]
mod world;

use proptest::prelude::*;
use prost::Message as _;
use raft_proto::eraftpb::{Entry, EntryType, Message, MessageType};
use rangedb_proto::v1::{LogEntry, RaftEnvelope, Replica, raft_envelope::Body};

use forge::{Edit, forge, message_of, with_message};
use world::{RANGE, World};

/// Most steps of a run.
const STEPS_MAX: usize = 120;

#[derive(Clone, Debug)]
enum Step {
    Tick {
        node: u64,
        times: u8,
    },
    Deliver(u8),
    Propose {
        node: u64,
    },
    /// Persists waiting log writes, and flushes the state.
    Persist {
        node: u64,
    },
    Crash {
        node: u64,
    },
    /// Delivers a changed copy of an earlier message.
    Forge {
        place: usize,
        edits: Vec<Edit>,
    },
    /// Delivers a snapshot that nobody asked for.
    ForgeSnapshot {
        place: usize,
        edits: Vec<Edit>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let node = 1..=world::NODES;
    let edits = || prop::collection::vec(forge::edit(), 1..4);
    prop_oneof![
        3 => (node.clone(), 1..30_u8).prop_map(|(node, times)| Step::Tick { node, times }),
        4 => any::<u8>().prop_map(Step::Deliver),
        2 => node.clone().prop_map(|node| Step::Propose { node }),
        2 => node.clone().prop_map(|node| Step::Persist { node }),
        1 => node.prop_map(|node| Step::Crash { node }),
        6 => (any::<usize>(), edits()).prop_map(|(place, edits)| Step::Forge { place, edits }),
        1 => (any::<usize>(), edits())
            .prop_map(|(place, edits)| Step::ForgeSnapshot { place, edits }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn forged_messages_neither_panic_nor_break_a_promise(
        steps in prop::collection::vec(step(), 1..STEPS_MAX)
    ) {
        let mut world = World::founded();
        for step in steps {
            match step {
                Step::Tick { node, times } => (0..times).for_each(|_| world.tick(node)),
                Step::Deliver(count) => world.deliver(count.into()),
                Step::Propose { node } => world.propose(node),
                Step::Persist { node } => world.persist(node),
                Step::Crash { node } => world.crash(node),
                Step::Forge { place, edits } => {
                    let envelope = forge(world.seen(place), &edits);
                    world.receive(envelope);
                }
                Step::ForgeSnapshot { place, edits } => {
                    let envelope = forge(world.snapshot_envelope(place), &edits);
                    world.receive_snapshot(envelope);
                }
            }
        }
    }
}

/// Message from the leader, replica 1, to replica 2, in the leader's term.
fn from_leader(world: &World, kind: MessageType) -> Message {
    let mut message = Message { from: 1, to: 2, term: world.status(1).term, ..Default::default() };
    message.set_msg_type(kind);
    message
}

fn to_leader(world: &World, kind: MessageType) -> Message {
    Message { from: 2, to: 1, ..from_leader(world, kind) }
}

/// Append behind the last entry, with entries of these indexes and terms.
fn append(world: &World, entries: &[(u64, u64)]) -> Message {
    let (term, last) = (world.status(2).term, world.status(2).last_index);
    let mut message = from_leader(world, MessageType::MsgAppend);
    (message.index, message.log_term, message.commit) = (last, term, last);
    let commands = LogEntry { feature_level: 1, ..Default::default() }.encode_to_vec();
    let entry =
        |&(index, term)| Entry { index, term, data: commands.clone().into(), ..Default::default() };
    message.entries = entries.iter().map(entry).collect::<Vec<_>>().into();
    message
}

/// Messages from a member, in the current term, each with one impossible detail.
fn impossible(world: &World) -> Vec<(&'static str, Message)> {
    let (term, last) = (world.status(2).term, world.status(2).last_index);
    let mut all = Vec::new();
    let mut add = |what, mut message: Message, change: &dyn Fn(&mut Message)| {
        change(&mut message);
        all.push((what, message));
    };
    let heartbeat = || from_leader(world, MessageType::MsgHeartbeat);
    add("a heartbeat that commits everything", heartbeat(), &|m| m.commit = u64::MAX);
    add("a heartbeat of the last term", heartbeat(), &|m| m.term = u64::MAX);
    add("a heartbeat to itself", heartbeat(), &|m| m.from = 2);
    add("an append without a term", append(world, &[]), &|m| m.term = 0);
    add("an append of the last term", append(world, &[]), &|m| m.term = u64::MAX);
    add("an append behind the last index", append(world, &[]), &|m| m.index = u64::MAX);
    add("an append behind a place without a term", append(world, &[(last + 9, term)]), &|m| {
        (m.index, m.log_term) = (last + 8, 0);
    });
    add("an append behind a place of a later term", append(world, &[]), &|m| m.log_term = term + 1);
    add("an entry of another place", append(world, &[(last + 2, term)]), &|_| {});
    add("an entry in place of a committed one", append(world, &[(last, term)]), &|_| {});
    add("two entries of one place", append(world, &[(last + 1, term); 2]), &|_| {});
    add("an entry of a later term", append(world, &[(last + 1, term + 1)]), &|_| {});
    add("an entry without a term", append(world, &[(last + 1, 0)]), &|_| {});
    add("a membership change of nothing", append(world, &[(last + 1, term)]), &|m| {
        m.entries[0].set_entry_type(EntryType::EntryConfChangeV2);
        m.entries[0].data = b"x".as_slice().into();
    });
    add("an entry that holds no commands", append(world, &[(last + 1, term)]), &|m| {
        m.entries[0].data = b"x".as_slice().into();
    });
    add("a membership change of old", append(world, &[(last + 1, term)]), &|m| {
        m.entries[0].set_entry_type(EntryType::EntryConfChange);
    });
    let reply = || to_leader(world, MessageType::MsgAppendResponse);
    add("an acknowledgement of what was never sent", reply(), &|m| m.index = last + 1);
    add("an acknowledgement of everything", reply(), &|m| m.index = u64::MAX);
    add("a reply that knows more committed than there is", reply(), &|m| m.commit = last + 1);
    add("a refusal that hints beyond the log", reply(), &|m| {
        (m.reject, m.index, m.reject_hint) = (true, last, u64::MAX);
    });
    add("a request for a snapshot", reply(), &|m| {
        (m.reject, m.request_snapshot) = (true, u64::MAX);
    });
    add("a vote asked for in the last term", to_leader(world, MessageType::MsgRequestVote), &|m| {
        m.term = u64::MAX;
        m.context = b"CampaignTransfer".as_slice().into();
    });
    add("a snapshot without its records", from_leader(world, MessageType::MsgSnapshot), &|m| {
        m.mut_snapshot().mut_metadata().index = last + 100;
        m.mut_snapshot().mut_metadata().term = term;
        m.mut_snapshot().mut_metadata().mut_conf_state().voters = vec![1, 2, 3];
    });
    for kind in [
        MessageType::MsgHup,
        MessageType::MsgBeat,
        MessageType::MsgPropose,
        MessageType::MsgUnreachable,
        MessageType::MsgSnapStatus,
        MessageType::MsgCheckQuorum,
        MessageType::MsgTransferLeader,
        MessageType::MsgReadIndex,
        MessageType::MsgReadIndexResp,
    ] {
        add("a message that replicas do not send", to_leader(world, kind), &|m| {
            m.entries = vec![Entry { data: b"x".as_slice().into(), ..Default::default() }].into();
        });
    }
    all
}

#[test]
fn messages_that_cannot_be_change_nothing() {
    let mut world = World::led();
    for (what, message) in impossible(&world) {
        let before = world.show();
        world.receive(with_message(&world.envelope(message.from, message.to), &message));
        world.run();
        assert_eq!(world.show(), before, "{what}");
    }
    let applied = world.status(1).applied_index;
    world.propose(1);
    world.run();
    assert_eq!(world.status(1).applied_index, applied + 1);
}

#[test]
fn envelopes_that_lead_nowhere_make_no_replica() {
    let mut world = World::led();
    let before = world.show();
    let sound =
        with_message(&world.envelope(1, 2), &from_leader(&world, MessageType::MsgHeartbeat));
    let change = |change: &dyn Fn(&mut RaftEnvelope)| {
        let mut envelope = sound.clone();
        change(&mut envelope);
        envelope
    };
    let to = |replica_id, node_id| Some(Replica { replica_id, node_id, role: 0 });
    let renamed = |id| {
        let message = Message { to: id, ..message_of(&sound).unwrap() };
        let envelope = RaftEnvelope { range_id: RANGE + 1, to: to(id, 2), ..sound.clone() };
        with_message(&envelope, &message)
    };
    for envelope in [
        change(&|e| e.range_id = 0),
        change(&|e| e.to = None),
        change(&|e| e.from = None),
        change(&|e| e.body = None),
        change(&|e| e.to = to(2, 9)),
        change(&|e| e.to = to(3, 2)),
        change(&|e| e.body = Some(Body::Message(b"\xff\xff\xff".as_slice().into()))),
        renamed(0),
        renamed(u64::MAX),
    ] {
        world.deliver_to(2, envelope);
        world.run();
        assert_eq!(world.show(), before);
    }
}
