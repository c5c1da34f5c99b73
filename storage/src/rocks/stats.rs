//! Statistics of the state engine, for people and metrics.

use std::sync::atomic::Ordering;

use rocksdb::properties;

use super::Engine;
use crate::ColumnFamily;

/// Statistics over all families, as of one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StateStats {
    /// Bytes of files with live data.
    pub file_bytes: u64,
    /// Bytes of writes that no flush has covered yet.
    pub memtable_bytes: u64,
    /// Bytes that compaction has still to rewrite; an estimate.
    pub pending_compaction_bytes: u64,
    pub block_cache_bytes: u64,
    pub running_flushes: u64,
    pub running_compactions: u64,
    /// True while RocksDB holds up writes because flushes or compactions lag behind.
    pub writes_stopped: bool,
    /// Superseded versions that compactions have dropped since the state was opened. A record that
    /// a crash brought back counts again.
    pub history_records_collected: u64,
    /// Deleted markers, counted in the same way.
    pub deleted_markers_collected: u64,
}

impl StateStats {
    pub(super) fn read(engine: &Engine) -> Self {
        let sum = |name| sum(engine, name);
        // These are equal for each family, as they describe the database or the shared cache.
        let shared = |name| read(engine, ColumnFamily::Current, name);
        Self {
            file_bytes: sum(properties::LIVE_SST_FILES_SIZE),
            memtable_bytes: memtable_bytes(engine),
            pending_compaction_bytes: sum(properties::ESTIMATE_PENDING_COMPACTION_BYTES),
            block_cache_bytes: shared(properties::BLOCK_CACHE_USAGE),
            running_flushes: shared(properties::NUM_RUNNING_FLUSHES),
            running_compactions: shared(properties::NUM_RUNNING_COMPACTIONS),
            writes_stopped: shared(properties::IS_WRITE_STOPPED) > 0,
            history_records_collected: engine.filters.history_records.load(Ordering::Relaxed),
            deleted_markers_collected: engine.filters.deleted_markers.load(Ordering::Relaxed),
        }
    }
}

pub(super) fn memtable_bytes(engine: &Engine) -> u64 {
    sum(engine, properties::CUR_SIZE_ALL_MEM_TABLES)
}

fn sum(engine: &Engine, name: &properties::PropName) -> u64 {
    ColumnFamily::ALL.into_iter().map(|cf| read(engine, cf, name)).sum()
}

/// Reads a property. One that RocksDB does not have right now counts as zero: these are only
/// statistics.
fn read(engine: &Engine, cf: ColumnFamily, name: &properties::PropName) -> u64 {
    let value = engine.db.property_int_value_cf(engine.family(cf), name);
    value.ok().flatten().unwrap_or(0)
}
