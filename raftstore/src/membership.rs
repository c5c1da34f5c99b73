//! Conversion between a descriptor's replicas and raft's configuration.
//!
//! The descriptor is the one truth: raft's configuration is always made from it. A change that
//! touches more than one voter takes two entries. The first enters the joint configuration, in
//! which a quorum of the old and a quorum of the new voters decide; the second leaves it. raft-rs
//! proposes the second by itself. Raft paper section 6, raft thesis section 4.3.

use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
};
use rangedb_proto::v1::{RangeDescriptor, Replica, ReplicaRole};

/// Raft's configuration for the replicas of a descriptor.
pub(crate) fn conf_state(descriptor: &RangeDescriptor) -> ConfState {
    let mut conf = ConfState::default();
    for replica in &descriptor.replicas {
        let id = replica.replica_id;
        match replica.role() {
            ReplicaRole::Voter => {
                conf.voters.push(id);
                conf.voters_outgoing.push(id);
            }
            ReplicaRole::IncomingVoter => conf.voters.push(id),
            ReplicaRole::OutgoingVoter => conf.voters_outgoing.push(id),
            ReplicaRole::Learner => conf.learners.push(id),
        }
    }
    let joint = descriptor
        .replicas
        .iter()
        .any(|r| matches!(r.role(), ReplicaRole::IncomingVoter | ReplicaRole::OutgoingVoter));
    if joint {
        conf.auto_leave = true;
    } else {
        conf.voters_outgoing.clear();
    }
    conf
}

/// True if these can be the replicas of a range. Ids are issued and used once, roles are known, and
/// there is a voter, in a joint configuration one on each side.
pub(crate) fn are_sound(replicas: &[Replica], next_replica_id: u64) -> bool {
    let mut ids: Vec<u64> = replicas.iter().map(|replica| replica.replica_id).collect();
    ids.sort_unstable();
    let once = ids.windows(2).all(|pair| pair[0] < pair[1]);
    let given = ids.iter().all(|id| (1..next_replica_id).contains(id));
    let known = replicas.iter().all(|replica| ReplicaRole::try_from(replica.role).is_ok());
    let conf = conf_state(&RangeDescriptor { replicas: replicas.to_vec(), ..Default::default() });
    let decided = !conf.voters.is_empty() && (!conf.auto_leave || !conf.voters_outgoing.is_empty());
    once && given && known && decided
}

/// True if both have the same voters, outgoing voters and learners.
pub(crate) fn same_members(a: &ConfState, b: &ConfState) -> bool {
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    sorted(&a.voters) == sorted(&b.voters)
        && sorted(&a.voters_outgoing) == sorted(&b.voters_outgoing)
        && sorted(&a.learners) == sorted(&b.learners)
}

/// A step from one set of replicas to another.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    AddLearner(Replica),
    /// Promote a learner and remove a voter. Either may be absent.
    Replace {
        promote: Option<u64>,
        remove: Option<u64>,
    },
    RemoveLearner(u64),
}

impl Change {
    /// The replicas once the change's entry is applied.
    pub fn replicas_after(&self, before: &[Replica]) -> Vec<Replica> {
        let mut after = before.to_vec();
        match self {
            Change::AddLearner(replica) => after.push(*replica),
            Change::RemoveLearner(id) => after.retain(|r| r.replica_id != *id),
            Change::Replace { promote, remove } => {
                let joint = promote.is_some() && remove.is_some();
                for replica in &mut after {
                    if Some(replica.replica_id) == *promote {
                        let role =
                            if joint { ReplicaRole::IncomingVoter } else { ReplicaRole::Voter };
                        replica.set_role(role);
                    }
                    if joint && Some(replica.replica_id) == *remove {
                        replica.set_role(ReplicaRole::OutgoingVoter);
                    }
                }
                if !joint {
                    after.retain(|r| Some(r.replica_id) != *remove);
                }
            }
        }
        after
    }

    /// Returns the single step from one set of replicas to the other, if there is one.
    pub fn between(before: &[Replica], after: &[Replica]) -> Option<Change> {
        let only_in = |these: &[Replica], those: &[Replica]| {
            let mut only = these.iter().filter(|this| !has(those, this.replica_id));
            (only.next().copied(), only.next().is_none())
        };
        let promoted = after.iter().find(|r| {
            let was = before.iter().find(|b| b.replica_id == r.replica_id);
            was.is_some_and(|b| b.role() == ReplicaRole::Learner)
                && r.role() != ReplicaRole::Learner
        });
        let outgoing = after.iter().find(|r| r.role() == ReplicaRole::OutgoingVoter);
        let ((added, one_added), (removed, one_removed)) =
            (only_in(after, before), only_in(before, after));
        if !one_added || !one_removed {
            return None;
        }
        let step = match (added, removed, promoted, outgoing) {
            (Some(added), None, None, None) => Change::AddLearner(added),
            (None, Some(removed), None, None) if removed.role() == ReplicaRole::Learner => {
                Change::RemoveLearner(removed.replica_id)
            }
            (None, removed, promoted, outgoing) => Change::Replace {
                promote: promoted.map(|replica| replica.replica_id),
                remove: removed.or(outgoing.copied()).map(|replica| replica.replica_id),
            },
            _ => return None,
        };
        (step.replicas_after(before) == after).then_some(step)
    }

    /// Converts the change to raft-rs's form.
    pub fn conf_change(&self) -> ConfChangeV2 {
        let single = |kind: ConfChangeType, id: u64| {
            let mut single = ConfChangeSingle::default();
            single.set_change_type(kind);
            single.node_id = id;
            single
        };
        let mut changes = Vec::new();
        match self {
            Change::AddLearner(r) => {
                changes.push(single(ConfChangeType::AddLearnerNode, r.replica_id));
            }
            Change::RemoveLearner(id) => changes.push(single(ConfChangeType::RemoveNode, *id)),
            Change::Replace { promote, remove } => {
                changes.extend(promote.map(|id| single(ConfChangeType::AddNode, id)));
                changes.extend(remove.map(|id| single(ConfChangeType::RemoveNode, id)));
            }
        }
        let mut change = ConfChangeV2::default();
        change.set_transition(ConfChangeTransition::Auto);
        change.set_changes(changes.into());
        change
    }
}

fn has(replicas: &[Replica], id: u64) -> bool {
    replicas.iter().any(|replica| replica.replica_id == id)
}

/// The replicas once the joint configuration is left.
pub(crate) fn replicas_after_joint(before: &[Replica]) -> Vec<Replica> {
    let mut after = before.to_vec();
    after.retain(|r| r.role() != ReplicaRole::OutgoingVoter);
    for replica in &mut after {
        if replica.role() == ReplicaRole::IncomingVoter {
            replica.set_role(ReplicaRole::Voter);
        }
    }
    after
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(id: u64, role: ReplicaRole) -> Replica {
        Replica { replica_id: id, node_id: id, role: role.into() }
    }

    fn conf(replicas: Vec<Replica>) -> (Vec<u64>, Vec<u64>, Vec<u64>, bool) {
        let c = conf_state(&RangeDescriptor { replicas, ..Default::default() });
        (c.voters, c.voters_outgoing, c.learners, c.auto_leave)
    }

    #[test]
    fn replacing_a_voter_passes_through_both_quorums() {
        let before = vec![
            replica(1, ReplicaRole::Voter),
            replica(2, ReplicaRole::Voter),
            replica(3, ReplicaRole::Learner),
        ];
        let change = Change::Replace { promote: Some(3), remove: Some(2) };
        let joint = change.replicas_after(&before);
        assert_eq!(conf(joint.clone()), (vec![1, 3], vec![1, 2], vec![], true));
        let after = replicas_after_joint(&joint);
        assert_eq!(conf(after), (vec![1, 3], vec![], vec![], false));
    }

    #[test]
    fn a_step_is_found_between_the_replicas_before_and_after_it() {
        use ReplicaRole::{Learner, Voter};
        let before = vec![replica(1, Voter), replica(2, Voter), replica(3, Learner)];
        let steps = [
            Change::AddLearner(replica(4, Learner)),
            Change::RemoveLearner(3),
            Change::Replace { promote: Some(3), remove: Some(2) },
            Change::Replace { promote: Some(3), remove: None },
            Change::Replace { promote: None, remove: Some(2) },
        ];
        for step in steps {
            let after = step.replicas_after(&before);
            assert_eq!(Change::between(&before, &after), Some(step));
        }
        assert_eq!(Change::between(&before, &[replica(1, Voter)]), None, "two steps");
        assert_eq!(Change::between(&before, &[replica(4, Voter)]), None);
    }

    #[test]
    fn replicas_without_a_quorum_or_with_ids_from_nowhere_are_not_sound() {
        use ReplicaRole::{IncomingVoter, Learner, OutgoingVoter, Voter};
        let sound = [replica(1, Voter), replica(2, IncomingVoter), replica(3, OutgoingVoter)];
        assert!(are_sound(&sound, 4));
        assert!(!are_sound(&sound, 3), "an id that was not handed out");
        assert!(!are_sound(&[replica(0, Voter)], 4));
        assert!(!are_sound(&[replica(1, Voter), replica(1, Voter)], 4));
        assert!(!are_sound(&[], 4));
        assert!(!are_sound(&[replica(1, Learner)], 4));
        assert!(!are_sound(&[replica(1, IncomingVoter)], 4), "nobody decided before");
        assert!(!are_sound(&[replica(1, OutgoingVoter)], 4), "nobody decides after");
        let unknown = Replica { role: 9, ..replica(2, Voter) };
        assert!(!are_sound(&[replica(1, Voter), unknown], 4));
    }

    #[test]
    fn promoting_alone_is_one_step() {
        let before = vec![replica(1, ReplicaRole::Voter), replica(2, ReplicaRole::Learner)];
        let change = Change::Replace { promote: Some(2), remove: None };
        assert_eq!(conf(change.replicas_after(&before)), (vec![1, 2], vec![], vec![], false));
    }
}
