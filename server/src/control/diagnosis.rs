//! Diagnosis of the cluster: nodes that are suspected to be down, what that costs the ranges, and
//! what an operator can do.
//!
//! A node is suspect from its fourth missed heartbeat on, long before it counts as dead. Nothing
//! acts on a suspicion but people: it is derived from what was heard, and stored nowhere.

use std::collections::BTreeSet;
use std::time::Duration;

use rangedb_proto::v1::{NodeDescriptor, NodeState, Problem, ReplicaRole, problem::Severity};

use super::directory::Entry;
use super::state::State;

/// Silence from which on a node is suspect: four heartbeats.
const SUSPECT_AFTER: Duration = Duration::from_secs(2);

/// Age of a leader's last report from which on the range counts as without a leader: ten
/// heartbeats.
const REPORT_AGE_MAX: Duration = Duration::from_secs(5);

/// The cluster's state as far as people have to know of it.
#[derive(Default)]
pub struct Diagnosis {
    /// Nodes that count as living and do not answer.
    pub suspects: BTreeSet<u64>,
    /// Ranges with a voter that does not answer.
    pub replica_down: u32,
    /// Ranges in which no majority of the voters answers.
    pub without_quorum: u32,
    /// Ranges that no leader has reported of late.
    pub without_leader: u32,
    /// Ranges with fewer voters that answer than the replication factor asks for, however many nodes
    /// there are.
    pub under_factor: u32,
    pub problems: Vec<Problem>,
}

/// Votes of one range.
struct Votes {
    all: usize,
    up: usize,
}

impl Votes {
    fn majority(&self) -> usize {
        self.all / 2 + 1
    }
}

impl State {
    pub fn diagnose(&self, now: Duration) -> Diagnosis {
        let reported_down: BTreeSet<u64> =
            self.directory.entries().flat_map(nodes_reported_down).collect();
        // After a takeover, the silence of a node has just begun: what leaders say of its replicas
        // counts until it is heard.
        let is_suspect = |id: &u64| {
            self.silence(*id, now) >= SUSPECT_AFTER
                || (!self.heard.contains_key(id) && reported_down.contains(id))
        };
        let up = self.nodes.values().filter(|node| node.state() == NodeState::NodeUp);
        let suspects = up.filter(|node| is_suspect(&node.node_id));
        let mut found = Diagnosis {
            suspects: suspects.map(|node| node.node_id).collect(),
            ..Diagnosis::default()
        };
        let mut at_the_edge = 0;
        for entry in self.directory.entries() {
            let votes = self.votes(entry, &found.suspects);
            let last_report = entry.reported_at.unwrap_or(self.since);
            let is_led = now.saturating_sub(last_report) <= REPORT_AGE_MAX;
            found.replica_down += u32::from(votes.up < votes.all);
            found.without_quorum += u32::from(votes.up < votes.majority());
            found.without_leader += u32::from(!is_led);
            found.under_factor += u32::from(votes.up < self.settings().replication_factor as usize);
            at_the_edge += u32::from(votes.up == votes.majority() && votes.all > 1);
        }
        found.problems = self.problems(&found, at_the_edge, now);
        found
    }

    fn votes(&self, entry: &Entry, suspects: &BTreeSet<u64>) -> Votes {
        let votes = |role| role != ReplicaRole::Learner && role != ReplicaRole::OutgoingVoter;
        let voters = entry.descriptor().replicas.iter().filter(|r| votes(r.role()));
        let is_up = |node_id: &u64| {
            let known = self.nodes.get(node_id);
            known.is_some_and(|node| node.state() == NodeState::NodeUp)
                && !suspects.contains(node_id)
        };
        let (mut all, mut up) = (0, 0);
        for voter in voters {
            all += 1;
            let is_reported_down = entry.report.down_replica_ids.contains(&voter.replica_id);
            up += usize::from(is_up(&voter.node_id) && !is_reported_down);
        }
        Votes { all, up }
    }

    fn problems(&self, found: &Diagnosis, at_the_edge: u32, now: Duration) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |severity: Severity, what: String, advice: String| {
            problems.push(Problem { severity: severity.into(), what, advice });
        };
        if found.without_quorum > 0 {
            let silent = self.nodes.values().filter(|node| self.is_silent(node, found));
            let silent: Vec<String> = silent.map(|node| node.node_id.to_string()).collect();
            add(
                Severity::Down,
                format!(
                    "{} have lost their quorum: nothing is read or written there",
                    ranges(found.without_quorum)
                ),
                format!("start node {} again, with its data", silent.join(" or node ")),
            );
        }
        for node in self.nodes.values().filter(|node| self.is_silent(node, found)) {
            let id = node.node_id;
            let silence = self.silence(id, now).as_secs();
            let affected = self.ranges_on(id).len() as u32;
            let taken = match node.state() {
                NodeState::NodeDead => " and is taken for dead",
                _ => "",
            };
            add(
                Severity::Degraded,
                format!(
                    "node {id} ({}) has not answered for {silence} s{taken}: {} have a replica there",
                    node.peer_address,
                    ranges(affected)
                ),
                format!(
                    "start it again; if it is gone for good: rangedb admin node remove {id} --confirm"
                ),
            );
        }
        if at_the_edge > 0 {
            add(
                Severity::Degraded,
                format!("{} do not survive the loss of another node", ranges(at_the_edge)),
                "bring nodes back, or add nodes with --join".to_owned(),
            );
        }
        let members = self.nodes.values().filter(|node| node.state() != NodeState::NodeRemoved);
        let (members, factor) = (members.count(), self.settings().replication_factor);
        if members < factor as usize {
            add(
                Severity::Degraded,
                format!("{members} of the {factor} nodes that the replication factor asks for"),
                format!(
                    "add nodes with --join, or be content: rangedb admin config set \
                     replication_factor {members}"
                ),
            );
        }
        if self.ranges_quarantined() > 0 {
            let count = self.ranges_quarantined() as u32;
            add(
                Severity::Degraded,
                format!("{} have a replica that stands still", ranges(count)),
                "see where and why: rangedb admin partition list".to_owned(),
            );
        }
        for (id, heard) in &self.heard {
            if heard.stats.unfit_to_lead && !found.suspects.contains(id) {
                add(
                    Severity::Degraded,
                    format!("node {id} is stopping, or cannot write to its disk"),
                    "see its log and its /readyz".to_owned(),
                );
            }
        }
        problems
    }

    fn is_silent(&self, node: &NodeDescriptor, found: &Diagnosis) -> bool {
        node.state() == NodeState::NodeDead || found.suspects.contains(&node.node_id)
    }
}

fn nodes_reported_down(entry: &Entry) -> impl Iterator<Item = u64> {
    let replicas = entry.descriptor().replicas.iter();
    let down = replicas.filter(|r| entry.report.down_replica_ids.contains(&r.replica_id));
    down.map(|replica| replica.node_id)
}

fn ranges(count: u32) -> String {
    format!("{count} range{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use rangedb_proto::v1::{NodeStats, RangeDescriptor, RangeReport, Replica};

    use super::*;

    const AT: Duration = Duration::from_secs(100);

    /// A cluster of nodes that have just been heard, and of one range with a voter on each.
    fn cluster(nodes: u64) -> State {
        let mut state = State::new(Duration::ZERO);
        let replica = |node_id| Replica { node_id, replica_id: node_id + 10, role: 0 };
        for node_id in 1..=nodes {
            let peer_address = format!("n{node_id}:8080");
            let node = NodeDescriptor { node_id, peer_address, ..Default::default() };
            state.nodes.insert(node_id, node);
            state.hear(node_id, AT, NodeStats::default());
        }
        let replicas = (1..=nodes).map(replica).collect();
        let descriptor = RangeDescriptor { range_id: 1, replicas, ..Default::default() };
        let leader_node_id = 1;
        let report =
            RangeReport { descriptor: Some(descriptor), leader_node_id, ..Default::default() };
        state.directory.learn(report, AT);
        state
    }

    #[test]
    fn a_sound_cluster_has_no_problems() {
        let found = cluster(3).diagnose(AT);
        assert_eq!(found.problems, [] as [Problem; 0]);
        assert_eq!((found.replica_down, found.without_quorum, found.without_leader), (0, 0, 0));
        assert_eq!((found.under_factor, found.suspects.len()), (0, 0));
    }

    #[test]
    fn a_silent_node_is_suspect_and_named_with_what_it_costs_and_what_to_do() {
        let mut state = cluster(3);
        let later = AT + SUSPECT_AFTER;
        state.hear(1, later, NodeStats::default());
        state.hear(2, later, NodeStats::default());
        let found = state.diagnose(later);
        assert_eq!(found.suspects, [3].into());
        assert_eq!((found.replica_down, found.without_quorum, found.under_factor), (1, 0, 1));
        let words: Vec<&str> = found.problems.iter().map(|problem| &problem.what[..]).collect();
        assert!(
            words[0].contains("node 3 (n3:8080) has not answered for 2 s: 1 range"),
            "{words:?}"
        );
        assert!(words[1].contains("1 range do not survive"), "{words:?}");
        assert!(found.problems[0].advice.contains("node remove 3 --confirm"));
        assert!(found.problems.iter().all(|p| p.severity() == Severity::Degraded));
    }

    #[test]
    fn a_lost_quorum_is_the_first_problem_and_names_who_has_to_come_back() {
        let mut state = cluster(3);
        let later = AT + REPORT_AGE_MAX + Duration::from_millis(1);
        state.hear(1, later, NodeStats::default());
        let found = state.diagnose(later);
        assert_eq!((found.without_quorum, found.without_leader), (1, 1));
        assert_eq!(found.problems[0].severity(), Severity::Down);
        assert!(found.problems[0].advice.contains("node 2 or node 3"), "{:?}", found.problems[0]);
    }

    #[test]
    fn after_a_takeover_leaders_are_believed_about_nodes_that_were_not_heard() {
        let mut state = cluster(3);
        state.heard.remove(&3);
        state.since = AT;
        assert_eq!(state.diagnose(AT).suspects, [].into());
        let entry = state.directory.entries().next().unwrap().clone();
        let report = RangeReport { down_replica_ids: vec![13], ..entry.report };
        state.directory.learn(report, AT);
        assert_eq!(state.diagnose(AT).suspects, [3].into());
        assert_eq!(state.diagnose(AT).replica_down, 1);
        state.hear(3, AT, NodeStats::default());
        assert_eq!(state.diagnose(AT).suspects, [].into(), "it speaks for itself");
    }

    #[test]
    fn too_few_nodes_for_the_replication_factor_are_a_problem_of_their_own() {
        let found = cluster(1).diagnose(AT);
        assert_eq!((found.under_factor, found.replica_down), (1, 0));
        assert!(found.problems[0].what.starts_with("1 of the 3 nodes"), "{:?}", found.problems);
        let found = cluster(2).diagnose(AT);
        assert!(
            found.problems.iter().any(|p| p.what.contains("do not survive")),
            "two are not safe"
        );
    }
}
