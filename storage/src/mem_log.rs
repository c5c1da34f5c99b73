//! Raft logs in memory: the twin of the logs on disk.
//!
//! An append is durable when it returns, so a crash loses nothing here. The holder of batches in
//! flight decides whether a crash loses them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use raft_proto::eraftpb::Entry;

use crate::log::entries_within;
use crate::{Error, LogBatch, LogChange, LogEngine, LogState, Result};

/// Raft logs in memory, the twin of [`crate::RaftEngineLog`], which can fail and be full. All
/// methods may be called from any thread.
#[derive(Default)]
pub struct MemLog {
    inner: Mutex<Inner>,
}

/// Append that is to fail, and the part of it that is on disk nevertheless.
#[derive(Clone, Copy, Debug)]
pub struct FailedAppend {
    /// Number of appends that succeed before.
    pub after: usize,
    /// True if everything is written and durable: a failed sync may have done its work.
    pub written: bool,
}

#[derive(Default)]
struct Inner {
    ranges: BTreeMap<u64, RangeLog>,
    full: bool,
    fails: Option<FailedAppend>,
    /// True once an append failed: by the contract no other may follow in this run of the process.
    failed: bool,
}

/// Log of one range.
///
/// Invariant: `entries` are those from `state.truncated_index + 1` to `state.last_index`.
#[derive(Default)]
struct RangeLog {
    state: LogState,
    entries: VecDeque<Entry>,
}

impl MemLog {
    pub fn new() -> Self {
        Self::default()
    }

    /// Simulates a crash and a restart: configured faults are gone, everything appended stays.
    pub fn crash(&self) {
        let mut inner = self.lock();
        *inner = Inner { ranges: std::mem::take(&mut inner.ranges), ..Inner::default() };
    }

    /// Makes a later append fail with [`Error::Io`]. Appends after it write nothing.
    pub fn fail_append(&self, fails: FailedAppend) {
        self.lock().fails = Some(fails);
    }

    /// Fills the disk or frees it. While it is full, appends answer [`Error::Full`] and write
    /// nothing.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a thread panicked while it changed the log")
    }
}

impl LogEngine for MemLog {
    fn append(&self, batch: LogBatch) -> Result<()> {
        let mut inner = self.lock();
        if inner.failed {
            return Err(Error::Io("appended to after a failed append".into()));
        }
        if inner.full {
            return Err(Error::Full("the simulated disk".into()));
        }
        let fails = match &mut inner.fails {
            Some(FailedAppend { after: 0, written }) => Some(*written),
            Some(FailedAppend { after, .. }) => {
                *after -= 1;
                None
            }
            None => None,
        };
        if fails != Some(false) {
            for change in batch.changes {
                inner.apply(change);
            }
        }
        match fails {
            Some(_) => {
                inner.failed = true;
                Err(Error::Io("the simulated append failed".into()))
            }
            None => Ok(()),
        }
    }

    fn state(&self, range_id: u64) -> Result<Option<LogState>> {
        Ok(self.lock().ranges.get(&range_id).map(|log| log.state.clone()))
    }

    fn entries(&self, range_id: u64, low: u64, high: u64, bytes_max: u64) -> Result<Vec<Entry>> {
        let inner = self.lock();
        let log = inner.ranges.get(&range_id);
        let state = log.map(|log| &log.state);
        LogState::check_read(state, range_id, low, high);
        let Some(log) = log else { return Ok(Vec::new()) };
        let first = log.state.truncated_index + 1;
        let asked = log.entries.range((low - first) as usize..(high - first) as usize);
        Ok(entries_within(asked.cloned(), bytes_max))
    }

    fn ranges(&self) -> Result<Vec<u64>> {
        Ok(self.lock().ranges.keys().copied().collect())
    }

    fn purge(&self) -> Result<()> {
        Ok(())
    }
}

impl Inner {
    fn apply(&mut self, change: LogChange) {
        match change {
            LogChange::Append { entries, .. } if entries.is_empty() => {}
            LogChange::Append { range_id, entries } => {
                let log = self.ranges.entry(range_id).or_default();
                log.state.append(range_id, &entries);
                let kept = entries[0].index - log.state.truncated_index - 1;
                log.entries.truncate(kept as usize);
                log.entries.extend(entries);
            }
            LogChange::HardState { range_id, state } => {
                self.ranges.entry(range_id).or_default().state.hard_state = state;
            }
            LogChange::Truncate { range_id, index, term } => {
                let Some(log) = self.ranges.get_mut(&range_id) else {
                    LogState::default().truncate(range_id, index, term);
                    return;
                };
                let before = log.state.truncated_index;
                if log.state.truncate(range_id, index, term) {
                    log.entries.drain(..(index - before) as usize);
                }
            }
            LogChange::Reset { range_id, index, term } => {
                let log = self.ranges.entry(range_id).or_default();
                log.state.reset(index, term);
                log.entries.clear();
            }
            LogChange::Destroy { range_id } => {
                self.ranges.remove(&range_id);
            }
        }
    }
}
