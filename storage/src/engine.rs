//! The seam to the applied state: column families, batches, readers and what a crash may lose.

use std::sync::Arc;

use bytes::Bytes;

use crate::Result;

/// A keyspace of its own within the state, with its own tuning. All of them move together: one
/// batch, one flush and one snapshot cover them all.
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
    /// The families keyed by user key: what a range's snapshot holds.
    pub const DATA: [ColumnFamily; 4] =
        [ColumnFamily::Current, ColumnFamily::History, ColumnFamily::Value, ColumnFamily::Lock];

    /// As RocksDB and error messages name it.
    pub fn name(self) -> &'static str {
        match self {
            ColumnFamily::Current => "current",
            ColumnFamily::History => "history",
            ColumnFamily::Value => "value",
            ColumnFamily::Lock => "lock",
            ColumnFamily::Meta => "meta",
        }
    }

    /// The family with this number, as snapshots carry it.
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

/// A walk over records of one family, in the order of the direction asked for.
pub trait Records {
    /// The next record, valid until the next call. `None` at the end, and ever after.
    fn next(&mut self) -> Result<Option<(&[u8], &[u8])>>;
}

/// Reads of the state.
pub trait Reader: Send + Sync {
    fn get(&self, cf: ColumnFamily, key: &[u8]) -> Result<Option<Bytes>>;

    /// Records with keys in `[start, end)`; an empty `end` has no end.
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

    /// Bytes of keys and values, as a bound on what a pass may gather.
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

/// Records of a snapshot on their way in. Nothing of them is visible to a [`Reader`]; dropped
/// without [`Staging::finish`], or left by a crash, they are thrown away.
pub trait Staging: Send {
    /// Appends records, which must come in ascending key order within their family.
    fn add(&mut self, cf: ColumnFamily, records: &[(Bytes, Bytes)]) -> Result<()>;
    /// Makes the staged records durable, ready for [`StateEngine::install`].
    fn finish(self: Box<Self>) -> Result<StagedSnapshot>;
}

/// Staged records, named so that an event can carry them. The engine that staged them knows where
/// they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StagedSnapshot {
    pub id: u64,
    pub records: u64,
}

/// Replacing a range's data by a staged snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Install {
    pub staged: StagedSnapshot,
    /// Emptied in every family of [`ColumnFamily::DATA`] before the staged records go in.
    pub span: Span,
    /// Written together with the records: the new descriptor and applied index.
    pub meta: WriteBatch,
}

/// The applied state of all ranges of a node.
///
/// The contract, which [`crate::MemState`] and [`crate::RocksState`] both keep:
/// - a batch is visible to every later read as a whole, or, after a crash, not at all;
/// - batches survive a crash in order: some prefix of them, which holds at least all that were
///   written before the last finished [`StateEngine::flush`] began;
/// - [`StateEngine::install`] is one such batch, and is durable when it returns.
pub trait StateEngine: Reader {
    /// The state as it is now, unmoved by later writes.
    fn snapshot(&self) -> Arc<dyn Reader>;

    /// Visible when this returns; durable after a flush.
    fn write(&self, batch: WriteBatch) -> Result<()>;

    /// Makes everything written before this call durable. Blocks.
    fn flush(&self) -> Result<()>;

    /// Begins to take in a snapshot's records.
    fn stage(&self) -> Result<Box<dyn Staging>>;

    /// Replaces a span by staged records, all or nothing, also through a crash. Blocks. Writes made
    /// at the same time must not touch the span; they count as after it.
    ///
    /// # Errors
    /// [`crate::Error::Full`] and [`crate::Error::Refused`]: nothing has changed. After any other
    /// the state must not be read any more; opening it again finishes the install, or finds it not
    /// begun.
    fn install(&self, install: Install) -> Result<()>;

    /// Throws staged records away.
    fn discard(&self, staged: StagedSnapshot) -> Result<()>;

    /// Bytes that the data families take up for the span; an estimate for people and schedulers.
    fn approximate_bytes(&self, span: &Span) -> Result<u64>;
}

/// Dropping what is out of sight while files are rewritten anyway.
pub trait Compaction {
    /// Lets compaction drop what is out of sight at the bound, a timestamp, in the span of stored
    /// keys: see [`crate::is_collectable`]. In force once a flush that begins after this call has
    /// finished ([`StateEngine::flush`]; those that an engine makes of its own accord do not count),
    /// never lowered by a call, lost when the process ends, and forgotten in the span of an install. At
    /// first it is 0 everywhere.
    ///
    /// The caller guarantees, for each replica whose data stands in the span:
    /// - nobody reads at or below the bound, snapshots that are held included; who streams one to
    ///   another replica, which goes on from it, asks [`Compaction::collected_up_to`];
    /// - no command that it has still to apply looks at or below the bound: it has applied the entry
    ///   that raised its floor there, and entries behind that are judged by the floor. What other
    ///   replicas of the range have applied, or what the control plane decided, does not count: one
    ///   that lags has still to come to the same results over what the others saw;
    /// - the bound is of the replica that stands there now, not of one that was destroyed since.
    ///
    /// Replicas differ from each other in records at or below their bounds and nowhere else:
    /// [`crate::state_hash_above`] compares them.
    fn set_collect_below(&self, span: &Span, bound: u64);

    /// The highest bound of [`Compaction::set_collect_below`] that was in force at any key of the span
    /// since the state was opened, also if an install has made it forgotten. Whoever has read from a
    /// snapshot and asks afterwards knows that nothing above it was missing.
    fn collected_up_to(&self, span: &Span) -> u64;
}
