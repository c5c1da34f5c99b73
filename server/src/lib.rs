//! The server of a RangeDB node: everything that touches threads, sockets, files and clocks, around
//! logic that touches none of them.
//!
//! # Two halves
//!
//! What a node decides stands in [`node`], `control`, [`board`] and [`handle`]: bound to no runtime,
//! clock or socket, so that the simulator runs the very same code. The rest is the shell that
//! drives it in production, and `server::run` puts the two together. Without the feature `shell`
//! only the first half is compiled, and no engine on disk: that is how the simulator takes it.
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
pub mod control;
pub mod founding;
pub mod handle;
pub mod node;

#[cfg(feature = "shell")]
pub mod bootstrap;
#[cfg(feature = "shell")]
mod clock;
#[cfg(feature = "shell")]
mod compaction;
#[cfg(feature = "shell")]
pub mod config;
#[cfg(feature = "shell")]
mod disk_watch;
#[cfg(feature = "shell")]
mod driver;
#[cfg(feature = "shell")]
mod end;
#[cfg(feature = "shell")]
mod engines;
#[cfg(feature = "shell")]
mod flusher;
#[cfg(feature = "shell")]
mod grpc_limits;
#[cfg(feature = "shell")]
pub mod identity;
#[cfg(feature = "shell")]
mod listen;
#[cfg(feature = "shell")]
mod local_net;
#[cfg(feature = "shell")]
mod log_writer;
#[cfg(feature = "shell")]
pub mod logging;
#[cfg(feature = "shell")]
mod mailbox;
#[cfg(feature = "shell")]
mod metrics;
#[cfg(feature = "shell")]
mod open_files;
#[cfg(feature = "shell")]
mod running;
#[cfg(feature = "shell")]
pub mod server;
#[cfg(feature = "shell")]
mod service;
#[cfg(feature = "shell")]
pub mod signals;
#[cfg(feature = "shell")]
mod snapshots;
#[cfg(feature = "shell")]
mod status;
#[cfg(feature = "shell")]
mod transport;
