//! No stale reads:
//! - While a leader serves reads under its lease, no later leader has applied an entry of its own
//!   term.
//! - A read that came in after a later leader had applied such an entry is not served by the
//!   earlier one at all, whatever the quorum is said to have answered. The entry is in the logs of
//!   a quorum, so no ReadIndex round sent afterwards can be confirmed.
//!
//! The check observes the moment when the reader is taken. So it does not depend on a client that
//! asks the wrong node at the right moment.

use std::collections::BTreeMap;

use rangedb_raftstore::RequestId;

use super::Verdict;
use crate::occurrence::Host;

/// A read as its process identifies it.
type Read = (Host, RequestId);

#[derive(Default)]
pub struct LeaseReads {
    /// Newest term in which a leader of a range has applied an entry of its own, and its node, by
    /// range.
    newest: BTreeMap<u64, (u64, u64)>,
    /// Newest term and its leader when each read came in. Few reads stay for ever without being
    /// served.
    came: BTreeMap<Read, (u64, u64)>,
    served: u64,
}

impl LeaseReads {
    /// Notes that a node leads a range and has applied an entry of its term.
    pub fn leads(&mut self, range: u64, term: u64, node: u64) {
        let newest = self.newest.entry(range).or_default();
        *newest = (*newest).max((term, node));
    }

    /// Notes that a read of a range came to a store.
    pub fn came(&mut self, read: Read, range: u64) -> Verdict {
        self.came.insert(read, self.newest_of(range));
        Ok(())
    }

    /// Checks a reader that the leader of a range in a term gives out, under its lease or confirmed
    /// by a quorum.
    pub fn served(
        &mut self,
        read: Read,
        (range, term, node): (u64, u64, u64),
        leased: bool,
    ) -> Verdict {
        let came = self.came.remove(&read).unwrap_or_default();
        self.served += u64::from(leased);
        let (newest, leader) = if leased { self.newest_of(range) } else { came };
        if newest > term {
            let how = if leased { "under a lease of" } else { "that came too late for" };
            return Err(format!(
                "node {node} serves a read of range {range} {how} term {term}, while node {leader} \
                 leads in term {newest}"
            ));
        }
        Ok(())
    }

    fn newest_of(&self, range: u64) -> (u64, u64) {
        self.newest.get(&range).copied().unwrap_or_default()
    }

    /// Number of reads that were served under a lease.
    pub fn count(&self) -> u64 {
        self.served
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Host = Host::Slot(0);

    #[test]
    fn a_lease_that_outlives_its_leader_is_caught() {
        let mut reads = LeaseReads::default();
        let served = |reads: &mut LeaseReads, by| reads.served((AT, 1), by, true);
        reads.leads(1, 2, 1);
        assert_eq!(served(&mut reads, (1, 2, 1)), Ok(()));
        reads.leads(2, 5, 2);
        assert_eq!(served(&mut reads, (1, 2, 1)), Ok(()));
        reads.leads(1, 3, 2);
        assert!(served(&mut reads, (1, 2, 1)).is_err());
        assert_eq!(served(&mut reads, (1, 3, 2)), Ok(()));
    }

    #[test]
    fn a_confirmed_read_that_came_after_a_later_leader_is_caught_and_one_from_before_is_not() {
        let mut reads = LeaseReads::default();
        reads.leads(1, 2, 1);
        assert_eq!(reads.came((AT, 1), 1), Ok(()));
        reads.leads(1, 3, 2);
        assert_eq!(reads.came((AT, 2), 1), Ok(()));
        assert_eq!(reads.served((AT, 1), (1, 2, 1), false), Ok(()));
        assert!(reads.served((AT, 2), (1, 2, 1), false).is_err());
    }
}
