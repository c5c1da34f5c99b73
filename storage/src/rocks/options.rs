//! Options of RocksDB, with their reasons.

use std::sync::Arc;

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, LogLevel, Options,
};

use super::collect::{FilterFactory, Filters};
use crate::ColumnFamily;

/// Bits of Bloom filter for each key: 1 % of lookups of absent keys read a block in vain.
const BLOOM_BITS: f64 = 10.0;
/// Block sizes. Families read by key have small blocks. Families read in runs, or with values of
/// half a kilobyte and more, have larger ones, for the index and for compression.
const POINT_BLOCK_BYTES: usize = 4 << 10;
const RUN_BLOCK_BYTES: usize = 16 << 10;
/// Part of a memtable that its Bloom filter takes: a lookup of an absent key need not search the
/// memtable.
const MEMTABLE_FILTER_RATIO: f64 = 0.02;
/// Memtables of a family, including those waiting for a flush, before writes are held up.
const MEMTABLES_MAX: i32 = 4;
/// Limits of RocksDB's own log, which holds warnings.
const INFO_LOG_BYTES: usize = 8 << 20;
const INFO_LOGS_MAX: usize = 4;

/// Options that depend on the machine.
#[derive(Clone, Debug)]
pub struct StateOptions {
    /// Memory for blocks of all families, their indexes and filters.
    pub block_cache_bytes: usize,
    /// Memory for writes of one family before they go to a file.
    pub memtable_bytes: usize,
    /// Memory for writes of all families: beyond it a flush begins.
    pub memtables_bytes: usize,
    /// Files kept open; their readers' indexes are in the block cache.
    pub open_files_max: i32,
    /// Threads for flushes and compactions.
    pub background_jobs: i32,
    /// Total length of files up to which opening reads and checks every block; about a second. In a
    /// larger state, damage shows when the block is read.
    pub verify_bytes_max: u64,
    /// Approximate length of a staged snapshot's files, each of which is collected in memory first.
    pub staged_file_bytes: usize,
    /// True if RocksDB compacts in the background. Off only where the directory must not change
    /// while nothing is written to it, as in tests that copy it.
    pub compaction: bool,
}

impl Default for StateOptions {
    fn default() -> Self {
        Self {
            block_cache_bytes: 256 << 20,
            memtable_bytes: 64 << 20,
            memtables_bytes: 256 << 20,
            open_files_max: 4096,
            background_jobs: 2,
            verify_bytes_max: 512 << 20,
            staged_file_bytes: 32 << 20,
            compaction: true,
        }
    }
}

impl StateOptions {
    pub(super) fn database(&self) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        // The durability contract: one flush covers all families, at one batch.
        options.set_atomic_flush(true);
        options.set_paranoid_checks(true);
        options.set_db_write_buffer_size(self.memtables_bytes);
        options.set_max_background_jobs(self.background_jobs);
        options.set_max_open_files(self.open_files_max);
        // Spreads file writes out, so that a sync of the raft log finds the disk free.
        options.set_bytes_per_sync(1 << 20);
        options.set_log_level(LogLevel::Warn);
        options.set_max_log_file_size(INFO_LOG_BYTES);
        options.set_keep_log_file_num(INFO_LOGS_MAX);
        options.set_stats_dump_period_sec(0);
        options
    }

    /// Options of each family, by the family's number.
    pub(super) fn families(&self, filters: &Arc<Filters>) -> Vec<Options> {
        let cache = Cache::new_lru_cache(self.block_cache_bytes);
        let family = |cf| {
            let mut options = self.family(cf, &cache);
            if matches!(cf, ColumnFamily::Current | ColumnFamily::History) {
                let filters = Arc::clone(filters);
                options.set_compaction_filter_factory(FilterFactory { cf, filters });
            }
            options
        };
        ColumnFamily::ALL.map(family).into()
    }

    fn family(&self, cf: ColumnFamily, cache: &Cache) -> Options {
        let mut options = Options::default();
        options.set_write_buffer_size(self.memtable_bytes);
        options.set_max_write_buffer_number(MEMTABLES_MAX);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_disable_auto_compactions(!self.compaction);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_bottommost_compression_type(DBCompressionType::Zstd);
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_cache_index_and_filter_blocks_with_high_priority(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        // Index and filter are partitioned, and a lookup needs one partition of each. Whole, those
        // of a file of a million keys are larger than a shard of the cache, so they are never
        // cached: each lookup would read megabytes and check their sum.
        table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        table.set_partition_filters(true);
        table.set_pin_top_level_index_and_filter(true);
        match cf {
            ColumnFamily::Current | ColumnFamily::Lock | ColumnFamily::Meta => {
                table.set_block_size(POINT_BLOCK_BYTES);
            }
            ColumnFamily::History | ColumnFamily::Value => table.set_block_size(RUN_BLOCK_BYTES),
        }
        // Most reads are by whole key. History is scanned for its versions; start records in it are
        // looked up by whole key, mostly in vain.
        table.set_bloom_filter(BLOOM_BITS, false);
        table.set_whole_key_filtering(true);
        options.set_memtable_whole_key_filtering(true);
        options.set_memtable_prefix_bloom_ratio(MEMTABLE_FILTER_RATIO);
        options.set_block_based_table_factory(&table);
        options
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rocksdb::perf::{PerfContext, PerfMetric, PerfStatsLevel, set_perf_stats};

    use super::*;
    use crate::{Reader, RocksState, Span, StateEngine, WriteBatch, keys};

    /// Keys of one file. Their filter takes 750 kilobytes.
    const KEYS: usize = 600_000;

    /// Size of a cache with shards of half a megabyte.
    const CACHE_BYTES: usize = 8 << 20;

    #[test]
    fn a_lookup_in_a_file_of_many_keys_reads_nothing_that_the_last_one_read() {
        let directory = tempfile::tempdir().unwrap();
        let options = StateOptions {
            block_cache_bytes: CACHE_BYTES,
            memtable_bytes: 512 << 20,
            memtables_bytes: 1 << 30,
            ..Default::default()
        };
        let state = RocksState::open(directory.path(), options).unwrap();
        let key = |number: usize| keys::current(format!("{number:08}").as_bytes());
        for first in (0..KEYS).step_by(10_000) {
            let mut batch = WriteBatch::default();
            for number in first..first + 10_000 {
                batch.put(ColumnFamily::Current, key(number), Bytes::from_static(b"v"));
            }
            state.write(batch).unwrap();
        }
        state.flush().unwrap();
        // Compact, because a newly flushed file has its blocks pinned.
        state.compact(ColumnFamily::Current, &Span::everything());
        set_perf_stats(PerfStatsLevel::EnableCount);
        let blocks_read = |number: usize| {
            let mut context = PerfContext::default();
            context.reset();
            assert!(state.get(ColumnFamily::Current, &key(number)).unwrap().is_some());
            context.metric(PerfMetric::BlockReadCount)
        };
        assert!(blocks_read(7) > 0, "the keys are in a file");
        assert_eq!(blocks_read(7), 0);
        assert_eq!(blocks_read(8), 0, "it lies beside the other");
    }
}
