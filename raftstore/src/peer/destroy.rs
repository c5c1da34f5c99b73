//! The end of a replica that is no longer a member, and how members and former members tell each
//! other so. A tombstone stays, so that a late message does not bring the replica back.

use std::collections::BTreeMap;

use prost::Message as _;
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{RangeDescriptor, Replica, ReplicaCheck, Tombstone, raft_envelope::Body};
use rangedb_storage::{ColumnFamily, LogChange, keys};

use super::Peer;
use crate::pass::Pass;
use crate::{Effect, Error};

impl Peer {
    /// Tells a replica that it is no longer a member.
    pub(super) fn tell_removed(&self, gone: Replica, pass: &mut Pass<'_>) {
        let descriptor = (**self.descriptor()).clone();
        pass.effects.push(Effect::Send(self.envelope(gone, Body::Removed(descriptor))));
    }

    /// Answers a replica that may have missed its own removal. True if it is known to be removed.
    pub fn answer_if_removed(&self, from: Replica, pass: &mut Pass<'_>) -> bool {
        let descriptor = self.descriptor();
        // An id from the future belongs to a change that is not applied here yet.
        let removed = self.is_initialized()
            && from.replica_id < descriptor.next_replica_id
            && descriptor.replica(from.replica_id).is_none();
        if removed {
            self.tell_removed(from, pass);
        }
        removed
    }

    /// A member's descriptor says that some replica is gone. True if it is this one.
    pub fn is_removed_by(&self, descriptor: &RangeDescriptor) -> bool {
        descriptor.range_id == self.range.0
            && descriptor.epoch().conf_ver > self.descriptor().epoch().conf_ver
            && self.me.replica_id < descriptor.next_replica_id
            && descriptor.replica(self.me.replica_id).is_none()
    }

    /// Asks every replica known here whether this one is still a member.
    pub(super) fn ask_whether_member(&self, pass: &mut Pass<'_>) {
        let heard = self.heard.values().map(|heard| heard.replica);
        let known = self.descriptor().replicas.iter().copied().chain(heard);
        let others: BTreeMap<u64, Replica> = known.map(|r| (r.replica_id, r)).collect();
        for replica in others.into_values().filter(|r| r.replica_id != self.me.replica_id) {
            pass.effects.push(Effect::Send(self.envelope(replica, Body::Check(ReplicaCheck {}))));
        }
    }

    /// Removes all that is stored of this replica and answers all who wait for it.
    pub fn destroy(mut self, pass: &mut Pass<'_>) {
        let range_id = self.range.0;
        if self.is_initialized() {
            for cf in ColumnFamily::DATA {
                pass.behind.delete_span(cf, self.span());
            }
            pass.behind.delete(ColumnFamily::Meta, keys::range_state(range_id));
        }
        let tombstone = Tombstone { replica_ids_below: self.me.replica_id + 1 };
        let value = tombstone.encode_to_vec();
        pass.behind.put(ColumnFamily::Meta, keys::tombstone(range_id), value);
        pass.log.changes.push(LogChange::Destroy { range_id });
        pass.structural = true;

        let gone = Error::RangeNotFound(self.range);
        let mut answers = self.refuse_waiting(&gone);
        answers.extend(self.refuse_reads(&gone));
        answers.extend(self.give_up_in_flight());
        answers.extend(self.fail_operation());
        for answer in answers {
            pass.answer(answer);
        }
        if self.is_leader() {
            pass.effects.push(Effect::SteppedDown { range: self.range });
        }
    }
}
