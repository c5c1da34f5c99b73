//! Interface to the raft logs of all ranges of a node: one append for everything that is waiting.

use protobuf::Message;
use raft_proto::eraftpb::{Entry, HardState};

use crate::Result;

/// One change to one range's log.
#[derive(Clone, PartialEq, Debug)]
pub enum LogChange {
    /// Appends entries, which replace those from their first index on. Their indexes are
    /// consecutive. The first is neither dropped already nor above the next free index.
    Append {
        range_id: u64,
        entries: Vec<Entry>,
    },
    HardState {
        range_id: u64,
        state: HardState,
    },
    /// Drops entries up to and including `index`, whose term stays known. Does nothing if they are
    /// dropped already.
    Truncate {
        range_id: u64,
        index: u64,
        term: u64,
    },
    /// Drops all entries: the log begins behind `index`, as after an installed snapshot.
    Reset {
        range_id: u64,
        index: u64,
        term: u64,
    },
    /// Drops everything of the range, its hard state included.
    Destroy {
        range_id: u64,
    },
}

/// Changes that become durable together, in order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct LogBatch {
    pub changes: Vec<LogChange>,
}

impl LogBatch {
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub fn extend(&mut self, other: LogBatch) {
        self.changes.extend(other.changes);
    }
}

/// State of one range's log.
///
/// Invariant: entries `truncated_index + 1 ..= last_index` exist, without a hole.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct LogState {
    pub hard_state: HardState,
    /// The newest dropped entry; 0 if none was dropped.
    pub truncated_index: u64,
    pub truncated_term: u64,
    /// Equal to `truncated_index` if the log holds no entry.
    pub last_index: u64,
}

/// Effects of changes on the state. Every engine uses these methods, so that all engines refuse the
/// same changes. A change that breaks the invariant is a bug of the caller that would lose entries:
/// it panics.
impl LogState {
    pub(crate) fn append(&mut self, range_id: u64, entries: &[Entry]) {
        let first = entries[0].index;
        let (truncated, last) = (self.truncated_index, self.last_index);
        assert!(
            truncated < first && first <= last + 1,
            "range {range_id}: entry {first} appended to a log of {truncated}+1..={last}"
        );
        for (entry, index) in entries.iter().zip(first..) {
            let found = entry.index;
            assert!(found == index, "range {range_id}: entry {found} appended in place of {index}");
        }
        self.last_index = first + entries.len() as u64 - 1;
    }

    /// Drops entries up to `index`. False if there was nothing to drop.
    pub(crate) fn truncate(&mut self, range_id: u64, index: u64, term: u64) -> bool {
        let (truncated, last) = (self.truncated_index, self.last_index);
        assert!(index <= last, "range {range_id}: {index} truncated of {truncated}+1..={last}");
        if index <= truncated {
            return false;
        }
        (self.truncated_index, self.truncated_term) = (index, term);
        true
    }

    pub(crate) fn reset(&mut self, index: u64, term: u64) {
        (self.truncated_index, self.truncated_term, self.last_index) = (index, term, index);
    }

    pub(crate) fn check_read(state: Option<&LogState>, range_id: u64, low: u64, high: u64) {
        let (truncated, last) = state.map_or((0, 0), |s| (s.truncated_index, s.last_index));
        assert!(
            truncated < low && low <= high && high <= last + 1,
            "range {range_id}: entries {low}..{high} read from a log of {truncated}+1..={last}"
        );
    }
}

/// Returns the first entries that together stay within `bytes_max` encoded bytes, but at least one.
pub(crate) fn entries_within(entries: impl Iterator<Item = Entry>, bytes_max: u64) -> Vec<Entry> {
    let mut bytes = 0;
    let fits = |entry: &Entry| {
        let first = bytes == 0;
        bytes += u64::from(entry.compute_size());
        first || bytes <= bytes_max
    };
    entries.take_while(fits).collect()
}

/// The raft logs of all ranges of a node.
///
/// Contract of [`crate::MemLog`] and [`crate::RaftEngineLog`]:
/// - batches are durable when [`LogEngine::append`] returns, in the order of the calls;
/// - a crash during the call leaves all of the batch or nothing;
/// - opening cuts a torn tail, which was never acknowledged; a bad checksum before it is
///   [`crate::Error::Corrupt`].
pub trait LogEngine: Send + Sync {
    /// Writes and syncs. Blocks. After an error nothing may be appended any more, except after
    /// [`crate::Error::Full`]: then nothing was written, and the batch may be appended later.
    fn append(&self, batch: LogBatch) -> Result<()>;

    /// Returns the state of a range's log. `None` if nothing was ever appended, or the range was
    /// destroyed.
    fn state(&self, range_id: u64) -> Result<Option<LogState>>;

    /// Returns entries `[low, high)`: as many from the first on as stay within `bytes_max` encoded
    /// bytes, but at least one. All of them must exist: a call for others is a bug and panics.
    fn entries(&self, range_id: u64, low: u64, high: u64, bytes_max: u64) -> Result<Vec<Entry>>;

    /// Returns every range with a log, in ascending order.
    fn ranges(&self) -> Result<Vec<u64>>;

    /// Gives back the space of dropped entries. Blocks; called now and then.
    fn purge(&self) -> Result<()>;
}
