//! What one pass over the touched peers gathers: their state writes in one batch, their log writes
//! in one append, and effects that leave once the state is written.

use std::collections::BTreeSet;

use rangedb_proto::{RangeId, ReplicaId};
use rangedb_storage::{Batch, LogBatch, Result, StateEngine, WriteBatch};

use crate::peer::Answer;
use crate::{Effect, Monotonic};

pub(crate) struct Pass<'a> {
    pub now: Monotonic,
    pub state: &'a dyn StateEngine,
    pub batch: Batch<'a>,
    /// Written behind the batch: spans of destroyed replicas.
    pub behind: WriteBatch,
    pub log: LogBatch,
    /// Readies that are durable once this pass's append is.
    pub persisting: Vec<(RangeId, ReplicaId, u64)>,
    pub effects: Vec<Effect>,
    /// The shape of a range changed: flush before any effect leaves (design D3).
    pub structural: bool,
    /// Replicas that are no longer members, to be destroyed at the end of the pass.
    pub removed: BTreeSet<RangeId>,
}

impl<'a> Pass<'a> {
    pub fn new(now: Monotonic, state: &'a dyn StateEngine) -> Self {
        Pass {
            now,
            state,
            batch: Batch::new(state),
            behind: WriteBatch::default(),
            log: LogBatch::default(),
            persisting: Vec::new(),
            effects: Vec::new(),
            structural: false,
            removed: BTreeSet::new(),
        }
    }

    pub fn answer(&mut self, (request, result): Answer) {
        self.effects.push(Effect::Reply { request, result });
    }

    /// Makes what was applied so far visible to readers of the engine.
    pub fn write_state(&mut self) -> Result<()> {
        let mut batch = self.batch.take();
        batch.writes.append(&mut self.behind.writes);
        if batch.is_empty() {
            return Ok(());
        }
        self.state.write(batch)
    }
}
