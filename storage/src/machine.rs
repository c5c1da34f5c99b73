//! State machine that a range replicates: deterministic, over the state engine.

use bytes::Bytes;

use crate::{Batch, Reader, Result};

/// Context of a command: its range and its log entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApplyContext<'a> {
    /// The range's keys `[start, end)` as of this entry; an empty end has no end.
    pub start_key: &'a [u8],
    pub end_key: &'a [u8],
    /// Timestamp above which commits go: no lower than any read served when the entry was proposed.
    pub fence: u64,
    pub index: u64,
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

    /// Evaluates a command; its writes go to the batch. Returns the encoded reply for the client.
    ///
    /// An error comes from the engine, never from the command: a command that cannot be understood
    /// or obeyed gets a reply that says so.
    fn apply(
        &mut self,
        context: &ApplyContext<'_>,
        command: &[u8],
        batch: &mut Batch<'_>,
    ) -> Result<Bytes>;
}
