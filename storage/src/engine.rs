//! Interface to the applied state: column families, batches, readers, and the guarantees after a
//! crash.

use std::sync::Arc;

use bytes::Bytes;

use crate::Result;

/// A keyspace of its own within the state, with its own tuning. One batch, one flush and one
/// snapshot cover all families.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum ColumnFamily {
    /// Escaped key -> its newest committed version.
    Current = 0,
    /// Escaped key ++ descending mod_ts -> a superseded version.
    History = 1,
    /// Escaped key ++ start_ts -> a value too long to stand in its record.
    Value = 2,
    /// Escaped key -> an uncommitted write, or a rollback record.
    Lock = 3,
    /// Range descriptors, applied indexes, tombstones. Keyed by range, not by user key.
    Meta = 4,
}

impl ColumnFamily {
    pub const ALL: [ColumnFamily; 5] = [
        ColumnFamily::Current,
        ColumnFamily::History,
        ColumnFamily::Value,
        ColumnFamily::Lock,
        ColumnFamily::Meta,
    ];
    /// The families keyed by user key, which a range's snapshot holds.
    pub const DATA: [ColumnFamily; 4] =
        [ColumnFamily::Current, ColumnFamily::History, ColumnFamily::Value, ColumnFamily::Lock];

    /// Name in RocksDB and in error messages.
    pub fn name(self) -> &'static str {
        match self {
            ColumnFamily::Current => "current",
            ColumnFamily::History => "history",
            ColumnFamily::Value => "value",
            ColumnFamily::Lock => "lock",
            ColumnFamily::Meta => "meta",
        }
    }

    /// Returns the family with this number, which snapshots use.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|cf| *cf as u32 == number)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Forward,
    Reverse,
}

/// Stored keys `[start, end)`; an empty `end` has no end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Span {
    pub start: Bytes,
    pub end: Bytes,
}

/// Iterator over records of one family, in the requested direction.
pub trait Records {
    /// Returns the next record, valid until the next call. `None` at the end, and ever after.
    fn next(&mut self) -> Result<Option<(&[u8], &[u8])>>;
}

/// Reads of the state.
pub trait Reader: Send + Sync {
    fn get(&self, cf: ColumnFamily, key: &[u8]) -> Result<Option<Bytes>>;

    /// Iterates over records with keys in `[start, end)`; an empty `end` has no end.
    fn scan<'a>(
        &'a self,
        cf: ColumnFamily,
        start: &[u8],
        end: &[u8],
        direction: Direction,
    ) -> Result<Box<dyn Records + 'a>>;
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    Put {
        cf: ColumnFamily,
        key: Bytes,
        value: Bytes,
    },
    Delete {
        cf: ColumnFamily,
        key: Bytes,
    },
    /// Drops every record of the family in the span, without reading them.
    DeleteSpan {
        cf: ColumnFamily,
        span: Span,
    },
}

/// Writes that become visible together, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WriteBatch {
    pub writes: Vec<Write>,
}

impl WriteBatch {
    pub fn put(&mut self, cf: ColumnFamily, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.writes.push(Write::Put { cf, key: key.into(), value: value.into() });
    }

    pub fn delete(&mut self, cf: ColumnFamily, key: impl Into<Bytes>) {
        self.writes.push(Write::Delete { cf, key: key.into() });
    }

    pub fn delete_span(&mut self, cf: ColumnFamily, span: Span) {
        self.writes.push(Write::DeleteSpan { cf, span });
    }

    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Bytes of keys and values, to bound what a pass may collect.
    pub fn bytes(&self) -> usize {
        self.writes
            .iter()
            .map(|write| match write {
                Write::Put { key, value, .. } => key.len() + value.len(),
                Write::Delete { key, .. } => key.len(),
                Write::DeleteSpan { span, .. } => span.start.len() + span.end.len(),
            })
            .sum()
    }
}

/// Staging of a received snapshot's records, which no [`Reader`] sees. If it is dropped without
/// [`Staging::finish`], or a crash comes first, the records are discarded.
pub trait Staging: Send {
    /// Appends records, which must come in ascending key order within their family.
    fn add(&mut self, cf: ColumnFamily, records: &[(Bytes, Bytes)]) -> Result<()>;
    /// Makes the staged records durable, ready for [`StateEngine::install`].
    fn finish(self: Box<Self>) -> Result<StagedSnapshot>;
}

/// Handle of staged records, which an event can carry. The engine that staged the records knows
/// where they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StagedSnapshot {
    pub id: u64,
    pub records: u64,
}

/// Replacement of a range's data by a staged snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Install {
    pub staged: StagedSnapshot,
    /// Emptied in every family of [`ColumnFamily::DATA`] before the staged records go in.
    pub span: Span,
    /// New descriptor and applied index, written together with the records.
    pub meta: WriteBatch,
}

/// The applied state of all ranges of a node.
///
/// Contract of [`crate::MemState`] and [`crate::RocksState`]:
/// - every later read sees a batch as a whole; after a crash the whole batch is there, or nothing
///   of it;
/// - a crash leaves a prefix of the batches, at least all written before the last finished
///   [`StateEngine::flush`] began;
/// - [`StateEngine::install`] is one such batch, and is durable when it returns.
pub trait StateEngine: Reader {
    /// Returns a reader of the current state, which later writes do not change.
    fn snapshot(&self) -> Arc<dyn Reader>;

    /// Writes a batch: visible when this returns, durable after a flush.
    fn write(&self, batch: WriteBatch) -> Result<()>;

    /// Makes everything written before this call durable. Blocks.
    fn flush(&self) -> Result<()>;

    /// Begins to stage a snapshot's records.
    fn stage(&self) -> Result<Box<dyn Staging>>;

    /// Replaces a span by staged records, atomically also through a crash. Blocks. Concurrent
    /// writes must not touch the span; they count as later than the install.
    ///
    /// # Errors
    /// [`crate::Error::Full`] and [`crate::Error::Refused`]: nothing has changed. After any other
    /// error the state must not be read any more. Opening it again finishes the install, or finds
    /// it not begun.
    fn install(&self, install: Install) -> Result<()>;

    /// Deletes staged records.
    fn discard(&self, staged: StagedSnapshot) -> Result<()>;

    /// Estimates the bytes that the data families take up for the span, for people and schedulers.
    fn approximate_bytes(&self, span: &Span) -> Result<u64>;
}

/// Garbage collection by compaction, while files are rewritten anyway.
pub trait Compaction {
    /// Lets compaction drop, in the span of stored keys, records that no reader sees at the bound,
    /// a timestamp: see [`crate::is_collectable`].
    ///
    /// The bound is in force once a flush that begins after this call has finished. Only calls of
    /// [`StateEngine::flush`] count, not flushes that an engine begins by itself. No call lowers a
    /// bound. CollectBounds are lost when the process ends, and forgotten in the span of an install. At
    /// first they are 0 everywhere.
    ///
    /// The caller guarantees, for each replica whose data is in the span:
    /// - no reader reads at or below the bound, held snapshots included. The sender of a view to
    ///   another replica, which continues from the view, checks [`Compaction::collected_up_to`];
    /// - no command that the replica has still to apply looks at or below the bound: the replica
    ///   has applied the entry that raised its floor to the bound, and the floor governs all later
    ///   entries. Entries that other replicas of the range have applied, and decisions of the
    ///   control plane, do not count: a lagging replica has still to reach the same results from
    ///   the records that the others saw;
    /// - the bound belongs to the replica that is there now, not to one that was destroyed since.
    ///
    /// Replicas differ from each other only in records at or below their bounds:
    /// [`crate::state_hash_above`] compares them.
    fn set_collect_below(&self, span: &Span, bound: u64);

    /// Returns the highest bound of [`Compaction::set_collect_below`] that was in force at any key
    /// of the span since the state was opened, including bounds that an install made forgotten. A
    /// caller that has read from a snapshot and asks afterwards knows that no record above it was
    /// missing.
    fn collected_up_to(&self, span: &Span) -> u64;
}
