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
//! 1. [`Event::Propose`]: `peer/propose.rs` packs the waiting commands into one entry.
//! 2. `peer/ready.rs` sends the entry to the followers and, at the same time, hands it to the log
//!    writer ([`Io::Append`]).
//! 3. [`Event::Persisted`] from the log writer and acknowledgements from the followers make a
//!    quorum.
//! 4. `peer/apply.rs` hands the committed entry to the [`Applier`] ([`Io::Apply`]).
//! 5. The applier runs the command through the range's [`rangedb_storage::StateMachine`], writes
//!    the state and answers ([`ApplyEffect::Reply`]).
//! 6. The applier reports to the store how far the state is ([`Event::Applied`]).
//!
//! That is one round of the log and one fsync on each node, shared by all ranges.
//!
//! # Life of a read
//!
//! 1. [`Event::Read`]: `peer/read.rs` serves it under a valid lease at once, otherwise after a
//!    ReadIndex round.
//! 2. [`Answer::Read`] carries a reader of the state. The caller evaluates the read outside
//!    the store.
//!
//! # Invariants
//!
//! - A successful reply to a command means: durable on a quorum, and applied here.
//! - A vote or acknowledgement leaves only after what it promises is durable.
//! - State and applied index change in one batch. The log is dropped only behind a finished flush.
//! - A lease is measured from the moment of sending. A replica that restarts does not vote for an
//!   election timeout, because it cannot know whether it just heard a leader.
//! - A destroyed replica never comes back: a tombstone refuses its id.
//!
//! # Files
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
mod effect;
mod entry_cache;
mod eraft;
mod error;
mod event;
mod lease;
mod log_size;
mod membership;
mod outgoing;
mod pass;
mod peer;
mod peer_storage;
mod planted;
mod position;
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
pub use effect::{Answer, Effect, Io, ReadGrant, RoleChange};
pub use eraft::decode_message;
pub use error::Error;
pub use event::{Event, Monotonic, RangeRef, ReadMode, RequestId};
pub use room::Room;
pub use status::{Counters, RangeStatus};
pub use store::{MachineFactory, Options, Shard, Store};

/// Newest version of the command evaluation rules in this build, written into every entry. A
/// replica enters quarantine at an entry with a higher level instead of guessing.
pub const FEATURE_LEVEL: u32 = 1;
