//! No stale read: while a leader serves reads on its lease, no later leader has applied anything of
//! its own; and a read that came in when a later leader had is not served at all, whatever the quorum
//! is said to have answered. That leader's entry is in a quorum's logs, so no round that is sent
//! afterwards can be confirmed.
//!
//! Looked at where the reader is taken, so that it does not depend on a client who asks the wrong
//! node at the right moment.

use std::collections::BTreeMap;

use rangedb_raftstore::RequestId;

use super::Verdict;
use crate::occurrence::Host;

/// A read as its process knows it.
type Read = (Host, RequestId);

#[derive(Default)]
pub struct LeaseReads {
    /// The newest term in which a leader of the range has applied an entry of its own, and its node.
    newest: BTreeMap<u64, (u64, u64)>,
    /// What that was when a read came in. Those that are never served are few.
    came: BTreeMap<Read, (u64, u64)>,
    served: u64,
}

impl LeaseReads {
    /// A node leads a range and has applied an entry of its term.
    pub fn leads(&mut self, range: u64, term: u64, node: u64) {
        let newest = self.newest.entry(range).or_default();
        *newest = (*newest).max((term, node));
    }

    /// A store takes a read of a range in.
    pub fn came(&mut self, read: Read, range: u64) -> Verdict {
        self.came.insert(read, self.newest_of(range));
        Ok(())
    }

    /// A node that leads a range in a term gives out a reader, under its lease or confirmed.
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

    /// Reads that were served under a lease.
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
