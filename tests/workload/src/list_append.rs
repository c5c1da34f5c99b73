//! Transactions that read lists and append to them, and the search for what isolation forbids.
//!
//! The idea is Kingsbury and Alvaro's ("Elle: Inferring Isolation Anomalies from Experimental
//! Observations", 2020). Every append puts a number into its list that nobody else ever uses, so a
//! list tells by itself which transactions made it and in which order. From that follow the
//! dependencies between transactions, and a cycle of them is the proof of an anomaly. Nothing about
//! the inside of the cluster is used, no timestamp either.
//!
//! * `workload.rs` makes the transactions and the history.
//! * `observe.rs` finds what is wrong without looking at more than one key: values from nowhere,
//!   aborted and intermediate reads, orders that contradict each other, appends that got lost.
//! * `graph.rs` builds the dependencies, `cycles.rs` finds cycles and names their class.
//! * `check.rs` puts them together and writes what a person reads.

mod check;
mod cycles;
mod explain;
mod graph;
mod observe;
mod workload;

#[cfg(test)]
mod random_histories;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::history::Outcome;

pub use check::{Anomaly, Class, Summary, check};
pub use cycles::CycleClass;
pub use workload::{ListAppend, Mode, Settings};

/// Unique among all appends of a history.
pub type Element = u64;

pub type Key = Arc<str>;

/// One thing that a transaction did, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    Read { key: Key, list: Vec<Element> },
    Append { key: Key, element: Element },
}

/// What a transaction is promised.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// All happens at one moment between call and answer.
    Serializable,
    /// All reads happen at one moment after the call, all writes at a later one before the answer,
    /// and nobody else writes the same keys in between.
    Snapshot,
}

/// A transaction as its client saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transaction {
    pub client: usize,
    pub level: Level,
    /// For whoever reads a report: nothing is concluded from it.
    pub mode: Mode,
    /// Stamp of before it began.
    pub began: u64,
    /// Stamp of the answer; without one the outcome is unknown.
    pub ended: Option<u64>,
    pub outcome: Outcome,
    /// Reads as they were answered, appends as they were asked for. Those of the last attempt where
    /// the SDK made several.
    pub ops: Vec<Op>,
}
