//! The server of a RangeDB node: everything that touches threads, sockets, files and clocks, around
//! logic that touches none of them.
//!
//! What a node decides stands in [`node`], [`control`], [`board`], [`handle`], [`memory`] and
//! [`compaction`]:
//! bound to no runtime, clock or socket, so that the simulator runs the very same code. [`shell`] is
//! the rest, which drives it in production. Without the feature `shell` only the first half is
//! compiled, and no engine on disk: that is how the simulator takes it.

pub mod board;
pub mod compaction;
pub mod control;
pub mod founding;
pub mod handle;
pub mod memory;
pub mod node;
#[cfg(feature = "shell")]
pub mod shell;

#[cfg(feature = "shell")]
pub use shell::{bootstrap, config, identity, logging, server, signals};
