//! The contract of the engines, held by the in-memory twins and, with feature `disk`, by the engines
//! on disk: the same scripts and the same random histories run on both.

mod batch_script;
#[cfg(feature = "disk")]
mod collect;
#[cfg(feature = "disk")]
mod damage;
mod golden;
mod log_history;
mod log_node;
mod log_script;
mod snapshot_stream;
mod state_history;
mod state_node;
mod state_script;
