//! The rules of proposing: one ballot, from its promises to its decision. Pure.

use std::collections::{BTreeMap, BTreeSet};

use rangedb_proto::v1::{BootstrapReply, Formation, NodeDescriptor};

use crate::shell::identity::Ballot;

/// One ballot of one proposer. Dropped, it has done no harm.
pub(super) struct Proposal {
    ballot: Ballot,
    /// Votes needed: a majority of all peers.
    quorum: usize,
    /// Who promised, by directory: a directory that is reached by two names has one vote.
    promised: BTreeMap<u64, NodeDescriptor>,
    /// Of what those who promised had accepted before, the one under the highest ballot.
    accepted: Option<(Ballot, Formation)>,
    /// Of those who promised, who accepted. A directory that did not promise is a new one where an
    /// old one was wiped; its vote would be the second of that place.
    granted: BTreeSet<u64>,
}

impl Proposal {
    pub fn new(ballot: Ballot, quorum: usize) -> Self {
        assert!(quorum > 0, "nothing is decided by nobody");
        Proposal {
            ballot,
            quorum,
            promised: BTreeMap::new(),
            accepted: None,
            granted: BTreeSet::new(),
        }
    }

    pub fn on_prepared(&mut self, reply: &BootstrapReply) {
        let Some(node) = reply.node.as_ref().filter(|_| self.counts(reply)) else { return };
        self.promised.insert(node.directory_id, node.clone());
        let ballot = reply.accepted_ballot.map(Ballot::from);
        if let (Some(ballot), Some(formation)) = (ballot, &reply.accepted)
            && self.accepted.as_ref().is_none_or(|(highest, _)| ballot > *highest)
        {
            self.accepted = Some((ballot, formation.clone()));
        }
    }

    /// What to ask everyone to accept, once enough have promised: what may be decided already, or
    /// else `new`, with all who promised as its nodes.
    pub fn formation(&self, new: Formation) -> Option<Formation> {
        if self.promised.len() < self.quorum {
            return None;
        }
        if let Some((_, accepted)) = &self.accepted {
            return Some(accepted.clone());
        }
        let mut nodes: Vec<NodeDescriptor> = self.promised.values().cloned().collect();
        nodes.sort_by(|a, b| a.peer_address.cmp(&b.peer_address));
        for (node, id) in nodes.iter_mut().zip(1..) {
            node.node_id = id;
        }
        Some(Formation { nodes, ..new })
    }

    pub fn on_accepted(&mut self, reply: &BootstrapReply) {
        let directory = reply.node.as_ref().map_or(0, |node| node.directory_id);
        if self.counts(reply) && self.promised.contains_key(&directory) {
            self.granted.insert(directory);
        }
    }

    pub fn is_decided(&self) -> bool {
        self.granted.len() >= self.quorum
    }

    fn counts(&self, reply: &BootstrapReply) -> bool {
        let promised = reply.promised.map(Ballot::from);
        reply.granted && reply.cluster_id == 0 && promised == Some(self.ballot)
    }
}

/// A ballot of this directory that is above all it has heard of.
pub(super) fn next_ballot<'a>(
    directory_id: u64,
    heard: impl IntoIterator<Item = &'a BootstrapReply>,
) -> Ballot {
    let rounds = heard.into_iter().filter_map(|reply| reply.promised).map(|ballot| ballot.round);
    Ballot { round: rounds.max().unwrap_or(0).saturating_add(1), directory_id }
}
