//! Raft logs on disk, over raft-engine: one append and one fsync for all ranges of a node.
//!
//! A [`LogBatch`] becomes one batch of raft-engine, whose checksums make the batch atomic. Besides
//! its entries, each log has two records under its range: `h`, the encoded hard state, and `t`,
//! index and term of the newest dropped entry. [`LogState`]s are kept in memory too. By rules
//! shared with the in-memory twin, they decide whether a change is sound, before any of it is
//! written.
//!
//! raft-engine remembers a dropped prefix only until it purges the file that records the drop. It
//! may then bring entries back from a file of rewritten ones. Two rules keep that harmless:
//! - a log that becomes empty (truncated to its end, or reset) is cleaned, which raft-engine
//!   remembers, and its two records are written anew in the same batch;
//! - in a log that is not empty, entries that come back lie below `t`, and are dropped again at
//!   opening.
//!
//! raft-engine may cut as a torn tail more than this node may lose, and bytes that it reads may not
//! be on the disk yet: see [`check`] for both.

mod check;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use protobuf::{CodedInputStream, Message};
use raft_engine::internals::LogQueue;
use raft_engine::{Command, Config, Engine, MessageExt, ReadableSize, RecoveryMode};
use raft_proto::eraftpb::{Entry, HardState};

use crate::disk::{create_dir_durably, io_error, remove_durably, sync_dir, write_durably};
use crate::{Error, LogBatch, LogChange, LogEngine, LogState, Result};

const HARD_STATE: &[u8] = b"h";
const TRUNCATED: &[u8] = b"t";
/// Lock file of the process that has the directory open; the name is raft-engine's.
const LOCK: &str = "LOCK";
/// Marker file that exists while a purge is in progress; see [`check`].
const PURGE_MARKER: &str = "purging";
/// Most bytes of entries in one read, whatever the caller asks for: raft-engine adds sizes up in 32
/// bits.
const READ_BYTES_MAX: u64 = 1 << 30;
/// Attempts of one read. A purge may remove a file between the lookup of an entry and the read; the
/// entry is then in another file. This happens twice to one read only if two purges finish within
/// it.
const READ_ATTEMPTS: usize = 3;

/// Options of the log's files.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Length at which a file is closed. Opening reads one file at a time into memory.
    pub file_bytes: u64,
    /// Total length of the files above which [`LogEngine::purge`] gives space back. Opening reads
    /// and checks every byte, so this bounds the time it takes.
    pub purge_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { file_bytes: 64 << 20, purge_bytes: 1 << 30 }
    }
}

/// The raft logs of a node in `data_dir/log`. All methods may be called from any thread; appends
/// wait for each other.
pub struct RaftEngineLog {
    engine: Engine,
    dir: PathBuf,
    options: LogOptions,
    /// Distinguishes the engines of one process, see [`RaftEngineLog::with_own_cache`].
    id: u64,
    /// Held through an append, so that batches are written in the order in which they were checked.
    writer: Mutex<()>,
    states: Mutex<BTreeMap<u64, LogState>>,
    /// True once a write or sync failed: what is on disk is then unknown.
    failed: AtomicBool,
}

struct EntryExt;

impl MessageExt for EntryExt {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

impl RaftEngineLog {
    /// Opens the logs in `data_dir/log`, or creates the directory.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with file and position if anything but a torn tail is damaged;
    /// [`Error::Refused`] if another process has the directory open.
    pub fn open(data_dir: &Path, options: LogOptions) -> Result<Self> {
        let dir = data_dir.join("log");
        create_dir_durably(&dir)?;
        let marker = dir.join(PURGE_MARKER);
        // raft-engine takes this lock again.
        let lock = lock_dir(&dir)?;
        check::settle(&dir)?;
        check::check_files(&dir, marker.exists())?;
        drop(lock);
        let config = Config {
            dir: dir.to_str().ok_or_else(|| not_utf8(&dir))?.into(),
            recovery_mode: RecoveryMode::TolerateTailCorruption,
            target_file_size: ReadableSize(options.file_bytes),
            purge_threshold: ReadableSize(options.purge_bytes.max(options.file_bytes)),
            // A reused file has old batches behind the new ones, so a torn tail would look like
            // damage.
            enable_log_recycle: false,
            ..Config::default()
        };
        // raft-engine panics on some kinds of damage.
        let opened = catch_unwind(|| Engine::open(config));
        let engine = match opened {
            Ok(opened) => opened.map_err(|error| open_error(&dir, error))?,
            Err(panic) => return Err(corrupt(&dir, panic_message(&*panic))),
        };
        static ENGINES: AtomicU64 = AtomicU64::new(1);
        let log = Self {
            engine,
            dir,
            options,
            id: ENGINES.fetch_add(1, Ordering::Relaxed),
            writer: Mutex::new(()),
            states: Mutex::default(),
            failed: AtomicBool::new(false),
        };
        for range_id in log.engine.raft_groups() {
            if let Some(state) = log.load(range_id)? {
                log.states().insert(range_id, state);
            }
        }
        // Syncs what opening wrote: the headers of the first files, and the drops in the loop
        // above. The names of the first files are durable only once the directory is synced.
        check::sync_newest(&log.dir)?;
        sync_dir(&log.dir)?;
        remove_durably(&marker)?;
        Ok(log)
    }

    /// Reads a range's state from the engine. Drops entries that came back.
    fn load(&self, range_id: u64) -> Result<Option<LogState>> {
        let broken = |what: &str| corrupt(&self.dir, format!("range {range_id}: {what}"));
        let hard_state = self.engine.get(range_id, HARD_STATE);
        let truncated = self.engine.get(range_id, TRUNCATED);
        let first = self.engine.first_index(range_id);
        if hard_state.is_none() && truncated.is_none() && first.is_none() {
            return Ok(None);
        }
        let mut state = LogState::default();
        if let Some(bytes) = hard_state {
            state.hard_state = decode_hard_state(&bytes).ok_or_else(|| broken("its hard state"))?;
        }
        if let Some(bytes) = truncated {
            let (index, term) = decode_truncated(&bytes).ok_or_else(|| broken("its beginning"))?;
            state.reset(index, term);
        }
        let begin = state.truncated_index + 1;
        let first = first.unwrap_or(begin);
        if first > begin {
            return Err(broken(&format!("entries {begin} to {first} are missing")));
        }
        if first < begin {
            self.engine.compact_to(range_id, begin);
        }
        state.last_index = self.engine.last_index(range_id).unwrap_or(begin - 1);
        Ok(Some(state))
    }

    /// Bytes of the log's files, with the space that is allocated ahead. For people: files that
    /// cannot be inspected do not count.
    pub fn used_bytes(&self) -> u64 {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<u64, LogState>> {
        self.states.lock().expect("a thread panicked while it changed the log's states")
    }

    fn is_purge_due(&self) -> bool {
        let bytes = |queue| {
            let (first, last) = self.engine.file_span(queue);
            (last - first + 1) * self.options.file_bytes
        };
        bytes(LogQueue::Append) + bytes(LogQueue::Rewrite) > self.options.purge_bytes
    }

    /// Runs a read with a block cache of this engine alone. raft-engine caches, for each thread,
    /// the block read last, under its position in the files but without the engine's identity. In a
    /// process with more than one engine (tests have several, a node does not), a thread that last
    /// read another engine runs the read on a new thread.
    fn with_own_cache<T: Send>(&self, read: impl Fn() -> T + Sync + Send) -> T {
        thread_local!(static LAST_READ: Cell<u64> = const { Cell::new(0) });
        let last = LAST_READ.get();
        if last == 0 || last == self.id {
            LAST_READ.set(self.id);
            return read();
        }
        std::thread::scope(|scope| scope.spawn(read).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl LogEngine for RaftEngineLog {
    fn append(&self, batch: LogBatch) -> Result<()> {
        let _writer = self.writer.lock().expect("a thread panicked while it appended");
        if self.failed.load(Ordering::Acquire) {
            return Err(Error::Io("appended to after a failed append".into()));
        }
        let mut prepared = Prepared::new(self);
        for change in batch.changes {
            prepared.add(change)?;
        }
        let Prepared { mut writes, states, .. } = prepared;
        // A failed sync panics within raft-engine.
        let written = catch_unwind(AssertUnwindSafe(|| self.engine.write(&mut writes, true)))
            .map_err(|panic| Error::Io(panic_message(&*panic)))
            .and_then(|written| written.map_err(write_error));
        if let Err(error) = written {
            // Without room nothing was written, and there may be room later.
            if !matches!(error, Error::Full(_)) {
                self.failed.store(true, Ordering::Release);
            }
            return Err(error);
        }
        let mut all = self.states();
        for (range_id, state) in states {
            match state {
                Some(state) => all.insert(range_id, state),
                None => all.remove(&range_id),
            };
        }
        Ok(())
    }

    fn state(&self, range_id: u64) -> Result<Option<LogState>> {
        Ok(self.states().get(&range_id).cloned())
    }

    fn entries(&self, range_id: u64, low: u64, high: u64, bytes_max: u64) -> Result<Vec<Entry>> {
        LogState::check_read(self.states().get(&range_id), range_id, low, high);
        if low == high {
            return Ok(Vec::new());
        }
        let bytes_max = bytes_max.min(READ_BYTES_MAX) as usize;
        let read = || {
            let mut entries = Vec::new();
            self.engine
                .fetch_entries_to::<EntryExt>(range_id, low, high, Some(bytes_max), &mut entries)
                .map(|_| entries)
        };
        let mut attempts = 1;
        loop {
            match self.with_own_cache(read) {
                Ok(entries) => return Ok(entries),
                Err(_) if attempts < READ_ATTEMPTS => attempts += 1,
                Err(raft_engine::Error::Io(error)) => return Err(Error::Io(error.to_string())),
                Err(error) => {
                    let message = format!("range {range_id}: entries {low}..{high}: {error}");
                    return Err(corrupt(&self.dir, message));
                }
            }
        }
    }

    fn ranges(&self) -> Result<Vec<u64>> {
        Ok(self.states().keys().copied().collect())
    }

    fn purge(&self) -> Result<()> {
        if !self.is_purge_due() {
            return Ok(());
        }
        let marker = self.dir.join(PURGE_MARKER);
        write_durably(&marker, b"")?;
        self.with_own_cache(|| self.engine.purge_expired_files()).map_err(write_error)?;
        // Sync the directory, so that the purged files are gone for good before the marker is.
        sync_dir(&self.dir)?;
        remove_durably(&marker)
    }
}

/// A batch for raft-engine, checked change by change.
struct Prepared<'a> {
    log: &'a RaftEngineLog,
    writes: raft_engine::LogBatch,
    /// States after the batch of the ranges that it changes; `None` is destroyed.
    states: BTreeMap<u64, Option<LogState>>,
}

impl<'a> Prepared<'a> {
    fn new(log: &'a RaftEngineLog) -> Self {
        Self { log, writes: raft_engine::LogBatch::default(), states: BTreeMap::new() }
    }

    fn add(&mut self, change: LogChange) -> Result<()> {
        match change {
            LogChange::Append { range_id, entries } => {
                if entries.is_empty() {
                    return Ok(());
                }
                let mut state = self.state(range_id).unwrap_or_default();
                state.append(range_id, &entries);
                self.writes.add_entries::<EntryExt>(range_id, &entries).map_err(write_error)?;
                self.set(range_id, state);
            }
            LogChange::HardState { range_id, state: hard_state } => {
                let mut state = self.state(range_id).unwrap_or_default();
                state.hard_state = hard_state;
                self.put_hard_state(range_id, &state)?;
                self.set(range_id, state);
            }
            LogChange::Truncate { range_id, index, term } => {
                let mut state = self.state(range_id).unwrap_or_default();
                if !state.truncate(range_id, index, term) {
                    return Ok(());
                }
                if state.last_index == index {
                    self.empty(range_id, &state)?;
                } else {
                    self.writes.add_command(range_id, Command::Compact { index: index + 1 });
                    self.put_truncated(range_id, &state)?;
                }
                self.set(range_id, state);
            }
            LogChange::Reset { range_id, index, term } => {
                let mut state = self.state(range_id).unwrap_or_default();
                state.reset(index, term);
                self.empty(range_id, &state)?;
                self.set(range_id, state);
            }
            LogChange::Destroy { range_id } => {
                if self.state(range_id).is_some() {
                    self.writes.add_command(range_id, Command::Clean);
                    self.states.insert(range_id, None);
                }
            }
        }
        Ok(())
    }

    fn state(&self, range_id: u64) -> Option<LogState> {
        let changed = self.states.get(&range_id).cloned();
        changed.unwrap_or_else(|| self.log.states().get(&range_id).cloned())
    }

    fn set(&mut self, range_id: u64, state: LogState) {
        self.states.insert(range_id, Some(state));
    }

    /// Empties a range's log: only its two records stay.
    fn empty(&mut self, range_id: u64, state: &LogState) -> Result<()> {
        self.writes.add_command(range_id, Command::Clean);
        self.put_hard_state(range_id, state)?;
        self.put_truncated(range_id, state)
    }

    fn put_hard_state(&mut self, range_id: u64, state: &LogState) -> Result<()> {
        let message = &state.hard_state;
        self.writes.put_message(range_id, HARD_STATE.into(), message).map_err(write_error)
    }

    fn put_truncated(&mut self, range_id: u64, state: &LogState) -> Result<()> {
        let index = state.truncated_index.to_be_bytes();
        let value = [index, state.truncated_term.to_be_bytes()].concat();
        self.writes.put(range_id, TRUNCATED.into(), value).map_err(write_error)
    }
}

/// Decodes within a limit. Without it, the decoder allocates any length that it reads before it
/// finds that the bytes end.
fn decode_hard_state(bytes: &[u8]) -> Option<HardState> {
    let mut input = CodedInputStream::from_bytes(bytes);
    input.push_limit(bytes.len() as u64).ok()?;
    let mut state = HardState::default();
    state.merge_from(&mut input).ok()?;
    Some(state)
}

fn decode_truncated(bytes: &[u8]) -> Option<(u64, u64)> {
    let (index, term) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*index), u64::from_be_bytes(term.try_into().ok()?)))
}

fn corrupt(file: &Path, reason: String) -> Error {
    Error::Corrupt { file: Some(file.to_path_buf()), reason }
}

fn not_utf8(dir: &Path) -> Error {
    Error::Refused(format!("{}: the log's directory must have a UTF-8 name", dir.display()))
}

/// Locks the directory. Fails if another process has the log open: its unfinished writes would look
/// damaged, and its new files would look unused.
fn lock_dir(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| io_error("open", &path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Error::Refused(format!("{}: in use by another process", dir.display())))
        }
        Err(TryLockError::Error(error)) => Err(io_error("lock", &path, &error)),
    }
}

fn open_error(dir: &Path, error: raft_engine::Error) -> Error {
    match error {
        raft_engine::Error::Io(error) => io_error("open", dir, &error),
        // The lock of the directory is held by another process, or the options are unsound.
        raft_engine::Error::Other(_) | raft_engine::Error::InvalidArgument(_) => {
            Error::Refused(format!("{}: {error}", dir.display()))
        }
        error => corrupt(dir, error.to_string()),
    }
}

fn write_error(error: raft_engine::Error) -> Error {
    match error {
        raft_engine::Error::Io(error)
            if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
        {
            Error::Full(error.to_string())
        }
        // raft-engine's answer to a full disk, once another file did not help either.
        raft_engine::Error::TryAgain(message) => Error::Full(message),
        error => Error::Io(error.to_string()),
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("the log engine panicked").into()
}
