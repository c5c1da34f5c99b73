//! No stale read under a lease: while a leader serves reads on its lease, no later leader has applied
//! anything of its own.
//!
//! Looked at where the reader is taken, so that it does not depend on a client who asks the wrong
//! node at the right moment.

use std::collections::BTreeMap;

use super::Verdict;

#[derive(Default)]
pub struct LeaseReads {
    /// The newest term in which a leader of the range has applied an entry of its own, and its node.
    newest: BTreeMap<u64, (u64, u64)>,
    served: u64,
}

impl LeaseReads {
    /// A node leads a range and has applied an entry of its term.
    pub fn leads(&mut self, range: u64, term: u64, node: u64) {
        let newest = self.newest.entry(range).or_default();
        *newest = (*newest).max((term, node));
    }

    /// A node that leads a range in a term gives out a reader under its lease.
    pub fn served(&mut self, range: u64, term: u64, node: u64) -> Verdict {
        self.served += 1;
        match self.newest.get(&range) {
            Some((newest, leader)) if *newest > term => Err(format!(
                "node {node} serves a read of range {range} under a lease of term {term}, while \
                 node {leader} leads in term {newest}"
            )),
            _ => Ok(()),
        }
    }

    /// Reads that were served under a lease.
    pub fn count(&self) -> u64 {
        self.served
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_outlives_its_leader_is_caught() {
        let mut reads = LeaseReads::default();
        reads.leads(1, 2, 1);
        assert_eq!(reads.served(1, 2, 1), Ok(()));
        reads.leads(2, 5, 2);
        assert_eq!(reads.served(1, 2, 1), Ok(()));
        reads.leads(1, 3, 2);
        assert!(reads.served(1, 2, 1).is_err());
        assert_eq!(reads.served(1, 3, 2), Ok(()));
    }
}
