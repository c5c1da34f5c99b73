//! The engines of a node, opened from its data directory.

use std::path::Path;
use std::sync::Arc;

use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::Formation;
use rangedb_storage::{LogOptions, RaftEngineLog, Result, RocksState, StateOptions};

use crate::founding::founding_ranges;
use crate::shell::config::StorageConfig;
use crate::shell::disk_watch::space_of;

/// Bound on the memtables of all column families together, in memtables of one family. Less than
/// one for each of the five families is enough, because most writes go to two of them.
pub(crate) const MEMTABLES: u64 = 4;

/// Parts of the file system, as divisors: for dropped log entries whose space is not yet given
/// back, and for one file of the logs. Without these bounds the logs alone would fill a small disk.
const LOGS_SHARE: u64 = 8;
const LOG_FILE_SHARE: u64 = 64;
const LOGS_BYTES_MIN: u64 = 16 << 20;
const LOG_FILE_BYTES_MIN: u64 = 4 << 20;

/// Part of the files that the process may have open for the state, as a divisor. Connections have a
/// share too (`accept.rs`).
const OPEN_FILES_SHARE: u64 = 2;

#[derive(Clone)]
pub(crate) struct Engines {
    pub log: Arc<RaftEngineLog>,
    pub state: Arc<RocksState>,
}

impl Engines {
    /// Opens the engines in a process that may have `open_files_max` files open. Blocks: it checks
    /// the files that it finds.
    pub fn open(data_dir: &Path, config: &StorageConfig, open_files_max: u64) -> Result<Engines> {
        let length = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let default = StateOptions::default();
        let share = i32::try_from(open_files_max / OPEN_FILES_SHARE).unwrap_or(i32::MAX);
        let options = StateOptions {
            open_files_max: share.min(default.open_files_max),
            block_cache_bytes: length(config.block_cache_bytes),
            memtable_bytes: length(config.write_buffer_bytes),
            memtables_bytes: length(config.write_buffer_bytes.saturating_mul(MEMTABLES)),
            ..default
        };
        let state = RocksState::open(data_dir, options)?;
        let log = RaftEngineLog::open(data_dir, log_options(data_dir))?;
        Ok(Engines { log: Arc::new(log), state: Arc::new(state) })
    }

    /// Makes the founding replicas of the node, durably. Idempotent until the stores are opened.
    pub fn found(&self, formation: &Formation, node_id: u64) -> Result<()> {
        let mut ranges = founding_ranges(formation);
        ranges.retain(|range| range.replica_on(node_id).is_some());
        rangedb_raftstore::bootstrap(&*self.log, &*self.state, &ranges)
    }
}

fn log_options(data_dir: &Path) -> LogOptions {
    match space_of(data_dir) {
        Ok(space) => log_options_for(space.total_bytes),
        // The disk watch reads the free space later and logs the error.
        Err(_) => LogOptions::default(),
    }
}

fn log_options_for(total_bytes: u64) -> LogOptions {
    let most = LogOptions::default();
    LogOptions {
        file_bytes: (total_bytes / LOG_FILE_SHARE).clamp(LOG_FILE_BYTES_MIN, most.file_bytes),
        purge_bytes: (total_bytes / LOGS_SHARE).clamp(LOGS_BYTES_MIN, most.purge_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logs_take_up_a_share_of_a_small_disk() {
        let of = |total: u64| {
            let LogOptions { file_bytes, purge_bytes } = log_options_for(total);
            (file_bytes >> 20, purge_bytes >> 20)
        };
        assert_eq!(of(64 << 20), (4, 16));
        assert_eq!(of(2 << 30), (32, 256));
        assert_eq!(of(1 << 40), (64, 1024));
    }
}
