//! Hash of the data in a span, to compare replicas by.

use crate::{ColumnFamily, Direction, Reader, Result, Span, is_collectable};

/// FNV-1a, 64 bits: the same in every process and for ever, which the standard hasher does not
/// promise. It finds differences, and does not withstand an adversary.
struct Fnv(u64);

impl Fnv {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;

    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(Self::PRIME);
        }
    }
}

/// Hashes every record of the span in [`ColumnFamily::DATA`]. The result is equal for replicas that
/// applied the same entries, as long as no compaction filter has dropped anything.
pub fn state_hash(state: &dyn Reader, span: &Span) -> Result<u64> {
    state_hash_above(state, span, 0)
}

/// Hashes like [`state_hash`], without records that compaction may have dropped under this bound or
/// a lower one. The result is equal for replicas that applied the same entries, whatever their
/// compactions, if `bound` is no lower than the bound of each replica in the span.
pub fn state_hash_above(state: &dyn Reader, span: &Span, bound: u64) -> Result<u64> {
    let mut hash = Fnv(Fnv::OFFSET);
    for cf in ColumnFamily::DATA {
        hash.update(&[cf as u8]);
        let mut records = state.scan(cf, &span.start, &span.end, Direction::Forward)?;
        while let Some((key, value)) = records.next()? {
            if is_collectable(cf, value, bound) {
                continue;
            }
            hash.update(&(key.len() as u64).to_le_bytes());
            hash.update(&(value.len() as u64).to_le_bytes());
            hash.update(key);
            hash.update(value);
        }
    }
    Ok(hash.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemState, StateEngine, WriteBatch};

    fn state(records: &[(ColumnFamily, &'static str, &'static str)]) -> MemState {
        let state = MemState::new();
        let mut batch = WriteBatch::default();
        for (cf, key, value) in records {
            batch.put(*cf, *key, *value);
        }
        state.write(batch).unwrap();
        state
    }

    #[test]
    fn the_hash_depends_on_family_key_value_and_their_borders_and_not_on_meta() {
        use ColumnFamily::{Current, History, Meta};
        let everything = Span::everything();
        let hash = |records| state_hash(&state(records), &everything).unwrap();
        let ab = hash(&[(Current, "a", "b")]);
        assert_eq!(ab, hash(&[(Current, "a", "b"), (Meta, "r/", "x")]));
        for other in [
            hash(&[]),
            hash(&[(History, "a", "b")]),
            hash(&[(Current, "ab", "")]),
            hash(&[(Current, "a", "c")]),
            hash(&[(Current, "a", "b"), (Current, "b", "")]),
        ] {
            assert_ne!(ab, other);
        }
    }

    #[test]
    fn the_hash_stops_at_the_ends_of_the_span() {
        use ColumnFamily::Current;
        let span = Span { start: "b".into(), end: "d".into() };
        let inner = state_hash(&state(&[(Current, "b", "1")]), &span).unwrap();
        let more = state(&[(Current, "a", "0"), (Current, "b", "1"), (Current, "d", "2")]);
        assert_eq!(inner, state_hash(&more, &span).unwrap());
    }
}
