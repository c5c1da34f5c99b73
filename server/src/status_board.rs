//! Status board: the last status of each store of a node, for readers that do not ask the store.

use parking_lot::Mutex;
use rangedb_proto::RangeId;
use rangedb_proto::v1::RangeReport;
use rangedb_raftstore::{Counters, RangeStatus, Shard, Store};

/// Status of one store, as the store itself reports it.
#[derive(Clone, Default)]
pub struct StoreView {
    pub ranges: Vec<RangeStatus>,
    /// Reports on the ranges that the store leads.
    pub reports: Vec<RangeReport>,
    pub counters: Counters,
}

/// The newest status of each store. The thread that drives a store publishes it at least once a
/// tick.
pub struct StatusBoard {
    views: Vec<Mutex<StoreView>>,
}

impl StatusBoard {
    pub fn new(stores: usize) -> Self {
        StatusBoard { views: (0..stores).map(|_| Mutex::default()).collect() }
    }

    pub fn publish(&self, shard: usize, store: &Store) {
        let view = StoreView {
            ranges: store.status(),
            reports: store.reports(),
            counters: store.counters(),
        };
        *self.views[shard].lock() = view;
    }

    pub fn views(&self) -> Vec<StoreView> {
        self.views.iter().map(|view| view.lock().clone()).collect()
    }

    pub fn ranges(&self) -> Vec<RangeStatus> {
        self.views().into_iter().flat_map(|view| view.ranges).collect()
    }

    pub fn reports(&self) -> Vec<RangeReport> {
        self.views().into_iter().flat_map(|view| view.reports).collect()
    }

    pub fn range(&self, range: RangeId) -> Option<RangeStatus> {
        let shard = Shard::of(range, self.views.len()).place();
        let view = self.views[shard].lock();
        view.ranges.iter().find(|status| status.descriptor.range_id == range.0).cloned()
    }
}
