//! Storage of a node: the interfaces to the engines, the engines behind them, and the formats of
//! stored keys and records.
//!
//! # Two engines, one write-ahead log
//!
//! A node has one [`LogEngine`] for the raft logs of all its ranges and one [`StateEngine`] for the
//! applied state. The raft log is the only write-ahead log (design D3). An append to it is durable
//! when it returns. A write to the state is visible at once and durable after the next flush. After
//! a crash the state is that of some flush: the last finished one, or a later one. Replaying the
//! log from the applied index found there restores the state exactly, because apply is
//! deterministic and the applied index is in the same batch as the data it describes.
//!
//! On disk (feature `disk`) they are [`RaftEngineLog`] and [`RocksState`]. Their in-memory twins
//! [`MemLog`] and [`MemState`] keep the same contract and can `crash()`, which loses what the
//! contract allows to be lost and nothing else; the simulator runs on them.
//!
//! # Left out on purpose
//!
//! No clock, no thread and no policy: the caller decides when to flush, sync, truncate or install.
//! The formats of keys and records live here so that a reader finds every stored byte in one place
//! (`docs/storage-format.md`). The crates `txn` and `raftstore` decide what they mean.

mod batch;
mod collect;
mod collect_bounds;
mod collector;
#[cfg(feature = "disk")]
pub mod disk;
pub mod encoding;
mod engine;
mod error;
pub mod keys;
mod log;
mod machine;
mod mem;
mod mem_families;
mod mem_log;
mod planted;
#[cfg(feature = "disk")]
mod raft_engine_log;
mod record;
#[cfg(feature = "disk")]
mod rocks;
mod snapshot_stream;
mod span;
mod state_hash;
mod varint;

pub use batch::Batch;
pub use collect::is_collectable;
pub use engine::{
    ColumnFamily, Compaction, Direction, Install, Reader, Records, Span, StagedSnapshot, Staging,
    StateEngine, Write, WriteBatch,
};
pub use error::{Error, Result};
pub use log::{LogBatch, LogChange, LogEngine, LogState};
pub use machine::{Applied, ApplyContext, Change, RangeSize, StateMachine};
pub use mem::{FlushUnderWay, MemState};
pub use mem_log::{FailedAppend, MemLog};
#[cfg(feature = "disk")]
pub use raft_engine_log::{LogOptions, RaftEngineLog};
pub use record::{HistoryRecord, INLINE_VALUE_BYTES_MAX, Record, RecordValue, StartRecord};
#[cfg(feature = "disk")]
pub use rocks::{RocksState, StateOptions, StateStats};
pub use snapshot_stream::{
    Chunk, ChunkReader, ChunkReceiver, SNAPSHOT_CHUNK_BYTES, SnapshotTotals, chunk_crc32,
};
pub use state_hash::{state_hash, state_hash_above};
