//! Replicas that have applied the same entries hold the same bytes, now or later, and after a crash
//! too. Only old versions may differ: compaction may have dropped them on one replica and not yet
//! on another.

use std::collections::BTreeMap;

use rangedb_proto::RangeId;
use rangedb_storage::{Reader, Span, keys, state_hash_above};

use super::Verdict;

#[derive(Default)]
pub struct ReplicasEqual {
    /// Hash and slot of the first replica that stood at an applied index, by range and index.
    seen: BTreeMap<(RangeId, u64), (u64, usize)>,
}

impl ReplicasEqual {
    /// Checks the hash of a replica's data at its applied index.
    pub fn stands(&mut self, range: RangeId, slot: usize, applied: u64, hash: u64) -> Verdict {
        let (known, by) = *self.seen.entry((range, applied)).or_insert((hash, slot));
        if known != hash {
            return Err(format!(
                "replicas of range {range} on node-{by} and node-{slot} differ at entry {applied}"
            ));
        }
        Ok(())
    }
}

/// Returns the hash of a range's data without the versions that compaction may have dropped: those
/// below the range's own `collect_below_ts`.
pub fn hash_of_what_is_kept(state: &dyn Reader, span: &Span) -> rangedb_storage::Result<u64> {
    let start_key = match &span.start[..] {
        [] => Vec::new().into(),
        start => keys::parse_user_key(start)?,
    };
    let collects_below = rangedb_txn::floors(state, &start_key)?.collect_below_ts;
    state_hash_above(state, span, collects_below.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_may_differ_only_at_different_entries() {
        let mut replicas = ReplicasEqual::default();
        assert_eq!(replicas.stands(RangeId(1), 0, 5, 1), Ok(()));
        assert_eq!(replicas.stands(RangeId(1), 1, 5, 1), Ok(()));
        assert_eq!(replicas.stands(RangeId(1), 1, 6, 2), Ok(()));
        assert_eq!(replicas.stands(RangeId(2), 1, 5, 3), Ok(()));
        assert!(replicas.stands(RangeId(1), 2, 5, 3).is_err());
        assert!(replicas.stands(RangeId(1), 0, 5, 2).is_err(), "nor later, in another life");
    }
}
