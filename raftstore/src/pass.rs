//! Log writes and effects collected in one pass over the touched peers.

use std::collections::BTreeSet;

use bytes::Bytes;
use rangedb_proto::{RangeId, ReplicaId};
use rangedb_storage::LogBatch;

use crate::{Answer, Effect, Error, Io, Monotonic, RequestId, RoleChange};

pub(crate) struct Pass {
    pub now: Monotonic,
    pub log: LogBatch,
    /// Readies that this pass's append makes durable.
    pub persisting: Vec<(RangeId, ReplicaId, u64)>,
    pub effects: Vec<Effect>,
    /// Ranges whose replica here is no longer a member, to be destroyed at the end of the pass.
    pub removed: BTreeSet<RangeId>,
    /// Bytes of entries that followers still accept while their disk is short of room.
    pub reserve_bytes_left: u64,
}

impl Pass {
    pub fn new(now: Monotonic, reserve_bytes_left: u64) -> Self {
        Pass {
            now,
            log: LogBatch::default(),
            persisting: Vec::new(),
            effects: Vec::new(),
            removed: BTreeSet::new(),
            reserve_bytes_left,
        }
    }

    pub fn io(&mut self, io: Io) {
        self.effects.push(Effect::Io(io));
    }

    pub fn role(&mut self, change: RoleChange) {
        self.effects.push(Effect::Role(change));
    }

    pub fn answer(&mut self, answer: Answer) {
        self.effects.push(Effect::Answer(answer));
    }

    pub fn reply(&mut self, request: RequestId, result: std::result::Result<Bytes, Error>) {
        self.answer(Answer::Reply { request, result });
    }
}
