//! Log writes and effects that one pass over the touched peers gathers.

use std::collections::BTreeSet;

use rangedb_proto::{RangeId, ReplicaId};
use rangedb_storage::LogBatch;

use crate::peer::Answer;
use crate::{Effect, Monotonic};

pub(crate) struct Pass {
    pub now: Monotonic,
    pub log: LogBatch,
    /// Readies that are durable once this pass's append is.
    pub persisting: Vec<(RangeId, ReplicaId, u64)>,
    pub effects: Vec<Effect>,
    /// Replicas that are no longer members, to be destroyed at the end of the pass.
    pub removed: BTreeSet<RangeId>,
}

impl Pass {
    pub fn new(now: Monotonic) -> Self {
        Pass {
            now,
            log: LogBatch::default(),
            persisting: Vec::new(),
            effects: Vec::new(),
            removed: BTreeSet::new(),
        }
    }

    pub fn answer(&mut self, (request, result): Answer) {
        self.effects.push(Effect::Reply { request, result });
    }
}
