//! The server of a RangeDB node: everything that touches threads, sockets, files and clocks, around
//! logic that touches none of them.
//!
//! # Two halves
//!
//! What a node decides stands in [`node`], `control`, [`board`] and [`handle`]: bound to no runtime,
//! clock or socket, so that the simulator runs the very same code. The rest is the shell that
//! drives it in production, and [`server::run`] puts the two together.
//!
//! # Ways through
//!
//! A request comes in by `service`, goes to [`node::Node::handle`], through a `mailbox` to the store
//! that `driver` steps, and comes back as an effect that answers it. On the way `log_writer` makes
//! logs durable for all stores at once, `flusher` the state, and `transport` carries raft messages
//! to the other nodes; `snapshots` moves whole ranges. `bootstrap` decides which cluster a new
//! directory belongs to, and `identity` remembers.
//!
//! # Threads
//!
//! One for each store, one that writes logs, one that flushes, and tokio's for everything that
//! waits. A panic or an engine's error on one of the first three ends the process (`end`).

pub mod board;
pub mod bootstrap;
mod clock;
pub mod config;
pub mod control;
mod disk_watch;
mod driver;
mod end;
mod engines;
mod flusher;
pub mod founding;
mod grpc_limits;
pub mod handle;
pub mod identity;
mod listen;
mod local_net;
mod log_writer;
pub mod logging;
mod mailbox;
mod metrics;
pub mod node;
mod open_files;
mod running;
pub mod server;
mod service;
pub mod signals;
mod snapshots;
mod status;
mod transport;
