//! The engines of a node, opened from its data directory.

use std::path::Path;
use std::sync::Arc;

use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::Formation;
use rangedb_storage::{LogOptions, RaftEngineLog, Result, RocksState, StateOptions};

use crate::founding::founding_ranges;
use crate::shell::config::StorageConfig;

/// Memtables of all families together, in those of one: most writes go to two of the five.
const MEMTABLES: u64 = 4;

#[derive(Clone)]
pub(crate) struct Engines {
    pub log: Arc<RaftEngineLog>,
    pub state: Arc<RocksState>,
}

impl Engines {
    /// Blocks: checks what it finds.
    pub fn open(data_dir: &Path, config: &StorageConfig) -> Result<Engines> {
        let length = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let options = StateOptions {
            block_cache_bytes: length(config.block_cache_bytes),
            memtable_bytes: length(config.write_buffer_bytes),
            memtables_bytes: length(config.write_buffer_bytes.saturating_mul(MEMTABLES)),
            ..StateOptions::default()
        };
        let state = RocksState::open(data_dir, options)?;
        let log = RaftEngineLog::open(data_dir, LogOptions::default())?;
        Ok(Engines { log: Arc::new(log), state: Arc::new(state) })
    }

    /// Makes the founding replicas of the node, durably. May be called again until stores are opened.
    pub fn found(&self, formation: &Formation, node_id: u64) -> Result<()> {
        let mut ranges = founding_ranges(formation);
        ranges.retain(|range| range.replica_on(node_id).is_some());
        rangedb_raftstore::bootstrap(&*self.log, &*self.state, &ranges)
    }
}
