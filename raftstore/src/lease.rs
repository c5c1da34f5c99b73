//! The leader's lease: the time in which no other leader can have committed anything.
//!
//! 1. A quorum's answer to a round proves that the quorum followed this leader at some moment after
//!    the round was sent.
//! 2. From then on each follower refuses its vote for an election timeout. CheckQuorum and PreVote
//!    are on, and only a later leader makes a follower forget this one: see `peer/step.rs`.
//! 3. So the lease runs from the moment of *sending*. Measured from the answer, it could outlast
//!    the followers' refusal.
//!
//! Raft thesis, 6.4.1.
//!
//! Rounds are ReadIndex heartbeats and committed proposals of the current term. Once a leadership
//! transfer has begun, there is no lease for the rest of the term: the votes of a transfer ignore
//! the followers' refusal, and the message that asks for them may arrive at any later time.

use crate::Monotonic;
use crate::planted::planted;

#[derive(Debug, Default)]
pub(crate) struct Lease {
    until: Option<Monotonic>,
    given_up: bool,
}

impl Lease {
    /// Renews the lease after a quorum answered a round sent at `sent`.
    pub fn renew(&mut self, sent: Monotonic, lasts_us: u64) {
        let until = Monotonic(sent.0 + lasts_us);
        self.until = self.until.max(Some(until));
    }

    /// Ends the lease for the rest of the term.
    pub fn give_up(&mut self) {
        if planted!(LeaseKeptInTransfer) {
            return;
        }
        self.given_up = true;
    }

    /// Returns the end of the lease, if it is in the future.
    pub fn valid_until(&self, now: Monotonic) -> Option<Monotonic> {
        self.until.filter(|until| now < *until && !self.given_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_from_the_moment_of_sending() {
        let mut lease = Lease::default();
        lease.renew(Monotonic(100), 50);
        assert_eq!(lease.valid_until(Monotonic(149)), Some(Monotonic(150)));
        assert_eq!(lease.valid_until(Monotonic(150)), None);
    }

    #[test]
    fn an_older_round_does_not_shorten_it() {
        let mut lease = Lease::default();
        lease.renew(Monotonic(100), 50);
        lease.renew(Monotonic(80), 50);
        assert_eq!(lease.valid_until(Monotonic(140)), Some(Monotonic(150)));
    }

    #[test]
    fn once_given_up_no_round_revives_it() {
        let mut lease = Lease::default();
        lease.renew(Monotonic(100), 50);
        lease.give_up();
        lease.renew(Monotonic(121), 50);
        assert_eq!(lease.valid_until(Monotonic(122)), None);
    }
}
