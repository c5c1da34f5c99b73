//! Compaction filter that drops records which no reader sees. The rules are in `collector.rs`.
//!
//! A filter sees the newest version of each stored key in a compaction. If the filter drops it,
//! RocksDB leaves a tombstone of its own, so that no older version behind it comes back. The filter
//! ignores held snapshots.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::CompactionDecision;
use rocksdb::compaction_filter::CompactionFilter;
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};

use crate::collect_bounds::CollectBounds;
use crate::collector::Collector;
use crate::{ColumnFamily, Span, is_collectable};

/// State that the filters of all compactions share.
#[derive(Default)]
pub(super) struct Filters {
    pub collector: Collector,
    /// Number of superseded versions dropped.
    pub history_records: AtomicU64,
    pub deleted_markers: AtomicU64,
}

/// Creates a filter for each compaction of one family. RocksDB calls it from several threads at
/// once, so it has no mutable state.
pub(super) struct FilterFactory {
    pub cf: ColumnFamily,
    pub filters: Arc<Filters>,
}

impl CompactionFilterFactory for FilterFactory {
    type Filter = Filter;

    fn create(&mut self, _context: CompactionFilterContext) -> Filter {
        let bounds = self.filters.collector.in_force();
        let piece = Piece { span: None, bound: 0 };
        Filter { cf: self.cf, filters: Arc::clone(&self.filters), bounds, piece }
    }

    fn name(&self) -> &CStr {
        c"rangedb.collect"
    }
}

/// Filter of one compaction. One thread uses it and passes keys in ascending order.
pub(super) struct Filter {
    cf: ColumnFamily,
    filters: Arc<Filters>,
    bounds: Arc<CollectBounds>,
    piece: Piece,
}

/// Piece of the bounds that holds the last key: a span of keys with the same bound. With it most
/// keys cost one comparison instead of a search.
struct Piece {
    /// `None` before the first key.
    span: Option<Span>,
    bound: u64,
}

impl Filter {
    fn bound_at(&mut self, key: &[u8]) -> u64 {
        if !self.piece.span.as_ref().is_some_and(|span| span.contains(key)) {
            let (span, bound) = self.bounds.piece_around(key);
            self.piece = Piece { span: Some(span), bound };
        }
        self.piece.bound
    }
}

impl CompactionFilter for Filter {
    fn filter(&mut self, _level: u32, key: &[u8], value: &[u8]) -> CompactionDecision {
        let bound = self.bound_at(key);
        if !is_collectable(self.cf, value, bound) {
            return CompactionDecision::Keep;
        }
        let counter = match self.cf {
            ColumnFamily::History => &self.filters.history_records,
            _ => &self.filters.deleted_markers,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        CompactionDecision::Remove
    }

    fn name(&self) -> &CStr {
        c"rangedb.collect"
    }
}
