//! History of requests and answers of clients, with the order in which they came about.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
pub use rangedb_workload::register::{Input, Operation, Output, Value};

/// A version of a key as a client saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeenVersion {
    pub key: String,
    pub value: u64,
    pub mod_ts: u64,
    pub create_ts: u64,
    pub version: u64,
}

/// A read at a timestamp.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotRead {
    pub key: String,
    pub at: u64,
    /// Value and commit timestamp; `None` if the key was absent.
    pub found: Option<(u64, u64)>,
}

/// A write that was acknowledged with its commit timestamp.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acknowledged {
    pub key: String,
    pub value: Value,
    pub commit_ts: u64,
}

/// Reads of both keys of a pair at one timestamp.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PairRead {
    pub at: u64,
    pub values: [Value; 2],
}

/// Increments of one counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Increments {
    pub acknowledged: u64,
    pub unknown: u64,
}

#[derive(Default)]
pub struct Records {
    pub operations: Vec<(String, Operation)>,
    pub seen: Vec<SeenVersion>,
    pub snapshot_reads: Vec<SnapshotRead>,
    pub acknowledged: Vec<Acknowledged>,
    /// Highest commit timestamp that was acknowledged.
    pub newest_ts: u64,
    /// Keys of deletes with an unknown outcome, each with `newest_ts` at the request of its first
    /// one. Above that timestamp the key may be absent.
    pub unknown_deletes: std::collections::BTreeMap<String, u64>,
    pub pair_reads: Vec<PairRead>,
    pub counters: std::collections::BTreeMap<String, Increments>,
    /// Number of operations that certainly did not happen, without those of `too_old`.
    pub refused: u64,
    /// Number of operations that were refused because their timestamp is below the floor.
    pub too_old: u64,
}

/// History that all clients share.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Records>>);

impl History {
    pub fn records(&self) -> MutexGuard<'_, Records> {
        self.0.lock()
    }
}
