//! Replicas that have applied the same entries hold the same bytes.

use std::collections::BTreeMap;

use super::Verdict;

/// A replica at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicaState {
    pub slot: usize,
    pub applied_index: u64,
    /// Of all its data.
    pub hash: u64,
}

/// Compares the replicas of one range.
pub fn check(range: u64, replicas: &[ReplicaState]) -> Verdict {
    let mut by_index = BTreeMap::new();
    for replica in replicas {
        let other = *by_index.entry(replica.applied_index).or_insert(*replica);
        if other.hash != replica.hash {
            return Err(format!(
                "replicas of range {range} on node-{} and node-{} differ at entry {}",
                other.slot, replica.slot, replica.applied_index
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_may_differ_only_at_different_entries() {
        let replica = |slot, applied_index, hash| ReplicaState { slot, applied_index, hash };
        assert_eq!(check(1, &[replica(0, 5, 1), replica(1, 5, 1), replica(2, 6, 2)]), Ok(()));
        assert!(check(1, &[replica(0, 5, 1), replica(1, 6, 2), replica(2, 5, 3)]).is_err());
    }
}
