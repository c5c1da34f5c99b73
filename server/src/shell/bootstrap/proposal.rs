//! Rules of proposing: one ballot, from its promises to its decision. Pure.

use std::collections::{BTreeMap, BTreeSet};

use rangedb_proto::v1::{BootstrapReply, Formation, NodeDescriptor};

use super::acceptor::FOUNDED_UNIX_MS_MAX;
use crate::shell::identity::Ballot;

/// One ballot of one proposer. Dropping it does no harm.
pub(super) struct Proposal {
    ballot: Ballot,
    /// Votes needed: a majority of all peers.
    quorum: usize,
    /// Nodes that promised, with their clocks, by directory id: a directory that is reached by two
    /// names has one vote.
    promised: BTreeMap<u64, (NodeDescriptor, u64)>,
    /// Formation accepted under the highest ballot, of those that the promising nodes had accepted
    /// before.
    accepted: Option<(Ballot, Formation)>,
    /// Directories that promised and then accepted. A directory that accepts without a promise may
    /// be a new one in the place of a wiped one. Its vote would be the second vote of that place,
    /// so it does not count.
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
        self.promised.insert(node.directory_id, (node.clone(), reply.clock_unix_ms));
        let ballot = reply.accepted_ballot.map(Ballot::from);
        if let (Some(ballot), Some(formation)) = (ballot, &reply.accepted)
            && self.accepted.as_ref().is_none_or(|(highest, _)| ballot > *highest)
        {
            self.accepted = Some((ballot, formation.clone()));
        }
    }

    /// Returns the formation to be accepted, once a quorum has promised. It is the one that may be
    /// decided already, or else `new` with the promising nodes as its nodes, founded at the middle one
    /// of their times: one wrong clock among three decides nothing.
    pub fn formation(&self, new: Formation) -> Option<Formation> {
        if self.promised.len() < self.quorum {
            return None;
        }
        if let Some((_, accepted)) = &self.accepted {
            return Some(accepted.clone());
        }
        let (mut nodes, mut clocks): (Vec<NodeDescriptor>, Vec<u64>) =
            self.promised.values().cloned().unzip();
        nodes.sort_by(|a, b| a.peer_address.cmp(&b.peer_address));
        for (node, id) in nodes.iter_mut().zip(1..) {
            node.node_id = id;
        }
        clocks.sort_unstable();
        // A node alone founds its cluster however wrong its clock is.
        let founded_unix_ms = clocks[(clocks.len() - 1) / 2].min(FOUNDED_UNIX_MS_MAX);
        Some(Formation { nodes, founded_unix_ms, ..new })
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

/// Returns a ballot of this directory that is above all ballots it has heard of.
pub(super) fn next_ballot<'a>(
    directory_id: u64,
    heard: impl IntoIterator<Item = &'a BootstrapReply>,
) -> Ballot {
    let rounds = heard.into_iter().filter_map(|reply| reply.promised).map(|ballot| ballot.round);
    Ballot { round: rounds.max().unwrap_or(0).saturating_add(1), directory_id }
}
