//! Departure of a replica that is no longer a member, and why it does not leave at once.
//!
//! A voter that left is still needed while some members know only the configuration in which it had
//! a vote: if the leader fails then, they cannot elect another without it. So it stays, without
//! standing for election or serving anyone, until the leader says [`Body::Removed`]. The leader says
//! so once a majority of the voters has the change committed: from then on whoever can be elected
//! knows that the vote does not count.
//!
//! A replica that hears no leader for long asks ([`Body::Check`]); so does, in effect, one that stands
//! for election without being a member. Only the leader can answer, and followers pass the question
//! on to it. If none of those that the replica knows is left, the control plane names others
//! ([`crate::Event::Elsewhere`]).
//!
//! Nobody's word alone destroys a replica. [`Body::Removed`] is a claim, which anybody who reaches this
//! node could make. The replica goes once the control plane has confirmed it: its directory has a
//! descriptor, no older than the replica's own, that leaves it out.

use std::collections::BTreeMap;

use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{
    RaftEnvelope, RangeDescriptor, Replica, ReplicaCheck, ReplicaRole, raft_envelope::Body,
};

use super::Peer;
use crate::Effect;
use crate::pass::Pass;

/// Departed replicas remembered at most. One that is forgotten asks.
const DEPARTING_MAX: usize = 16;

impl Peer {
    /// Was a member, and is not any more.
    pub fn has_departed(&self) -> bool {
        self.is_initialized() && self.descriptor().replica(self.me.replica_id).is_none()
    }

    /// Remembers who of these is no longer a member, to tell them if this replica leads.
    pub(super) fn note_departures(&mut self, before: &[Replica]) {
        let descriptor = self.descriptor().clone();
        let left = |id: u64| id != self.me.replica_id && descriptor.replica(id).is_none();
        let gone: Vec<_> = before.iter().copied().filter(|r| left(r.replica_id)).collect();
        self.departing.extend(gone);
        let surplus = self.departing.len().saturating_sub(DEPARTING_MAX);
        self.departing.drain(..surplus);
    }

    /// Tells those who left, or leaves, once that is safe.
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

    /// A replica asks whether it is a member, or behaves as one that missed its removal. True if it
    /// is known not to be.
    pub fn on_check(&mut self, from: Replica, forwarded: bool, pass: &mut Pass) -> bool {
        let descriptor = self.descriptor();
        // An id from the future belongs to a change that is not applied here yet.
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
            pass.effects.push(Effect::Send(RaftEnvelope {
                range_id: self.range.0,
                from: Some(from),
                to: Some(leader),
                epoch: descriptor.epoch,
                // It speaks for another: no promise.
                vote_promise_us: 0,
                body: Some(Body::Check(ReplicaCheck { forwarded: true })),
            }));
        }
        true
    }

    /// A descriptor that leaves some replica out. True if it is this one.
    pub fn is_removed_by(&self, descriptor: &RangeDescriptor) -> bool {
        descriptor.range_id == self.range.0
            && descriptor.epoch().conf_ver >= self.descriptor().epoch().conf_ver
            && self.me.replica_id < descriptor.next_replica_id
            && descriptor.replica(self.me.replica_id).is_none()
    }

    /// Somebody says that this replica is no member any more.
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

    /// The control plane knows members of the range, and not this one. Confirms a claim; without
    /// one, this replica asks the members, unless it hears a leader, who knows better.
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

    /// Asks a leader that speaks of a newer replica on this node.
    pub fn ask_whether_removed(&self, leader: Replica, pass: &mut Pass) {
        self.ask(std::iter::once(leader), pass);
    }

    fn ask(&self, replicas: impl Iterator<Item = Replica>, pass: &mut Pass) {
        for replica in replicas.filter(|r| r.replica_id != self.me.replica_id) {
            let check = Body::Check(ReplicaCheck { forwarded: false });
            pass.effects.push(Effect::Send(self.envelope(replica, check)));
        }
    }

    fn tell_removed(&self, gone: Replica, pass: &mut Pass) {
        let descriptor = (**self.descriptor()).clone();
        pass.effects.push(Effect::Send(self.envelope(gone, Body::Removed(descriptor))));
    }

    /// True if a majority of the voters has committed the newest membership change, as this leader
    /// knows it. In a joint configuration nobody leaves.
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
