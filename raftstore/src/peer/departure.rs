//! Departure of a replica that is no longer a member.
//!
//! A removed voter is still needed while some members know only the configuration in which it had a
//! vote: if the leader fails then, they cannot elect another without it. So the replica stays,
//! without standing for election or serving requests, until the leader sends [`Body::Removed`]. The
//! leader sends this once a majority of the voters has the change committed. From then on every
//! electable replica knows that the vote does not count.
//!
//! A replica that hears no leader for long asks the others ([`Body::Check`]). A vote request from a
//! non-member counts as the same question. Only the leader can answer; followers forward the
//! question to it. If none of the replicas known to the asker is left, the control plane names
//! others ([`crate::Event::DescriptorHint`]).
//!
//! No single message destroys a replica. [`Body::Removed`] is a claim, and any sender that reaches
//! this node could make it. The replica goes once the control plane has confirmed the claim: the
//! directory has a descriptor, no older than the replica's own, that leaves the replica out.

use std::collections::BTreeMap;

use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{
    RaftEnvelope, RangeDescriptor, Replica, ReplicaCheck, ReplicaRole, raft_envelope::Body,
};

use super::Peer;
use crate::Io;
use crate::pass::Pass;

/// Most departed replicas remembered. A forgotten one asks by itself.
const DEPARTING_MAX: usize = 16;

impl Peer {
    /// True if the replica was a member and no longer is.
    pub fn has_departed(&self) -> bool {
        self.is_initialized() && self.descriptor().replica(self.me.replica_id).is_none()
    }

    /// Remembers the replicas of `before` that are no longer members, to tell them if this replica
    /// leads.
    pub(super) fn note_departures(&mut self, before: &[Replica]) {
        let descriptor = self.descriptor().clone();
        let left = |id: u64| id != self.me.replica_id && descriptor.replica(id).is_none();
        let gone: Vec<_> = before.iter().copied().filter(|r| left(r.replica_id)).collect();
        self.departing.extend(gone);
        let surplus = self.departing.len().saturating_sub(DEPARTING_MAX);
        self.departing.drain(..surplus);
    }

    /// Tells removed replicas that they are removed, and destroys this one if it was removed, once
    /// that is safe.
    pub(super) fn tick_departure(&mut self, pass: &mut Pass) {
        if !self.is_raft_leader() || !self.majority_knows_membership() {
            return;
        }
        for gone in std::mem::take(&mut self.departing) {
            self.tell_removed(gone, pass);
        }
        if self.has_departed() {
            pass.removed.insert(self.range);
        }
    }

    /// Answers a replica that asks whether it is a member, or that behaves as if it missed its
    /// removal. True if the sender is known not to be a member.
    pub fn on_check(&mut self, from: Replica, forwarded: bool, pass: &mut Pass) -> bool {
        let descriptor = self.descriptor();
        // A higher id belongs to a change that is not applied here yet.
        let removed = self.is_initialized()
            && from.replica_id < descriptor.next_replica_id
            && descriptor.replica(from.replica_id).is_none();
        if !removed {
            return false;
        }
        if self.is_raft_leader() {
            if self.majority_knows_membership() {
                self.tell_removed(from, pass);
            }
        } else if let Some(leader) = self.leader().filter(|_| !forwarded) {
            pass.io(Io::Send(RaftEnvelope {
                range_id: self.range.0,
                from: Some(from),
                to: Some(leader),
                epoch: descriptor.epoch,
                // The message speaks for another replica: no promise.
                vote_promise_us: 0,
                short_of_room: false,
                body: Some(Body::Check(ReplicaCheck { forwarded: true })),
            }));
        }
        true
    }

    /// True if the descriptor leaves this replica out and is no older than its own.
    pub fn is_removed_by(&self, descriptor: &RangeDescriptor) -> bool {
        descriptor.range_id == self.range.0
            && descriptor.epoch().conf_ver >= self.descriptor().epoch().conf_ver
            && self.me.replica_id < descriptor.next_replica_id
            && descriptor.replica(self.me.replica_id).is_none()
    }

    /// Notes a claim that this replica is no longer a member.
    pub fn on_removal_claimed(&mut self) {
        self.removal_claimed = true;
    }

    /// Asks every replica known here whether this one is still a member.
    pub(super) fn ask_whether_member(&self, pass: &mut Pass) {
        let heard = self.heard.values().map(|heard| heard.replica);
        let known = self.descriptor().replicas.iter().copied().chain(heard);
        let others: BTreeMap<u64, Replica> = known.map(|r| (r.replica_id, r)).collect();
        self.ask(others.into_values(), pass);
    }

    /// Handles a descriptor of the control plane that does not list this replica. It confirms a
    /// claim of removal. Without a claim this replica asks the members, unless it hears a leader,
    /// who knows better.
    pub fn on_elsewhere(&self, descriptor: &RangeDescriptor, pass: &mut Pass) {
        if !self.is_removed_by(descriptor) {
            return;
        }
        if self.removal_claimed {
            pass.removed.insert(self.range);
        } else if self.leaderless_ticks > self.config.election_ticks {
            self.ask(descriptor.replicas.iter().copied(), pass);
        }
    }

    /// Asks a leader that addressed a newer replica on this node.
    pub fn ask_whether_removed(&self, leader: Replica, pass: &mut Pass) {
        self.ask(std::iter::once(leader), pass);
    }

    fn ask(&self, replicas: impl Iterator<Item = Replica>, pass: &mut Pass) {
        for replica in replicas.filter(|r| r.replica_id != self.me.replica_id) {
            let check = Body::Check(ReplicaCheck { forwarded: false });
            pass.io(Io::Send(self.envelope(replica, check)));
        }
    }

    fn tell_removed(&self, gone: Replica, pass: &mut Pass) {
        let descriptor = (**self.descriptor()).clone();
        pass.io(Io::Send(self.envelope(gone, Body::Removed(Box::new(descriptor)))));
    }

    /// True if a majority of the voters has committed the newest membership change, as far as this
    /// leader knows. False in a joint configuration, in which nobody leaves.
    fn majority_knows_membership(&self) -> bool {
        if self.descriptor().in_joint_change() || self.applied().index < self.membership_index {
            return false;
        }
        let knows = |replica: &&Replica| {
            let progress = self.raw.raft.prs().get(replica.replica_id);
            replica.replica_id == self.me.replica_id
                || progress.is_some_and(|p| p.committed_index >= self.membership_index)
        };
        let replicas = self.descriptor().replicas.iter();
        let voters: Vec<_> = replicas.filter(|r| r.role() == ReplicaRole::Voter).collect();
        voters.iter().copied().filter(|replica| knows(replica)).count() * 2 > voters.len()
    }
}
