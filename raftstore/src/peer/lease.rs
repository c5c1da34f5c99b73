//! Length of the leader's lease: the shortest promise of its voters, never the leader's own settings
//! alone.
//!
//! A follower refuses its vote for an election timeout after it heard the leader, by *its* settings
//! and *its* ticks. Nodes may run with others, if only while their settings are being changed. So
//! every message carries what its sender promises ([`crate::Config::vote_promise_us`]), and the lease
//! is as long as the shortest promise that the voters gave:
//!
//! 1. A round that a quorum answered was answered by voters that were heard since.
//! 2. Each of them gave, with that answer or before it in the same life, a promise that counts from
//!    then on. A later, shorter one shortens the lease; a later, longer one comes from a life whose
//!    vote embargo covers the promises of the life before ([`crate::Options::vote_embargo_us`]).
//! 3. The leader takes the least of the promises of all voters it has heard, and its own.

use rangedb_proto::v1::ReplicaRole;

use super::Peer;
use crate::Monotonic;

impl Peer {
    /// A quorum answered a round that was sent at `sent`, in `term`.
    pub(super) fn renew_lease(&mut self, term: u64, sent: Monotonic, now: Monotonic) {
        #[cfg(feature = "planted")]
        let sent = match rangedb_planted::Bug::LeaseFromResponse.is_planted() {
            true => now,
            false => sent,
        };
        #[cfg(not(feature = "planted"))]
        let _ = now;
        let lasts_us = self.promised_us();
        if let Some(leading) = self.leading.as_mut().filter(|leading| leading.term == term) {
            leading.lease.renew(sent, lasts_us);
        }
    }

    /// The shortest of the promises of the voters heard, and of this one.
    fn promised_us(&self) -> u64 {
        let own = self.config.vote_promise_us();
        #[cfg(feature = "planted")]
        if rangedb_planted::Bug::LeaseByOwnTimings.is_planted() {
            return own;
        }
        let replicas = self.descriptor().replicas.iter();
        let others = replicas
            .filter(|r| r.role() != ReplicaRole::Learner && r.replica_id != self.me.replica_id)
            .filter_map(|voter| self.heard.get(&voter.replica_id))
            .map(|heard| heard.vote_promise_us);
        others.min().map_or(own, |least| least.min(own))
    }
}
