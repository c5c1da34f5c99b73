//! Deterministic simulation of a whole cluster in one thread, from one seed.
//!
//! # The simulated and the real
//!
//! The code under test is production code: stores, state machines, the node's logic with its
//! control plane, and clients, unchanged behind their interfaces. Time, the network, clocks,
//! threads, processes and disks are simulated. The disks are `MemLog` and `MemState`, whose crash
//! loses what was not durable. One generator yields all random numbers and one queue all
//! occurrences, so a seed always gives the same run, to the byte (`trace.rs`).
//!
//! # A run
//!
//! 1. The plan is drawn: the cluster's shape, its settings, the load, and the kinds of faults
//!    (`plan.rs`).
//! 2. Safety phase: clients work while faults strike (`faults.rs`). No acknowledged write may be
//!    lost and no answer may be wrong. The cluster may stand still.
//! 3. Liveness phase: in some seeds all but one node is mended first, then everything is. Within a
//!    bound the cluster must serve again, be fully replicated and agree (`liveness.rs`).
//! 4. The histories are checked (`check.rs` and one file for each property).
//!
//! # Left out
//!
//! The shell around the node's logic: threads, sockets, files, the formation of a cluster, and the
//! bounds of production's queues. Tests of real processes cover those.

mod ambush;
mod attacker;
pub mod check;
mod clients;
mod clock;
mod disk;
mod disk_faults;
mod election_faults;
mod executor;
mod faults;
mod gateway;
mod heavy_reads;
mod history;
mod joining;
mod liveness;
mod looks;
mod machine;
mod mailbox;
mod net;
mod network;
mod network_faults;
mod occurrence;
mod past_reads;
mod plan;
#[cfg(feature = "planted")]
pub mod planted;
mod process;
mod run;
mod schedule;
mod snapshots;
mod stored_range;
mod story;
mod tickets;
mod trace;
mod transactions;
mod workload;
mod world;

pub use run::{Failure, Report, simulate};
pub use story::Story;
pub use trace::Lines;
