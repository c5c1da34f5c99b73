//! State machine that a range replicates: deterministic, over the state engine.

use bytes::Bytes;

use crate::{Batch, Reader, Record, Result};

/// Context of a command: its range, its log entry, and whether its changes are listened to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApplyContext<'a> {
    /// The range's keys `[start, end)` as of this entry; an empty end has no end.
    pub start_key: &'a [u8],
    pub end_key: &'a [u8],
    /// Timestamp above which commits go: no lower than any read served when the entry was proposed.
    pub fence: u64,
    pub index: u64,
    /// True if [`Applied::changes`] is wanted. Neither the reply nor the writes depend on it.
    pub with_changes: bool,
}

/// Output of one command.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// Encoded reply for the client.
    pub reply: Bytes,
    /// Changes that the command made, each key's in their order. Empty unless
    /// [`ApplyContext::with_changes`] asks for them.
    pub changes: Vec<Change>,
}

/// Change of one key by one command. Every replica reports the same changes for an entry, also when
/// it applies the entry a second time after a crash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The key got a new version. Its commit timestamp is `after.mod_ts`, its transaction's start
    /// timestamp `after.start_ts`.
    Version {
        key: Bytes,
        /// The version that it supersedes. `None` also for a deletion that garbage collection may
        /// have dropped on some replicas.
        before: Option<Record>,
        /// The new version. A long value stands apart from it, under the key and `start_ts`.
        after: Record,
    },
    /// A transaction took a lock, or the lock that it has was changed.
    Locked {
        key: Bytes,
        start_ts: u64,
        /// Lowest timestamp at which the transaction may commit.
        min_commit_ts: u64,
        /// True if a write stands under the lock. The others only reserve their keys.
        is_write: bool,
    },
    /// A transaction's lock was removed. A version follows if the transaction committed a write.
    Unlocked { key: Bytes, start_ts: u64 },
}

/// Size of a range: its keys that have a value, without deletions and without history.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RangeSize {
    pub rows: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

/// One range's replicated logic.
///
/// Apply must depend only on the state that it reads through the batch, the context, the command,
/// and memory that it can rebuild from the state. Every replica gets the same entries and must end
/// up with the same bytes. A replica that restarts gets some entries a second time, on an older
/// state.
pub trait StateMachine: Send {
    /// Rebuilds memory from the state. Called before the first apply, and again whenever a snapshot
    /// has replaced the state.
    fn load(&mut self, state: &dyn Reader, start_key: &[u8], end_key: &[u8]) -> Result<()>;

    /// Evaluates a command; its writes go to the batch.
    ///
    /// An error comes from the engine, never from the command: a command that cannot be understood
    /// or obeyed gets a reply that says so.
    fn apply(
        &mut self,
        context: &ApplyContext<'_>,
        command: &[u8],
        batch: &mut Batch<'_>,
    ) -> Result<Applied>;

    /// Returns the size of the range after the commands so far.
    fn size(&self) -> RangeSize;
}
