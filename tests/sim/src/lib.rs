//! A whole cluster in one thread, from one seed.
//!
//! # What is simulated and what is not
//!
//! The code under test is the code of production: stores, machines, the node's logic with its
//! control plane, and clients, all unchanged behind their seams. Simulated are time, the network, the
//! disks (`MemLog` and `MemState`, which forget in a crash what was not durable), clocks, threads
//! and processes. Everything random is drawn from one generator and everything that happens stands
//! in one queue, so a seed always gives the same run, to the byte (`trace.rs`).
//!
//! # A run
//!
//! 1. A plan is drawn: the cluster's shape, its settings, the load and which faults there are
//!    (`plan.rs`).
//! 2. Safety: clients work while faults strike (`faults.rs`). Nothing acknowledged may be lost,
//!    nothing wrong may be answered; it may all stand still.
//! 3. Liveness: a majority, then everything is mended. Within a bound the cluster must serve again,
//!    be fully replicated and agree (`liveness.rs`).
//! 4. The histories are judged (`check.rs` and one file for each property).
//!
//! # What is left out
//!
//! The shell around the node's logic: threads, sockets, files, forming a cluster, and the bounds of
//! production's queues. Tests of real processes look at those.

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
