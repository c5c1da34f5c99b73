//! The applied state on disk: one RocksDB for all ranges of a node.
//!
//! RocksDB's write-ahead log is off, because the raft log is one already (design D3). The memtables
//! of all families are flushed together (atomic flush). So a crash leaves the state as of some
//! batch: that of the last flush, whether it was requested or RocksDB began it for lack of memory.
//!
//! ```text
//! state/      the RocksDB
//! staging/N/  sorted files of staged snapshot N
//! staging/install   redo record of an install in progress, see `install`
//! ```

mod collect;
mod errors;
mod install;
mod options;
mod read;
mod reclaim;
mod staging;
mod stats;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;
use rocksdb::{DB, FlushOptions, ReadOptions, WriteOptions};

pub use self::options::StateOptions;
pub use self::stats::StateStats;

use self::collect::Filters;
use self::errors::engine_error;
use self::staging::{RocksStaging, StagedFiles};
use crate::disk::create_dir_durably;
use crate::{
    ColumnFamily, Compaction, Direction, Error, Install, Reader, Records, Result, Span,
    StagedSnapshot, Staging, StateEngine, Write, WriteBatch,
};

/// Key above every stored key: no user key is longer than 8 KiB, and an escaped key that is all
/// `ff` goes on with `00`. RocksDB requires an end of a deleted span.
const ABOVE_ALL_KEYS: &[u8] = &[0xff; 8 * 1024 + 1];

/// Estimated size below which a span is measured by reading it: the estimate leaves out memtables.
const SMALL_SPAN_BYTES: u64 = 1 << 20;

/// The applied state of a node in `data_dir/state`. All methods may be called from any thread.
///
/// Dropping the state flushes it, but an error of that flush is lost: flush before.
pub struct RocksState {
    engine: Arc<Engine>,
}

/// Database and options that the state shares with its snapshots and stagings.
struct Engine {
    db: DB,
    options: StateOptions,
    family_options: Vec<rocksdb::Options>,
    staging_dir: PathBuf,
    read_options: ReadOptions,
    write_options: WriteOptions,
    /// Locked for writing while an install becomes visible, which RocksDB does family by family.
    view: RwLock<()>,
    /// Held through an install. One at a time: there is one file for the redo record.
    installing: Mutex<()>,
    staged: Mutex<BTreeMap<u64, StagedFiles>>,
    next_staged_id: AtomicU64,
    /// True if the last flush found the disk full.
    full: AtomicBool,
    filters: Arc<Filters>,
}

impl RocksState {
    /// Opens the state in `data_dir/state`, or creates it. Finishes an install that a crash
    /// interrupted, and deletes staged records.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a file is damaged, as far as opening reads it: see
    /// [`StateOptions::verify_bytes_max`]; [`Error::Refused`] if another process has the state
    /// open.
    pub fn open(data_dir: &Path, options: StateOptions) -> Result<Self> {
        let state_dir = data_dir.join("state");
        let staging_dir = data_dir.join("staging");
        create_dir_durably(&state_dir)?;
        create_dir_durably(&staging_dir)?;
        let filters = Arc::new(Filters::default());
        let family_options = options.families(&filters);
        let families = ColumnFamily::ALL.into_iter().map(|cf| {
            let options = family_options[cf as usize].clone();
            rocksdb::ColumnFamilyDescriptor::new(cf.name(), options)
        });
        let db = DB::open_cf_descriptors(&options.database(), &state_dir, families)
            .map_err(|error| errors::open_error(&state_dir, error))?;
        let mut write_options = WriteOptions::default();
        write_options.disable_wal(true);
        let engine = Engine {
            db,
            options,
            family_options,
            staging_dir,
            read_options: ReadOptions::default(),
            write_options,
            view: RwLock::new(()),
            installing: Mutex::new(()),
            staged: Mutex::default(),
            next_staged_id: AtomicU64::new(0),
            full: AtomicBool::new(false),
            filters,
        };
        let state = Self { engine: Arc::new(engine) };
        if state.stats().file_bytes <= state.engine.options.verify_bytes_max {
            state.verify()?;
        }
        state.engine.finish_install()?;
        state.engine.empty_staging()?;
        Ok(state)
    }

    /// Reads every record, and so checks every block of every file.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the file's name at the first block with a wrong checksum.
    pub fn verify(&self) -> Result<()> {
        for cf in ColumnFamily::ALL {
            let mut options = ReadOptions::default();
            options.fill_cache(false);
            let mut records = self.engine.records(cf, b"", b"", Direction::Forward, options);
            while records.next()?.is_some() {}
        }
        Ok(())
    }

    /// Rewrites the files that hold the span in one family now, without waiting for RocksDB's own
    /// compaction. Blocks.
    pub fn compact(&self, cf: ColumnFamily, span: &Span) {
        let (start, end) = (Some(&span.start[..]), Some(delete_end(span)));
        self.engine.db.compact_range_cf(self.engine.family(cf), start, end);
    }

    /// Bytes of writes that no flush has covered yet; a little more than their files will have.
    /// Cheap.
    pub fn memtable_bytes(&self) -> u64 {
        stats::memtable_bytes(&self.engine)
    }

    /// Statistics for people and metrics.
    pub fn stats(&self) -> StateStats {
        StateStats::read(&self.engine)
    }
}

impl Engine {
    fn family(&self, cf: ColumnFamily) -> &rocksdb::ColumnFamily {
        self.db.cf_handle(cf.name()).expect("all families are opened")
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        let mut writes = rocksdb::WriteBatch::default();
        for write in &batch.writes {
            match write {
                Write::Put { cf, key, value } => {
                    debug_assert!(**key < *ABOVE_ALL_KEYS);
                    writes.put_cf(self.family(*cf), key, value);
                }
                Write::Delete { cf, key } => writes.delete_cf(self.family(*cf), key),
                Write::DeleteSpan { span, .. } if span.is_empty() => {}
                Write::DeleteSpan { cf, span } => {
                    writes.delete_range_cf(self.family(*cf), &span.start[..], delete_end(span));
                }
            }
        }
        self.db.write_opt(writes, &self.write_options).map_err(engine_error)
    }

    fn flush(&self) -> Result<()> {
        self.filters.collector.carry(|| self.flush_unless_full())
    }

    /// Flushes, unless RocksDB is still recovering from a full disk. RocksDB recovers by itself:
    /// every five seconds it looks for room for a memtable, waits for all flushes to end and
    /// repeats them. A flush requested meanwhile is queued and then fails, so a caller that retries
    /// would keep the recovery waiting for ever. An empty write shows whether the disk is still
    /// full, and queues nothing.
    fn flush_unless_full(&self) -> Result<()> {
        if self.full.load(Ordering::Acquire) {
            self.write(WriteBatch::default())?;
            self.full.store(false, Ordering::Release);
        }
        let flushed = self.flush_now();
        if matches!(flushed, Err(Error::Full(_))) {
            self.full.store(true, Ordering::Release);
        }
        flushed
    }

    fn flush_now(&self) -> Result<()> {
        let families = ColumnFamily::ALL.map(|cf| self.family(cf));
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_cfs_opt(&families, &options).map_err(engine_error)
    }
}

/// The end of the span in the form that RocksDB takes.
fn delete_end(span: &Span) -> &[u8] {
    if span.end.is_empty() { ABOVE_ALL_KEYS } else { &span.end }
}

impl Reader for RocksState {
    fn get(&self, cf: ColumnFamily, key: &[u8]) -> Result<Option<Bytes>> {
        let _view = self.engine.view();
        self.engine.get(cf, key, &self.engine.read_options)
    }

    fn scan<'a>(
        &'a self,
        cf: ColumnFamily,
        start: &[u8],
        end: &[u8],
        direction: Direction,
    ) -> Result<Box<dyn Records + 'a>> {
        let _view = self.engine.view();
        let options = ReadOptions::default();
        Ok(Box::new(self.engine.records(cf, start, end, direction, options)))
    }
}

impl Compaction for RocksState {
    fn set_collect_below(&self, span: &Span, bound: u64) {
        self.engine.filters.collector.raise(span, bound);
    }

    fn collected_up_to(&self, span: &Span) -> u64 {
        self.engine.filters.collector.highest(span)
    }
}

impl StateEngine for RocksState {
    fn snapshot(&self) -> Arc<dyn Reader> {
        let _view = self.engine.view();
        Arc::new(read::RocksSnapshot::new(&self.engine))
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        self.engine.write(batch)
    }

    fn flush(&self) -> Result<()> {
        self.engine.flush()
    }

    fn stage(&self) -> Result<Box<dyn Staging>> {
        Ok(Box::new(RocksStaging::begin(&self.engine)?))
    }

    fn install(&self, install: Install) -> Result<()> {
        self.engine.install(install, &mut |_| Ok(()))
    }

    fn discard(&self, staged: StagedSnapshot) -> Result<()> {
        self.engine.forget_staged(staged.id);
        self.engine.remove_staged_dir(staged.id)
    }

    fn approximate_bytes(&self, span: &Span) -> Result<u64> {
        let mut bytes = 0;
        for cf in ColumnFamily::DATA {
            let range = rocksdb::Range::new(&span.start, delete_end(span));
            let sizes = self.engine.db.get_approximate_sizes_cf(self.engine.family(cf), &[range]);
            bytes += sizes.iter().sum::<u64>();
        }
        if bytes >= SMALL_SPAN_BYTES {
            return Ok(bytes);
        }
        let mut counted = 0;
        for cf in ColumnFamily::DATA {
            let mut records = self.scan(cf, &span.start, &span.end, Direction::Forward)?;
            while counted < SMALL_SPAN_BYTES {
                let Some((key, value)) = records.next()? else { break };
                counted += (key.len() + value.len()) as u64;
            }
        }
        Ok(counted.max(bytes))
    }
}

/// Error for a lock whose holder panicked: the guarded state cannot be trusted any more.
fn poisoned<T>(_: std::sync::PoisonError<T>) -> Error {
    Error::Io("a thread panicked while it changed the state".into())
}
