//! The server of a RangeDB node: everything that touches threads, sockets, files and clocks, around
//! logic that touches none of them.
//!
//! The logic of a node is in [`node`], [`control`], [`system`], [`surroundings`], [`status_board`],
//! [`founding`], [`handle`], [`memory`] and [`compaction`]. It is bound to no runtime, clock or
//! socket, so the simulator runs the very same code. [`shell`] is the rest, which drives that logic
//! in production. The simulator builds this crate without the feature `shell`: only the logic is
//! compiled, and no engine on disk.

pub mod compaction;
pub mod control;
pub mod founding;
pub mod handle;
pub mod memory;
pub mod node;
mod planted;
#[cfg(feature = "shell")]
pub mod shell;
pub mod status_board;
pub mod surroundings;
pub mod system;

#[cfg(feature = "shell")]
pub use shell::{bootstrap, config, identity, logging, server, signals};
