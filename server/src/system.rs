//! System records: the cluster's own state under `_/`, and the roles that own it.
//!
//! - `records.rs` lists every kind of record: prefix, type and the range that holds it.
//! - `store.rs` reads and commits typed records in one system range, in the name of the role that
//!   runs at its leader.
//! - `role.rs` is the life of such a role: it takes over, serves and ends with the leadership.
//!
//! Records are values of ordinary keys, written by ordinary one-range commits (design D10). To add
//! a role: implement [`Role`], list its kinds in `records.rs`, and give it a [`RoleSlot`] in
//! `node.rs`.

pub mod records;
mod role;
mod store;

pub use role::{Role, RoleSlot};
pub use store::{Changes, CommitError, Owner, Stored, SystemStore, View, no_longer};
