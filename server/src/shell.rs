//! Production shell of a node: its threads, sockets, files and clocks.
//!
//! # Ways through
//!
//! A request comes in by `service`, goes to [`crate::node::Node::handle`], through a `mailbox` to the
//! store that `driver` steps, and comes back as an effect that answers it. On the way `log_writer`
//! makes logs durable for all stores at once, `flusher` the state, and `transport` carries raft
//! messages to the other nodes; `snapshots` moves whole ranges. [`bootstrap`] decides which cluster a
//! new directory belongs to, and [`identity`] remembers. [`server`] puts all of it together.
//!
//! # Threads
//!
//! One for each store, one that writes logs, one that flushes, and tokio's for everything that
//! waits. A panic or an engine's error on one of the first three ends the process (`end`). Raft
//! messages have a runtime of their own (`peer_runtime`), so that no client's work holds up a
//! heartbeat, and reads whose cost grows with the data have threads of their own (`heavy_reads`).

mod accept;
mod apply_worker;
pub mod bootstrap;
mod clock;
pub mod config;
mod disk_watch;
mod driver;
mod end;
mod engines;
mod flusher;
mod grpc_limits;
mod heavy_reads;
pub mod identity;
mod listen;
mod local_net;
mod log_writer;
pub mod logging;
mod lookup;
mod mailbox;
mod memory;
mod metrics;
mod niceness;
mod open_files;
mod patient_state;
mod peer_runtime;
mod reclaimer;
mod running;
pub mod server;
mod service;
pub mod signals;
mod snapshots;
mod status;
mod transport;
