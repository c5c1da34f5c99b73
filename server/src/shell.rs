//! Production shell of a node: its threads, sockets, files and clocks.
//!
//! # Path of a request
//!
//! A request arrives at `service` and goes to [`crate::node::Node::handle`]. A `mailbox` passes it
//! to the store, which `driver` steps. The store, or the applier beside it, returns an effect that
//! answers the request. Meanwhile `log_writer` makes the logs of all stores durable together,
//! `flusher` does so for the state, and `transport` carries raft messages to the other nodes.
//! `snapshots` moves whole ranges. [`bootstrap`] decides which cluster a new directory belongs to,
//! and [`identity`] keeps the decision. [`server`] puts all of it together.
//!
//! # Threads
//!
//! Each store has a thread, and so has its applier. One thread writes logs, one flushes the state,
//! one reclaims disk space, and tokio's threads do everything that waits. A panic on a thread of a
//! store, an applier, the log writer, the flusher or the reclaimer ends the process (`end`). So
//! does an engine's error, except one of the reclaimer. Raft messages have a runtime of their own
//! (`peer_runtime`), so that no client's work delays a heartbeat. Reads whose cost grows with the
//! data have threads of their own (`heavy_reads`).

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
