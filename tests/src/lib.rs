//! What the tests of the whole stand on: the simulator of a cluster.
//!
//! The tests themselves stand under `tests/tests/`; those of one crate stand in that crate.

pub mod sim;
