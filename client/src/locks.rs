//! Locks of other transactions, and turns at keys for which writers of this client contend.
//!
//! `resolve.rs` finds the outcome of a lock's transaction and finishes the lock. `wait.rs` waits
//! for the lock of a live transaction. `turns.rs` lets writers of one client go one after the
//! other. `list.rs` lists locks for an operator.

mod list;
pub(crate) mod resolve;
pub(crate) mod turns;
pub(crate) mod wait;
