//! The rules of voting and proposing under lost, late and repeated messages and restarts: never two
//! decisions. Time and sockets play no part, so every run repeats from its seed.

use std::collections::BTreeSet;

use rangedb_proto::v1::{BootstrapReply, Formation, NodeDescriptor};

use super::acceptor::{accept, is_sound, prepare, reply};
use super::proposal::{Proposal, next_ballot};
use crate::shell::identity::{Ballot, DataDir, Identity};

/// An acceptor whose memory is its disk: every change is durable before it answers.
struct Acceptor {
    identity: Identity,
    node: NodeDescriptor,
}

impl Acceptor {
    fn new(place: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = DataDir::open(dir.path()).unwrap().identity();
        let node = NodeDescriptor {
            peer_address: format!("n{place}:8080"),
            directory_id: identity.directory_id,
            ..Default::default()
        };
        Acceptor { identity, node }
    }

    fn prepare(&mut self, ballot: Ballot) -> BootstrapReply {
        let granted = prepare(&mut self.identity, ballot);
        reply(&self.identity, &self.node, granted)
    }

    fn accept(&mut self, ballot: Ballot, formation: &Formation) -> BootstrapReply {
        let granted = accept(&mut self.identity, ballot, formation);
        reply(&self.identity, &self.node, granted)
    }
}

fn acceptors(count: u64) -> Vec<Acceptor> {
    (1..=count).map(Acceptor::new).collect()
}

/// Returns the formation that a proposer proposes, without its nodes.
fn new(cluster_id: u64) -> Formation {
    Formation { cluster_id, replication_factor: 3, ..Default::default() }
}

/// A proposer somewhere in its ballot. Dropping it is its crash.
struct Proposer {
    ballot: Ballot,
    proposal: Proposal,
    formation: Option<Formation>,
}

/// Runs proposers against acceptors in an order drawn from the seed. Returns what was decided.
fn duel(seed: u64, acceptors: &mut [Acceptor]) -> BTreeSet<u64> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let quorum = acceptors.len() / 2 + 1;
    let mut proposers: Vec<Proposer> = Vec::new();
    let mut heard: Vec<BootstrapReply> = Vec::new();
    // A proposer's own vote is durable first, so it never uses a ballot twice.
    let mut used = [0; 3];
    let mut decided = BTreeSet::new();
    for step in 1..=150 {
        if proposers.len() < 2 || rng.u32(..40) == 0 {
            let place = rng.usize(..used.len());
            // Old replies are used too: a proposer may have missed the newest ballots.
            let known = rng.usize(..=heard.len());
            let mut ballot = next_ballot(place as u64 + 1, &heard[..known]);
            ballot.round = ballot.round.max(used[place] + 1);
            used[place] = ballot.round;
            proposers.push(Proposer {
                ballot,
                proposal: Proposal::new(ballot, quorum),
                formation: None,
            });
        }
        if rng.u32(..30) == 0 {
            proposers.swap_remove(rng.usize(..proposers.len()));
            continue;
        }
        let at = rng.usize(..proposers.len());
        let proposer = &mut proposers[at];
        let place = rng.usize(..acceptors.len());
        let acceptor = &mut acceptors[place];
        let answer_arrives = rng.u32(..5) != 0;
        match &proposer.formation {
            None => {
                let reply = acceptor.prepare(proposer.ballot);
                heard.push(reply.clone());
                if answer_arrives {
                    proposer.proposal.on_prepared(&reply);
                }
                // The cluster id is unique to this step, so that a second decision would show.
                if rng.bool() {
                    proposer.formation = proposer.proposal.formation(new(step));
                }
            }
            Some(formation) => {
                let reply = acceptor.accept(proposer.ballot, formation);
                heard.push(reply.clone());
                if answer_arrives {
                    proposer.proposal.on_accepted(&reply);
                }
                if proposer.proposal.is_decided() {
                    decided.insert(formation.cluster_id);
                }
            }
        }
    }
    decided
}

#[test]
fn duelling_proposers_that_crash_never_decide_twice() {
    let mut runs_that_decided = 0;
    for nodes in [1, 2, 3, 5] {
        let mut all = acceptors(nodes);
        let fresh: Vec<Identity> = all.iter().map(|a| a.identity.clone()).collect();
        for seed in 0..500 {
            for (acceptor, fresh) in all.iter_mut().zip(&fresh) {
                acceptor.identity = fresh.clone();
            }
            let decided = duel(seed, &mut all);
            assert!(decided.len() <= 1, "{nodes} nodes, seed {seed}: {decided:?}");
            runs_that_decided += decided.len();
        }
    }
    assert!(runs_that_decided > 500, "the runs hardly ever decide: {runs_that_decided}");
}

#[test]
fn what_a_majority_accepted_is_proposed_again() {
    let mut all = acceptors(3);
    let first = Ballot { round: 1, directory_id: 1 };
    let mut proposal = Proposal::new(first, 2);
    for acceptor in &mut all[..2] {
        proposal.on_prepared(&acceptor.prepare(first));
    }
    let formation = proposal.formation(new(77)).unwrap();
    // The proposer dies after one accept; the other one of its quorum stays silent.
    assert!(all[0].accept(first, &formation).granted);

    let second = Ballot { round: 2, directory_id: 3 };
    let mut proposal = Proposal::new(second, 2);
    proposal.on_prepared(&all[0].prepare(second));
    proposal.on_prepared(&all[2].prepare(second));
    assert_eq!(proposal.formation(new(88)), Some(formation));
}

#[test]
fn a_directory_reached_by_two_names_votes_once() {
    let mut all = acceptors(1);
    let ballot = Ballot { round: 1, directory_id: 1 };
    let mut proposal = Proposal::new(ballot, 2);
    for _ in 0..2 {
        proposal.on_prepared(&all[0].prepare(ballot));
    }
    assert_eq!(proposal.formation(new(7)), None);
}

#[test]
fn a_directory_that_took_the_place_of_one_that_promised_does_not_count() {
    let mut all = acceptors(3);
    let ballot = Ballot { round: 1, directory_id: 1 };
    let mut proposal = Proposal::new(ballot, 2);
    proposal.on_prepared(&all[0].prepare(ballot));
    proposal.on_prepared(&all[1].prepare(ballot));
    let formation = proposal.formation(new(7)).unwrap();
    all[1] = Acceptor::new(2);
    for acceptor in &mut all[..2] {
        proposal.on_accepted(&acceptor.accept(ballot, &formation));
    }
    assert!(!proposal.is_decided());
}

#[test]
fn a_lower_ballot_is_refused_after_a_promise_and_says_which_stands() {
    let mut all = acceptors(1);
    let (low, high) = (Ballot { round: 1, directory_id: 9 }, Ballot { round: 2, directory_id: 1 });
    assert!(all[0].prepare(high).granted);
    let refused = all[0].prepare(low);
    assert!(!refused.granted);
    assert_eq!(refused.promised.map(Ballot::from), Some(high));
    assert!(next_ballot(9, [&refused]) > high);
}

#[test]
fn founding_nodes_are_numbered_by_address() {
    let mut all = acceptors(3);
    let ballot = Ballot { round: 1, directory_id: 1 };
    let mut proposal = Proposal::new(ballot, 2);
    for acceptor in all.iter_mut().rev() {
        proposal.on_prepared(&acceptor.prepare(ballot));
    }
    let formation = proposal.formation(new(7)).unwrap();
    let nodes: Vec<_> =
        formation.nodes.iter().map(|n| (n.node_id, n.peer_address.as_str())).collect();
    assert_eq!(nodes, [(1, "n1:8080"), (2, "n2:8080"), (3, "n3:8080")]);
}

#[test]
fn a_cluster_is_founded_at_the_middle_one_of_its_founders_times() {
    let ballot = Ballot { round: 1, directory_id: 1 };
    let founded = |clocks: &[u64]| {
        let mut proposal = Proposal::new(ballot, clocks.len());
        let mut acceptors = acceptors(clocks.len() as u64);
        for (acceptor, clock_unix_ms) in acceptors.iter_mut().zip(clocks) {
            let clock_unix_ms = *clock_unix_ms;
            proposal.on_prepared(&BootstrapReply { clock_unix_ms, ..acceptor.prepare(ballot) });
        }
        proposal.formation(new(7)).unwrap()
    };
    assert_eq!(founded(&[5_000_000, 1_001, 1_000]).founded_unix_ms, 1_001);
    assert_eq!(founded(&[1_000, 0, 1_001]).founded_unix_ms, 1_000);
    // The oracle catches up with the others, and could never go back.
    assert_eq!(founded(&[5_000_000, 1_000]).founded_unix_ms, 1_000);
    // Otherwise a node alone with such a clock would refuse its own formation for ever.
    assert!(is_sound(&founded(&[u64::MAX])));
}
