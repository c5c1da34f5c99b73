//! Scheduler of replicas: a pure function from a view of the cluster to one step. A step carries
//! the epoch under which it was decided, and is refused under another. So deciding twice, or from
//! old reports, does no harm.
//!
//! The aim is min(replication factor, living nodes) voters, each on a living node. The scheduler
//! takes one step at a time: it adds a learner first. Once the learner has caught up, one joint
//! change promotes it and removes the voter that it replaces. A voter on a dead node stays as long
//! as no other node can replace it: the node may come back, and with its data the range survives
//! the loss of another node.

use std::collections::{BTreeMap, BTreeSet};

use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{
    AddLearner, RangeDescriptor, RangeOperation, RangeReport, RemoveReplica, ReplaceVoter, Replica,
    ReplicaRole, TransferLeader, range_operation::Body,
};

/// State of the cluster for the scheduler, beside the report of the range.
pub struct View {
    pub replication_factor: usize,
    /// Nodes that are neither dead nor removed, with the number of replicas on each.
    pub living: BTreeMap<u64, usize>,
    /// Nodes that were silent for too long. Dead nodes may come back, removed nodes do not.
    pub dead: BTreeSet<u64>,
    /// Living nodes that were heard of within the last moments: a new replica may be placed there.
    pub reachable: BTreeSet<u64>,
}

impl View {
    /// Voters on living nodes that a range should have.
    fn voters_wanted(&self) -> usize {
        self.replication_factor.min(self.living.len()).max(1)
    }

    /// True if the range has fewer voters on living nodes than it should have.
    pub fn lacks_voters(&self, descriptor: &RangeDescriptor) -> bool {
        let voters = descriptor.replicas.iter().filter(|r| r.role() == ReplicaRole::Voter);
        let living = voters.filter(|voter| self.living.contains_key(&voter.node_id));
        living.count() < self.voters_wanted()
    }
}

/// Next step for a range that its leader reported, with a description in words.
pub fn next_step(view: &View, report: &RangeReport) -> Option<(RangeOperation, String)> {
    let descriptor = report.descriptor.as_ref()?;
    if report.in_joint_change || descriptor.in_joint_change() {
        return None;
    }
    let body = Planner { view, report, descriptor }.plan()?;
    let words = describe(&body);
    let (range_id, epoch) = (descriptor.range_id, descriptor.epoch);
    Some((RangeOperation { range_id, epoch, body: Some(body) }, words))
}

struct Planner<'a> {
    view: &'a View,
    report: &'a RangeReport,
    descriptor: &'a RangeDescriptor,
}

impl Planner<'_> {
    fn plan(&self) -> Option<Body> {
        let voters = self.replicas(ReplicaRole::Voter);
        let learners = self.replicas(ReplicaRole::Learner);
        if let Some(lost) = learners.iter().find(|learner| !self.lives(learner)) {
            return Some(remove(lost));
        }
        let (good, lost): (Vec<_>, Vec<_>) = voters.iter().partition(|voter| self.lives(voter));
        let target = self.view.voters_wanted();

        if let Some(learner) = learners.first() {
            return self.plan_with_learner(learner, good.len(), &lost, target);
        }
        if good.len() < target {
            return self.add_learner();
        }
        let is_whole = good.len() >= self.view.replication_factor;
        let mut useless = lost.iter().filter(|lost| is_whole || !self.may_return(lost));
        if let Some(lost) = useless.next() {
            return self.remove_voter(lost);
        }
        if good.len() > target {
            let surplus = good.iter().max_by_key(|voter| {
                (self.view.living[&voter.node_id], !self.leads(voter), voter.replica_id)
            });
            return surplus.and_then(|voter| self.remove_voter(voter));
        }
        None
    }

    fn plan_with_learner(
        &self,
        learner: &Replica,
        good: usize,
        lost: &[&Replica],
        target: usize,
    ) -> Option<Body> {
        if good >= target {
            return Some(remove(learner));
        }
        if self.report.lagging_replica_ids.contains(&learner.replica_id) {
            // The learner's node may never come back. Another node can take its place before that
            // node counts as dead.
            let waits_for_nobody = !self.view.reachable.contains(&learner.node_id);
            return waits_for_nobody.then(|| remove(learner));
        }
        let replaced = lost.first();
        if let Some(leader) = replaced.filter(|voter| self.leads(voter)) {
            return self.move_leadership_from(leader);
        }
        Some(Body::ReplaceVoter(ReplaceVoter {
            promote_replica_id: learner.replica_id,
            remove_replica_id: replaced.map_or(0, |voter| voter.replica_id),
        }))
    }

    /// Adds a learner on the reachable node with the fewest replicas that has none of this range.
    fn add_learner(&self) -> Option<Body> {
        let free = self.view.reachable.iter().filter(|n| self.descriptor.replica_on(**n).is_none());
        let node_id = *free.min_by_key(|n| (self.view.living.get(n), **n))?;
        Some(Body::AddLearner(AddLearner { node_id }))
    }

    fn remove_voter(&self, voter: &Replica) -> Option<Body> {
        if self.leads(voter) {
            return self.move_leadership_from(voter);
        }
        // Of the other voters more than half must be up, or the range would stand still.
        let rest = self.replicas(ReplicaRole::Voter);
        let rest = rest.iter().filter(|other| other.replica_id != voter.replica_id);
        let (mut up, mut all) = (0, 0);
        for other in rest {
            all += 1;
            up += usize::from(!self.report.down_replica_ids.contains(&other.replica_id));
        }
        (up * 2 > all).then(|| remove(voter))
    }

    fn move_leadership_from(&self, leader: &Replica) -> Option<Body> {
        let voters = self.replicas(ReplicaRole::Voter);
        let to = voters.iter().find(|voter| {
            voter.replica_id != leader.replica_id
                && self.lives(voter)
                && !self.report.down_replica_ids.contains(&voter.replica_id)
        })?;
        Some(Body::TransferLeader(TransferLeader { to_replica_id: to.replica_id }))
    }

    fn replicas(&self, role: ReplicaRole) -> Vec<Replica> {
        self.descriptor.replicas.iter().copied().filter(|r| r.role() == role).collect()
    }

    fn lives(&self, replica: &Replica) -> bool {
        self.view.living.contains_key(&replica.node_id)
    }

    fn may_return(&self, replica: &Replica) -> bool {
        self.view.dead.contains(&replica.node_id)
    }

    fn leads(&self, replica: &Replica) -> bool {
        replica.node_id == self.report.leader_node_id
    }
}

fn remove(replica: &Replica) -> Body {
    Body::RemoveReplica(RemoveReplica { replica_id: replica.replica_id })
}

fn describe(body: &Body) -> String {
    match body {
        Body::AddLearner(add) => format!("adding a learner on node {}", add.node_id),
        Body::ReplaceVoter(ReplaceVoter { promote_replica_id, remove_replica_id: 0 }) => {
            format!("promoting replica {promote_replica_id}")
        }
        Body::ReplaceVoter(r) => {
            let (promote, remove) = (r.promote_replica_id, r.remove_replica_id);
            format!("replacing replica {remove} by {promote}")
        }
        Body::RemoveReplica(remove) => format!("removing replica {}", remove.replica_id),
        Body::TransferLeader(t) => format!("moving leadership to replica {}", t.to_replica_id),
    }
}

#[cfg(test)]
mod tests {
    use rangedb_proto::v1::Epoch;

    use super::*;

    fn view(nodes: &[u64]) -> View {
        View {
            replication_factor: 3,
            living: nodes.iter().map(|n| (*n, 1)).collect(),
            dead: BTreeSet::new(),
            reachable: nodes.iter().copied().collect(),
        }
    }

    /// Replica ids equal node ids; the first voter leads.
    fn report(voters: &[u64], learners: &[u64]) -> RangeReport {
        let replica = |role: ReplicaRole| {
            move |id: &u64| Replica { replica_id: *id, node_id: *id, role: role.into() }
        };
        let mut replicas: Vec<_> = voters.iter().map(replica(ReplicaRole::Voter)).collect();
        replicas.extend(learners.iter().map(replica(ReplicaRole::Learner)));
        let epoch = Some(Epoch { version: 1, conf_ver: 1 });
        RangeReport {
            descriptor: Some(RangeDescriptor {
                range_id: 1,
                epoch,
                replicas,
                next_replica_id: 100,
                ..Default::default()
            }),
            leader_node_id: voters[0],
            ..Default::default()
        }
    }

    fn step(view: &View, report: &RangeReport) -> Option<Body> {
        next_step(view, report).and_then(|(operation, _)| operation.body)
    }

    #[test]
    fn a_lone_node_that_gets_company_grows_a_learner_and_promotes_it() {
        let add = Body::AddLearner(AddLearner { node_id: 2 });
        assert_eq!(step(&view(&[1, 2]), &report(&[1], &[])), Some(add));
        let promote = ReplaceVoter { promote_replica_id: 2, remove_replica_id: 0 };
        let expected = Some(Body::ReplaceVoter(promote));
        assert_eq!(step(&view(&[1, 2]), &report(&[1], &[2])), expected);
    }

    #[test]
    fn a_learner_that_lags_is_waited_for() {
        let mut report = report(&[1], &[2]);
        report.lagging_replica_ids = vec![2];
        assert_eq!(step(&view(&[1, 2]), &report), None);
    }

    #[test]
    fn a_learner_that_lags_on_a_node_that_is_silent_is_dropped() {
        let mut view = view(&[1, 2]);
        view.reachable.remove(&2);
        let mut report = report(&[1], &[2]);
        report.lagging_replica_ids = vec![2];
        let expected = Some(Body::RemoveReplica(RemoveReplica { replica_id: 2 }));
        assert_eq!(step(&view, &report), expected);
    }

    #[test]
    fn a_lost_voter_is_replaced_in_one_joint_change() {
        let view = view(&[1, 2, 4]);
        let add = Body::AddLearner(AddLearner { node_id: 4 });
        assert_eq!(step(&view, &report(&[1, 2, 3], &[])), Some(add));
        let replace = ReplaceVoter { promote_replica_id: 4, remove_replica_id: 3 };
        assert_eq!(step(&view, &report(&[1, 2, 3], &[4])), Some(Body::ReplaceVoter(replace)));
    }

    #[test]
    fn a_voter_on_a_removed_node_is_dropped_without_a_spare_node() {
        let expected = Some(Body::RemoveReplica(RemoveReplica { replica_id: 3 }));
        assert_eq!(step(&view(&[1, 2]), &report(&[1, 2, 3], &[])), expected);
    }

    #[test]
    fn a_voter_on_a_dead_node_keeps_its_place_until_the_range_is_whole_without_it() {
        let mut view = view(&[1, 2]);
        view.dead.insert(3);
        assert_eq!(step(&view, &report(&[1, 2, 3], &[])), None);

        view.living.insert(4, 0);
        view.reachable.insert(4);
        let add = Body::AddLearner(AddLearner { node_id: 4 });
        assert_eq!(step(&view, &report(&[1, 2, 3], &[])), Some(add));

        let remove = Body::RemoveReplica(RemoveReplica { replica_id: 3 });
        assert_eq!(step(&view, &report(&[1, 2, 4, 3], &[])), Some(remove));
        view.replication_factor = 2;
        assert_eq!(step(&view, &report(&[1, 2, 3], &[])), Some(remove));
    }

    #[test]
    fn a_voter_on_a_removed_node_goes_before_one_on_a_dead_node() {
        let mut view = view(&[1, 2, 3]);
        view.dead.insert(4);
        view.replication_factor = 5;
        let expected = Some(Body::RemoveReplica(RemoveReplica { replica_id: 5 }));
        assert_eq!(step(&view, &report(&[1, 2, 3, 4, 5], &[])), expected);
    }

    #[test]
    fn a_removed_node_that_leads_hands_over_first() {
        let expected = Some(Body::TransferLeader(TransferLeader { to_replica_id: 2 }));
        assert_eq!(step(&view(&[2, 3]), &report(&[1, 2, 3], &[])), expected);
    }

    #[test]
    fn a_voter_is_not_dropped_if_the_rest_would_have_no_quorum() {
        let mut report = report(&[1, 2, 3], &[]);
        report.down_replica_ids = vec![2];
        assert_eq!(step(&view(&[1, 2]), &report), None);
    }

    #[test]
    fn a_learner_on_a_lost_node_is_dropped() {
        let expected = Some(Body::RemoveReplica(RemoveReplica { replica_id: 3 }));
        assert_eq!(step(&view(&[1, 2]), &report(&[1, 2], &[3])), expected);
    }

    #[test]
    fn nothing_is_done_to_a_range_as_it_should_be_or_in_a_joint_change() {
        assert_eq!(step(&view(&[1, 2, 3]), &report(&[1, 2, 3], &[])), None);
        let mut joint = report(&[1, 2, 3], &[]);
        joint.in_joint_change = true;
        assert_eq!(step(&view(&[1, 2, 4]), &joint), None);
    }

    #[test]
    fn a_lower_replication_factor_drops_a_voter_that_does_not_lead() {
        let mut view = view(&[1, 2, 3]);
        view.replication_factor = 2;
        let expected = Some(Body::RemoveReplica(RemoveReplica { replica_id: 3 }));
        assert_eq!(step(&view, &report(&[1, 2, 3], &[])), expected);
    }
}
