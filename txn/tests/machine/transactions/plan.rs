//! Plan of a transaction in these tests.

use std::collections::BTreeMap;

use bytes::Bytes;
use rangedb_proto::v1::{Delete, Operation, Put, operation::Body};

use super::cluster::range_of;
use crate::support::operation;

pub const KEYS: [&[u8]; 8] = [b"a", b"b", b"b\x00", b"c", b"m", b"n", b"o", b"o\xff"];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    OneRange,
    TwoPhase,
    /// Two phases, over keys that were locked before.
    Pessimistic,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub kind: Kind,
    pub serializable: bool,
    /// The transaction commits as soon as all of its locks stand, and validates no reads.
    pub asynchronous: bool,
    /// Spans that the transaction reads first, each in one range. An empty end: just the key.
    pub reads: Vec<(Bytes, Bytes)>,
    /// Writes after the reads; `None` deletes. No two written values are the same.
    pub writes: BTreeMap<Bytes, Option<Bytes>>,
    pub primary: Bytes,
}

impl Plan {
    pub fn draw(rng: &mut fastrand::Rng, start_ts: u64) -> Self {
        let kind = [Kind::OneRange, Kind::TwoPhase, Kind::TwoPhase, Kind::Pessimistic];
        let kind = kind[rng.usize(0..kind.len())];
        let within = match (kind, rng.bool()) {
            (Kind::OneRange, false) => 0..4,
            (Kind::OneRange, true) => 4..8,
            _ => 0..8,
        };
        let key = |rng: &mut fastrand::Rng| Bytes::from_static(KEYS[rng.usize(within.clone())]);
        let mut reads = Vec::new();
        for _ in 0..rng.usize(0..4) {
            let (start, end) = (key(rng), key(rng));
            let is_span = start < end && range_of(&start) == range_of(&end) && rng.bool();
            reads.push((start, if is_span { end } else { Bytes::new() }));
        }
        let mut writes = BTreeMap::new();
        for place in 0..rng.usize(1..5) {
            let padding = if rng.u32(0..4) == 0 { 600 } else { 0 };
            let value = format!("{start_ts}.{place}{:padding$}", "");
            writes.insert(key(rng), (rng.u32(0..4) > 0).then(|| value.into()));
        }
        let mut keys = writes.keys().cloned();
        let primary = keys.nth(rng.usize(0..writes.len())).expect("it writes something");
        if kind == Kind::TwoPhase && rng.u32(0..10) == 0 {
            // Only reads.
            writes.clear();
        }
        let serializable = rng.u32(0..2) > 0;
        let asynchronous =
            !serializable && kind != Kind::OneRange && !writes.is_empty() && rng.u32(0..3) > 0;
        Plan { kind, serializable, asynchronous, reads, writes, primary }
    }

    pub fn operations(&self, range: usize) -> Vec<Operation> {
        let own = self.writes.iter().filter(|(key, _)| range_of(key) == range);
        let to_operation = |(key, value): (&Bytes, &Option<Bytes>)| {
            let key = key.clone();
            operation(match value.clone() {
                Some(value) => Body::Put(Put { key, value, lease_id: 0 }),
                None => Body::Delete(Delete { key }),
            })
        };
        own.map(to_operation).collect()
    }

    pub fn keys(&self, range: usize) -> Vec<Bytes> {
        self.writes.keys().filter(|key| range_of(key) == range).cloned().collect()
    }

    /// Keys that the transaction writes beside its primary.
    pub fn secondaries(&self) -> Vec<Bytes> {
        self.writes.keys().filter(|key| **key != self.primary).cloned().collect()
    }

    /// Ranges that the transaction writes, the primary's first.
    pub fn ranges(&self) -> Vec<usize> {
        let primary = range_of(&self.primary);
        let mut ranges = vec![primary, 1 - primary];
        ranges.retain(|range| !self.keys(*range).is_empty());
        ranges
    }
}
