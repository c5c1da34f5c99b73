//! The TOML file: the flags' names in snake case, and sections for what has no flag.

use std::path::{Path, PathBuf};

use rangedb_raftstore::Config as RaftConfig;
use serde::Deserialize;

use super::args::{LogFormat, LogLevel, ReadMode};
use super::size::Size;
use super::{ConfigError, Limits, StorageConfig};
use crate::shell::engines::MEMTABLES;
use crate::shell::memory::Division;

/// Maximum of the default memtable size. A larger one takes longer to flush than it saves.
const WRITE_BUFFER_DEFAULT_MAX: u64 = 64 << 20;

/// Bounds of the default queue size of a store. The largest command must fit the minimum. Requests
/// behind more bytes than the maximum would wait too long.
const QUEUE_DEFAULT_MIN: u64 = 12 << 20;
const QUEUE_DEFAULT_MAX: u64 = 64 << 20;

/// Contents of the file. Every key is optional; an unknown key is an error that names it.
#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub peer_address: Option<String>,
    pub client_address: Option<String>,
    pub status_address: Option<String>,
    pub listen_host: Option<String>,
    pub data_dir: Option<PathBuf>,
    pub peers: Option<Vec<String>>,
    pub join: Option<Vec<String>>,
    pub cluster_init: Option<bool>,
    pub split_keys: Option<Vec<String>>,
    pub memory_limit: Option<Size>,
    pub log_level: Option<LogLevel>,
    pub log_format: Option<LogFormat>,
    pub read_mode: Option<ReadMode>,
    pub stores: Option<usize>,
    pub raft: Raft,
    pub storage: Storage,
    pub limits: LimitsFile,
}

impl File {
    pub fn read(path: &Path) -> Result<File, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        let text = text.trim_start_matches('\u{feff}');
        toml::from_str(text).map_err(|error| ConfigError::Malformed {
            path: path.to_owned(),
            error: Box::new(error),
        })
    }
}

#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raft {
    tick_ms: Option<u64>,
    election_ticks: Option<usize>,
    heartbeat_ticks: Option<usize>,
    queue_bytes: Option<Size>,
    entry_bytes: Option<Size>,
    message_bytes: Option<Size>,
    inflight_messages: Option<usize>,
    uncommitted_bytes: Option<Size>,
    apply_bytes: Option<Size>,
    entry_cache_bytes: Option<Size>,
    flush_log_bytes: Option<Size>,
    log_keep_bytes: Option<Size>,
    promote_lag_entries: Option<u64>,
}

impl Raft {
    /// Returns the defaults, replaced by the settings of the file where there are any.
    pub fn apply(self, default: RaftConfig) -> RaftConfig {
        let bytes = |size: Option<Size>, default: u64| size.map_or(default, |size| size.0);
        let length = |size: Option<Size>, default: usize| {
            usize::try_from(bytes(size, default as u64)).unwrap_or(usize::MAX)
        };
        RaftConfig {
            tick_us: self.tick_ms.map_or(default.tick_us, |ms| ms.saturating_mul(1000)),
            election_ticks: self.election_ticks.unwrap_or(default.election_ticks),
            heartbeat_ticks: self.heartbeat_ticks.unwrap_or(default.heartbeat_ticks),
            lease_reads: default.lease_reads,
            queue_bytes_max: length(self.queue_bytes, default.queue_bytes_max),
            entry_bytes_max: length(self.entry_bytes, default.entry_bytes_max),
            uncommitted_bytes_max: bytes(self.uncommitted_bytes, default.uncommitted_bytes_max),
            message_bytes_max: bytes(self.message_bytes, default.message_bytes_max),
            inflight_messages_max: self.inflight_messages.unwrap_or(default.inflight_messages_max),
            apply_bytes_max: bytes(self.apply_bytes, default.apply_bytes_max),
            entry_cache_bytes: length(self.entry_cache_bytes, default.entry_cache_bytes),
            flush_log_bytes: bytes(self.flush_log_bytes, default.flush_log_bytes),
            log_keep_bytes: bytes(self.log_keep_bytes, default.log_keep_bytes),
            promote_lag_entries: self.promote_lag_entries.unwrap_or(default.promote_lag_entries),
        }
    }
}

#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Storage {
    block_cache_bytes: Option<Size>,
    write_buffer_bytes: Option<Size>,
    disk_reserve_bytes: Option<Size>,
}

impl Storage {
    /// Completes the settings: memory sizes that the file omits are shares of the node's memory.
    pub fn complete(self, memory: &Division) -> StorageConfig {
        let bytes = |size: Option<Size>, default: u64| size.map_or(default, |size| size.0);
        let write_buffer = (memory.memtables / MEMTABLES).min(WRITE_BUFFER_DEFAULT_MAX);
        StorageConfig {
            block_cache_bytes: bytes(self.block_cache_bytes, memory.block_cache),
            write_buffer_bytes: bytes(self.write_buffer_bytes, write_buffer),
            disk_reserve_bytes: self.disk_reserve_bytes.map(|size| size.0),
        }
    }
}

#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsFile {
    store_queue_bytes: Option<Size>,
    stream_requests: Option<usize>,
    snapshots: Option<usize>,
}

impl LimitsFile {
    /// Completes the settings: a queue size that the file omits is a share of the node's memory,
    /// and other limits are constants.
    pub fn complete(self, memory: &Division, stores: usize) -> Limits {
        let share = memory.store_queues / stores.max(1) as u64;
        let queue = self
            .store_queue_bytes
            .map_or(share.clamp(QUEUE_DEFAULT_MIN, QUEUE_DEFAULT_MAX), |size| size.0);
        Limits {
            store_queue_bytes: usize::try_from(queue).unwrap_or(usize::MAX),
            stream_requests: self.stream_requests.unwrap_or(8 * 1024).max(1),
            snapshots: self.snapshots.unwrap_or(2).max(1),
        }
    }
}
