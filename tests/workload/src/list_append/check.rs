//! Check of a history.

use std::fmt;

use super::cycles::{self, CycleClass};
use super::observe::observe;
use super::{Transaction, explain, graph};
use crate::history::Outcome;

/// Maximum number of reported anomalies of a class. One bug makes many; the first few show what it
/// is.
const OF_A_CLASS_MAX: usize = 4;

/// Kind of a breach.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// The history itself breaks its rules: a fault of the workload.
    BadHistory,
    /// A list holds an element that nobody appended.
    Garbage,
    /// An append was applied twice.
    Duplicate,
    /// A transaction contradicts itself.
    Internal,
    /// G1a: somebody saw an append of a transaction that did not commit.
    AbortedRead,
    /// G1b: somebody saw an intermediate state of a transaction.
    IntermediateRead,
    /// Of two lists of a key, neither is a prefix of the other: a lost update, or worse.
    IncompatibleOrder,
    /// An acknowledged append is gone.
    LostAppend,
    Cycle {
        class: CycleClass,
        /// True if the cycle needs the order of real time.
        real_time: bool,
    },
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Class::BadHistory => write!(f, "bad history"),
            Class::Garbage => write!(f, "value from nowhere"),
            Class::Duplicate => write!(f, "append applied twice"),
            Class::Internal => write!(f, "internal contradiction"),
            Class::AbortedRead => write!(f, "G1a, aborted read"),
            Class::IntermediateRead => write!(f, "G1b, intermediate read"),
            Class::IncompatibleOrder => write!(f, "incompatible orders"),
            Class::LostAppend => write!(f, "lost append"),
            Class::Cycle { class, real_time: false } => write!(f, "{class}"),
            Class::Cycle { class, real_time: true } => write!(f, "{class}-realtime"),
        }
    }
}

/// A breach of a promise, with a report for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Anomaly {
    pub class: Class,
    pub text: String,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class, self.text)
    }
}

/// Counts of a clean history.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Summary {
    pub committed: usize,
    pub failed: usize,
    /// Transactions with an unknown outcome, whether or not another transaction saw them.
    pub unknown: usize,
    /// Dependencies between transactions, those of real time included.
    pub edges: usize,
}

/// Checks that every transaction got what its level promises, real time included.
///
/// # Errors
///
/// The first anomalies of each class, the worst classes in front.
pub fn check(history: &[Transaction]) -> Result<Summary, Vec<Anomaly>> {
    let (observed, mut anomalies) = observe(history);
    let graph = graph::build(&observed);
    for cycle in cycles::find(&graph) {
        let class = Class::Cycle { class: cycle.class, real_time: cycle.real_time };
        let text = format!("a cycle\n{}", explain::cycle(&observed, &cycle));
        anomalies.push(Anomaly { class, text });
    }
    if !anomalies.is_empty() {
        anomalies.sort_by_key(|anomaly| anomaly.class);
        let classes = anomalies.chunk_by(|one, other| one.class == other.class);
        let first = |class: &[Anomaly]| class[..class.len().min(OF_A_CLASS_MAX)].to_vec();
        return Err(classes.flat_map(first).collect());
    }
    let count = |outcome| history.iter().filter(|txn| txn.outcome == outcome).count();
    Ok(Summary {
        committed: count(Outcome::Ok),
        failed: count(Outcome::Failed),
        unknown: count(Outcome::Unknown),
        edges: graph.edge_count(),
    })
}
