//! Transactions that read lists and append to them, and the search for anomalies of isolation.
//!
//! The method is Kingsbury and Alvaro's ("Elle: Inferring Isolation Anomalies from Experimental
//! Observations", 2020). Every append puts a number into its list that no other append uses. So a
//! list itself shows which transactions made it and in which order. The dependencies between
//! transactions follow from that, and a cycle of them proves an anomaly. The checker uses nothing
//! from inside the cluster, not even a timestamp.
//!
//! * `workload.rs` makes the transactions and the history.
//! * `observe.rs` finds anomalies of single keys: values from nowhere, aborted and intermediate
//!   reads, orders that contradict each other, lost appends.
//! * `graph.rs` builds the dependencies, `cycles.rs` finds cycles and names their class.
//! * `check.rs` puts them together and writes the report.

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

/// Number that an append puts into a list, unique among all appends of a history.
pub type Element = u64;

pub type Key = Arc<str>;

/// One operation of a transaction, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    Read { key: Key, list: Vec<Element> },
    Append { key: Key, element: Element },
}

/// Promise that a transaction gets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// All operations happen at one moment between call and answer.
    Serializable,
    /// All reads happen at one moment after the call. All writes happen at a later moment before
    /// the answer. No other transaction writes the same keys in between.
    Snapshot,
}

/// A transaction as its client saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transaction {
    pub client: usize,
    pub level: Level,
    /// For the readers of a report. The checker does not use it.
    pub mode: Mode,
    /// Stamp from before the transaction began.
    pub began: u64,
    /// Stamp of the answer; without one the outcome is unknown.
    pub ended: Option<u64>,
    pub outcome: Outcome,
    /// Reads with their answers, appends as requested. If the SDK made several attempts, those of
    /// the last.
    pub ops: Vec<Op>,
}
