//! Storage of one replica as raft-rs reads it: the log engine behind a cache of the newest entries, the
//! replica's descriptor and applied entry, and the snapshots that it sends.
//!
//! This type writes nothing: the peer collects [`LogChange`]s, and the log writer makes them
//! durable later. Until the log writer reports that, entries exist in the cache alone.
//!
//! Invariants:
//! - `truncated.index <= durable_index <= last_index`;
//! - entries above `durable_index` are all cached.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use prost::Message;
use raft::eraftpb::{Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, RaftState, StorageError};
use rangedb_proto::RangeId;
use rangedb_proto::v1::{RangeDescriptor, RangeState, SnapshotMeta};
use rangedb_storage::{LogChange, LogEngine, StateEngine, keys};

use crate::entry_cache::EntryCache;
use crate::log_size::LogSize;
use crate::membership::conf_state;
use crate::outgoing::{Outgoing, OutgoingView};
use crate::peer::INDEX_MAX;
use crate::planted::planted;
use crate::position::Position;
use crate::view::View;

/// Highest term of a log. Elections never get there, and raft can add to it without overflow.
const TERM_MAX: u64 = u64::MAX >> 1;

/// Format of the records in a snapshot: changes with the formats of the state.
pub(crate) const SNAPSHOT_FORMAT_VERSION: u32 = 2;

/// Entries in flight to disk.
struct Pending {
    ready: u64,
    last_index: u64,
}

pub(crate) struct PeerStorage {
    range: RangeId,
    engine: Arc<dyn LogEngine>,
    state: Arc<dyn StateEngine>,
    hard_state: HardState,
    promise_unwritten: bool,
    commit_unwritten: bool,
    truncated: Position,
    last_index: u64,
    durable_index: u64,
    pending: VecDeque<Pending>,
    cache: EntryCache,
    cache_bytes_max: usize,
    /// The newest entry that the applier is known to have applied. The state may be ahead of it.
    pub applied: Position,
    /// Index of the newest installed snapshot.
    pub snapshot_index: u64,
    /// Descriptor as of the newest entry that is known to be applied.
    pub descriptor: Arc<RangeDescriptor>,
    /// Snapshots in flight. A cell, because raft-rs asks for snapshots through a shared reference.
    outgoing: RefCell<Outgoing>,
    /// Bytes appended since the last flush was requested, and their positions, for truncation.
    size: LogSize,
}

impl PeerStorage {
    /// Opens the log of a replica with this state. Returns also the changes that bring the stored
    /// log in line with the state.
    ///
    /// After a crash the state can be ahead of the log in two ways: raft's commit index is written
    /// lazily, and an installed snapshot is durable before the log is reset.
    pub fn open(
        range: RangeId,
        engine: Arc<dyn LogEngine>,
        state: Arc<dyn StateEngine>,
        from: RangeState,
        cache_bytes_max: usize,
    ) -> Result<(Self, Vec<LogChange>), rangedb_storage::Error> {
        let applied = Position { index: from.applied_index, term: from.applied_term };
        let stored = engine.state(range.0)?.unwrap_or_default();
        let mut log = PeerStorage {
            range,
            engine,
            state,
            hard_state: stored.hard_state,
            promise_unwritten: false,
            commit_unwritten: false,
            truncated: Position { index: stored.truncated_index, term: stored.truncated_term },
            last_index: stored.last_index,
            durable_index: stored.last_index,
            pending: VecDeque::new(),
            cache: EntryCache::default(),
            cache_bytes_max,
            applied,
            snapshot_index: from.snapshot_index,
            descriptor: Arc::new(from.descriptor.unwrap_or_default()),
            outgoing: RefCell::default(),
            size: LogSize::default(),
        };
        let mut changes = Vec::new();
        if !log.holds(applied)? {
            if applied.index != log.snapshot_index {
                return Err(log.lost(applied.index));
            }
            changes.extend(log.reset(applied));
        }
        if log.hard_state.commit > log.last_index {
            return Err(log.lost(log.hard_state.commit));
        }
        if log.hard_state.term > TERM_MAX || log.last_index > INDEX_MAX {
            return Err(rangedb_storage::Error::corrupt(format!(
                "the log of range {range} is in term {} at {}",
                log.hard_state.term, log.last_index
            )));
        }
        if log.hard_state.commit < applied.index {
            log.hard_state.commit = applied.index;
            log.raise_term(applied.term);
            changes.push(log.hard_state_change());
        }
        Ok((log, changes))
    }

    pub fn last_index(&self) -> u64 {
        self.last_index
    }

    pub fn truncated(&self) -> Position {
        self.truncated
    }

    pub fn entries_kept(&self) -> u64 {
        self.last_index - self.truncated.index
    }

    /// Takes in entries and hard state of a ready; they are durable once that ready is persisted.
    pub fn append(
        &mut self,
        ready: u64,
        entries: Vec<Entry>,
        hard_state: Option<&HardState>,
    ) -> Vec<LogChange> {
        let mut changes = Vec::new();
        if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
            let (first, last) = (first.index, last.index);
            assert!(
                first > self.truncated.index && first <= self.last_index + 1,
                "range {}: append at {first} to a log of {}..={}",
                self.range,
                self.truncated.index + 1,
                self.last_index
            );
            assert!(
                first > self.applied.index,
                "range {}: append at {first} would replace applied entries up to {}",
                self.range,
                self.applied.index
            );
            self.cache.append(&entries);
            self.size.append(&entries);
            self.last_index = last;
            self.durable_index = self.durable_index.min(first - 1);
            for pending in &mut self.pending {
                pending.last_index = pending.last_index.min(first - 1);
            }
            self.pending.push_back(Pending { ready, last_index: last });
            changes.push(LogChange::Append { range_id: self.range.0, entries });
        }
        // A term or a vote is a promise and is written at once. The commit index can be found
        // again, so it waits for the next write.
        if let Some(hard_state) = hard_state {
            let (old, new) = (&self.hard_state, hard_state);
            self.promise_unwritten |= old.term != new.term || old.vote != new.vote;
            self.commit_unwritten |= old.commit != new.commit;
            self.hard_state = hard_state.clone();
        }
        if self.promise_unwritten || (self.commit_unwritten && !changes.is_empty()) {
            (self.promise_unwritten, self.commit_unwritten) = (false, false);
            changes.push(self.hard_state_change());
        }
        changes
    }

    /// Marks all readies up to this number as durable.
    pub fn on_persisted(&mut self, ready: u64) {
        while self.pending.front().is_some_and(|pending| pending.ready <= ready) {
            let pending = self.pending.pop_front().expect("just seen");
            self.durable_index = self.durable_index.max(pending.last_index);
        }
        self.cache.shrink(self.durable_index.min(self.applied.index), self.cache_bytes_max);
    }

    /// Marks the entry and all before it as applied.
    pub fn on_applied(&mut self, applied: Position) {
        assert!(
            applied.index >= self.applied.index,
            "range {}: applied {} after {}",
            self.range,
            applied.index,
            self.applied.index
        );
        self.applied = applied;
        self.cache.shrink(self.durable_index.min(applied.index), self.cache_bytes_max);
    }

    /// Drops entries up to `index`, which must be applied and covered by a finished flush.
    pub fn truncate(&mut self, index: u64) -> Result<LogChange, rangedb_storage::Error> {
        assert!(
            index > self.truncated.index && index <= self.applied.index.min(self.durable_index),
            "range {}: truncating to {index} a log truncated to {}, applied to {}, durable to {}",
            self.range,
            self.truncated.index,
            self.applied.index,
            self.durable_index
        );
        let term = self.term_at(index)?;
        self.truncated = Position { index, term };
        self.cache.truncate(index);
        self.size.truncate(index);
        Ok(LogChange::Truncate { range_id: self.range.0, index, term })
    }

    /// Resets the log to begin behind an installed snapshot. Returns the log changes.
    pub fn reset(&mut self, at: Position) -> Vec<LogChange> {
        self.cache.clear();
        self.pending.clear();
        self.size = LogSize::default();
        self.truncated = at;
        self.last_index = at.index;
        self.durable_index = at.index;
        self.hard_state.commit = at.index;
        self.raise_term(at.term);
        let reset = LogChange::Reset { range_id: self.range.0, index: at.index, term: at.term };
        vec![reset, self.hard_state_change()]
    }

    pub fn outgoing(&mut self) -> &mut Outgoing {
        self.outgoing.get_mut()
    }

    pub fn sends_snapshot(&self) -> bool {
        !self.outgoing.borrow().is_empty()
    }

    pub fn size(&mut self) -> &mut LogSize {
        &mut self.size
    }

    /// Raises the term to that of entries from elsewhere. The vote was given in an earlier term, so
    /// it is cleared.
    fn raise_term(&mut self, term: u64) {
        if self.hard_state.term < term {
            (self.hard_state.term, self.hard_state.vote) = (term, 0);
        }
    }

    /// Planted bug: takes this for the state of a view. It counts committed entries, applied or not.
    fn state_in_memory(&self) -> RangeState {
        let index = self.hard_state.commit.min(self.durable_index);
        RangeState {
            descriptor: Some((*self.descriptor).clone()),
            applied_index: index,
            applied_term: self.term_at(index).expect("an entry of the log"),
            ..Default::default()
        }
    }

    fn hard_state_change(&self) -> LogChange {
        LogChange::HardState { range_id: self.range.0, state: self.hard_state.clone() }
    }

    /// True if the entry is in the log, or is the last one truncated.
    fn holds(&self, at: Position) -> Result<bool, rangedb_storage::Error> {
        let within = (self.truncated.index..=self.last_index).contains(&at.index);
        Ok(within && self.term_at(at.index)? == at.term)
    }

    /// Error for acknowledged entries that are gone: a disk has lost synced data.
    fn lost(&self, index: u64) -> rangedb_storage::Error {
        rangedb_storage::Error::corrupt(format!(
            "the log of range {} holds entries {}..={} and had been durable up to {index}",
            self.range,
            self.truncated.index + 1,
            self.last_index
        ))
    }

    fn term_at(&self, index: u64) -> Result<u64, rangedb_storage::Error> {
        if index == self.truncated.index {
            return Ok(self.truncated.term);
        }
        if let Some(entry) = self.cache.get(index) {
            return Ok(entry.term);
        }
        let entries = self.engine.entries(self.range.0, index, index + 1, 0)?;
        entries.first().map(|entry| entry.term).ok_or_else(|| {
            rangedb_storage::Error::corrupt(format!("log of {} has no entry {index}", self.range))
        })
    }
}

fn engine_error(error: rangedb_storage::Error) -> raft::Error {
    raft::Error::Io(std::io::Error::other(error))
}

impl raft::Storage for PeerStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), conf_state(&self.descriptor)))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.truncated.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last_index + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        if low >= high {
            return Ok(Vec::new());
        }
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        match self.cache.first_index() {
            Some(first) if first <= low => Ok(self.cache.slice(low, high, bytes_max)),
            // Return the part before the cache; raft asks again for the rest.
            first => {
                let high = first.map_or(high, |first| first.min(high));
                self.engine.entries(self.range.0, low, high, bytes_max).map_err(engine_error)
            }
        }
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.truncated.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if index > self.last_index {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        self.term_at(index).map_err(engine_error)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.truncated.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last_index)
    }

    /// Describes a snapshot by the index, term and members that its own view shows. raft-rs asks
    /// for snapshots in the middle of its work, when nothing in memory says what the state holds.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let temporarily = || raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable);
        if self.outgoing.borrow().is_streaming(to) {
            return Err(temporarily());
        }
        let view = View::take(&*self.state, self.range).map_err(engine_error)?;
        let Some(View { reader, state }) = view else { return Err(temporarily()) };
        let state = if planted!(SnapshotFromMemory) { self.state_in_memory() } else { state };
        // raft-rs wants a snapshot at this index or later. It is 0, unless a follower requests a
        // snapshot by a message, and `credible.rs` drops such messages.
        if state.applied_index < request_index {
            return Err(temporarily());
        }
        let descriptor = state.descriptor.unwrap_or_default();
        let span = keys::data_span(&descriptor.start_key, &descriptor.end_key);
        let index = state.applied_index;
        self.outgoing.borrow_mut().take(to, index, OutgoingView { reader, span });
        let mut metadata =
            SnapshotMetadata { index, term: state.applied_term, ..Default::default() };
        metadata.set_conf_state(conf_state(&descriptor));
        let meta =
            SnapshotMeta { descriptor: Some(descriptor), format_version: SNAPSHOT_FORMAT_VERSION };
        let mut snapshot = Snapshot { data: meta.encode_to_vec().into(), ..Default::default() };
        snapshot.set_metadata(metadata);
        Ok(snapshot)
    }
}
