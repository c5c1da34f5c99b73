//! Replication: the ranges of a node, each with its own raft group, as one deterministic machine.
//!
//! # A store is `step` and `flush`
//!
//! [`Store::step`] takes an [`Event`], [`Store::flush`] returns [`Effect`]s. There is no clock,
//! thread, file, socket, entropy or hash order in here: production drives stores with threads, the
//! simulator drives many in one thread from one seed, and both get the same answers.
//!
//! # Life of a write
//!
//! [`Event::Propose`] → `peer/propose.rs` packs what waits into one entry → `peer/ready.rs` sends it
//! to the followers and hands it to the log writer ([`Effect::Append`]) at the same time →
//! [`Event::Persisted`] here and acknowledgements from there make a quorum → `peer/apply.rs` hands the
//! entry to the [`Applier`] ([`Effect::Apply`]), which runs the command through the range's
//! [`rangedb_storage::StateMachine`], writes the state and answers ([`ApplyEffect::Reply`]) → the store
//! hears how far the state is ([`Event::Applied`]). One round of the log, one fsync on each node,
//! shared by all ranges.
//!
//! # Life of a read
//!
//! [`Event::Read`] → `peer/read.rs`: under a valid lease at once, else after a ReadIndex round →
//! [`Effect::ReadReady`] with a reader of the state. The reader is evaluated outside.
//!
//! # Invariants
//!
//! - A reply to a command means: durable on a quorum, and applied here.
//! - A vote or acknowledgement leaves only after what it promises is durable.
//! - State and applied index change in one batch; the log is dropped only behind a finished flush.
//! - A lease is measured from the moment of sending, and a replica that restarts does not vote for
//!   an election timeout, because it cannot know whether it just heard a leader.
//! - A destroyed replica never comes back: its ids are behind a tombstone.
//!
//! # Where things go
//!
//! A struct and its accessors stand in the file with its name; each behaviour of a replica is an
//! `impl Peer` in a file of its own below `peer/`, each behaviour of the store below `store/`.
//!
//! # Left out on purpose
//!
//! Splitting and merging of ranges; witnesses; hibernation of idle ranges; applying an entry before
//! it is durable here.

mod apply;
mod bootstrap;
mod config;
mod entry_cache;
mod eraft;
mod error;
mod event;
mod lease;
mod membership;
mod outgoing;
mod pass;
mod peer;
mod position;
mod raft_log;
mod room;
mod status;
mod store;
mod view;

pub use apply::{
    AppliedMembership, Applier, ApplyEffect, ApplyEntry, ApplyTask, Quarantine, QuarantineCause,
    ReplicaRef, SnapshotInstall,
};
pub use bootstrap::bootstrap;
pub use config::Config;
pub use eraft::decode_message;
pub use error::Error;
pub use event::{Effect, Event, Monotonic, RangeRef, ReadAt, RequestId};
pub use room::Room;
pub use status::{Counters, RangeStatus};
pub use store::{MachineFactory, Options, Shard, Store};

/// The newest rules of evaluating commands that this version knows, written into every entry. A
/// replica that meets a higher level stops instead of guessing.
pub const FEATURE_LEVEL: u32 = 1;
