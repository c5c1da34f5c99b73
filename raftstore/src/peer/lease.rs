//! Length of the leader's lease: the shortest promise of its voters, never the leader's own
//! settings alone.
//!
//! A follower refuses its vote for an election timeout after it heard the leader, by its own
//! settings and its own ticks. Nodes may run with different settings, if only while the settings
//! are being changed. So every message carries its sender's promise
//! ([`crate::Config::vote_promise_us`]), and the lease is as long as the shortest promise of the
//! voters:
//!
//! 1. When a quorum answers a round, the leader has heard from each of these voters since it sent
//!    the round.
//! 2. Each of them gave, with that answer or earlier in the same run, a promise that counts from
//!    then on. A later, shorter promise shortens the lease. A later, longer one comes from a run
//!    whose vote embargo covers the promises of the run before
//!    ([`crate::Options::vote_embargo_us`]).
//! 3. The leader takes the minimum of its own promise and those of all voters that it has heard.

use rangedb_proto::v1::ReplicaRole;

use super::Peer;
use crate::Monotonic;
use crate::planted::planted;

impl Peer {
    /// Renews the lease after a quorum answered a round sent at `sent`, in `term`.
    pub(super) fn renew_lease(&mut self, term: u64, sent: Monotonic, now: Monotonic) {
        let sent = if planted!(LeaseFromResponse) { now } else { sent };
        let lasts_us = self.promised_us();
        if let Some(leading) = self.leading.as_mut().filter(|leading| leading.term == term) {
            leading.lease.renew(sent, lasts_us);
        }
    }

    /// Shortest promise of this replica and the voters that it has heard.
    fn promised_us(&self) -> u64 {
        let own = self.config.vote_promise_us();
        if planted!(LeaseByOwnTimings) {
            return own;
        }
        let replicas = self.descriptor().replicas.iter();
        let others = replicas
            .filter(|r| r.role() != ReplicaRole::Learner && r.replica_id != self.me.replica_id)
            .filter_map(|voter| self.heard.get(&voter.replica_id))
            .map(|heard| heard.said.vote_promise_us);
        others.min().map_or(own, |least| least.min(own))
    }
}
