//! The seam to the raft logs of all ranges of a node: one append for everything that is waiting.

use raft_proto::eraftpb::{Entry, HardState};

use crate::Result;

/// One step to one range's log.
#[derive(Clone, PartialEq, Debug)]
pub enum LogChange {
    /// Puts entries behind those before them; entries from the first new index on are replaced.
    Append { range_id: u64, entries: Vec<Entry> },
    HardState { range_id: u64, state: HardState },
    /// Drops entries up to and including `index`, whose term stays known.
    Truncate { range_id: u64, index: u64, term: u64 },
    /// Drops all entries: the log begins behind `index`, as after an installed snapshot.
    Reset { range_id: u64, index: u64, term: u64 },
    /// Drops everything of the range, its hard state too.
    Destroy { range_id: u64 },
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

/// What stands of one range's log.
///
/// Invariant: entries `truncated_index + 1 ..= last_index` are there, without a hole.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct LogState {
    pub hard_state: HardState,
    /// The newest dropped entry; 0 if none was.
    pub truncated_index: u64,
    pub truncated_term: u64,
    /// Equal to `truncated_index` if the log holds no entry.
    pub last_index: u64,
}

/// The raft logs of all ranges of a node.
///
/// The contract, which [`crate::MemLog`] and [`crate::RaftEngineLog`] both keep: batches are durable
/// when [`LogEngine::append`] returns, in the order of the calls. A crash during the call leaves all
/// of the batch or nothing. Opening cuts a torn tail, which was never acknowledged; a bad checksum
/// before it is [`crate::Error::Corrupt`].
pub trait LogEngine: Send + Sync {
    /// Writes and syncs. Blocks. After an error nothing may be appended any more.
    fn append(&self, batch: LogBatch) -> Result<()>;

    /// `None` if nothing of the range was ever appended, or it was destroyed.
    fn state(&self, range_id: u64) -> Result<Option<LogState>>;

    /// Entries `[low, high)`, cut short once they reach `bytes_max`, but at least one. All of them
    /// must be there.
    fn entries(&self, range_id: u64, low: u64, high: u64, bytes_max: u64) -> Result<Vec<Entry>>;

    /// Every range with a log, ascending.
    fn ranges(&self) -> Result<Vec<u64>>;

    /// Gives back space of dropped entries. Blocks; called now and then.
    fn purge(&self) -> Result<()>;
}
