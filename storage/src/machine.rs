//! State machine that a range replicates: deterministic, over the state engine.

use bytes::Bytes;

use crate::{Batch, Reader, Result};

/// What the log says about the entry a command stands in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApplyContext<'a> {
    /// The range's keys `[start, end)` as of this entry; an empty end has no end.
    pub start_key: &'a [u8],
    pub end_key: &'a [u8],
    /// Highest read timestamp that had been served when the entry was proposed; commits go above.
    pub fence: u64,
    pub index: u64,
}

/// One range's replicated logic.
///
/// Apply must depend on nothing but the state it reads through the batch, the context, the command,
/// and memory that it can rebuild from the state: every replica gets the same entries and must end
/// up with the same bytes, and a replica that restarts gets some of them a second time from an older
/// state.
pub trait StateMachine: Send {
    /// Called before the first apply, and again whenever the state was replaced by a snapshot.
    fn load(&mut self, state: &dyn Reader, start_key: &[u8], end_key: &[u8]) -> Result<()>;

    /// Evaluates a command; its writes go to the batch. Returns the encoded reply for the client.
    ///
    /// An error is the engine's, never the command's: a command that cannot be understood or obeyed
    /// has a reply that says so.
    fn apply(
        &mut self,
        context: &ApplyContext<'_>,
        command: &[u8],
        batch: &mut Batch<'_>,
    ) -> Result<Bytes>;
}
