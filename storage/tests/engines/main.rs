//! Contract tests of the engines, for the in-memory twins and, with feature `disk`, for the engines
//! on disk. The same scripts and the same random histories run on both.

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
