//! Loop of a node that is not yet part of a cluster: it asks other nodes, and proposes at its turn.

use std::sync::Arc;
use std::time::Duration;

use rangedb_proto::v1::bootstrap_request::Body;
use rangedb_proto::v1::{
    BootstrapAccept, BootstrapDecided, BootstrapPrepare, BootstrapReply, BootstrapRequest,
    Formation,
};
use tokio::time::Instant;

use super::proposal::{Proposal, next_ballot};
use super::{Bootstrap, BootstrapError, REPLICATION_FACTOR, blocking, peers};
use crate::shell::identity::{Ballot, Membership};

/// Interval between two rounds of asking: short compared to the start of a process.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Time for which a bare majority waits for the other peers, so that nodes started together found
/// the cluster together.
const GRACE: Duration = Duration::from_secs(2);

/// Head start of each place in the order of addresses: a node waits this long for every present
/// peer before it. A ballot takes less.
const TURN: Duration = Duration::from_millis(300);

/// Head start of a proposer before another node finishes its proposal.
const FINISH_AFTER: Duration = Duration::from_secs(3);

type Replies = Vec<(String, BootstrapReply)>;

/// State that decides when this node may propose next.
#[derive(Default)]
struct Turn {
    /// Time since which a quorum has answered.
    quorum_since: Option<Instant>,
    not_before: Option<Instant>,
}

impl Bootstrap {
    pub(super) async fn form_or_join(self: &Arc<Self>) -> Result<Membership, BootstrapError> {
        let peers = self.forming_peers();
        let mut turn = Turn::default();
        loop {
            let replies = peers::probe_all(&self.others()).await;
            if let Some(formation) = self.decided(&replies)
                && let Some(membership) = self.become_founding_node(&formation).await?
            {
                return Ok(membership);
            }
            if replies.iter().any(|(_, reply)| reply.cluster_id != 0) {
                if let Some(membership) = self.join_one_of(&replies).await? {
                    return Ok(membership);
                }
            } else if let Some(peers) = &peers
                && self.is_turn(&mut turn, peers, &replies)
            {
                turn.not_before = Some(Instant::now() + TURN + self.random_below(2 * TURN));
                if let Some(formation) = self.propose(peers, &replies).await?
                    && let Some(membership) = self.become_founding_node(&formation).await?
                {
                    self.tell(&formation).await;
                    return Ok(membership);
                }
            } else if peers.is_none() {
                self.set_progress(self.waits_to_join());
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(ASK_EVERY) => {}
            }
        }
    }

    /// Returns the peers that form the cluster together. `None` if this node only joins: it was told
    /// to, or its address is not among the peers, as that of a node that was added to a set of nodes
    /// which all have the same command line.
    fn forming_peers(&self) -> Option<Vec<String>> {
        let (own, intent) = (&self.node.peer_address, &self.intent);
        if !intent.peers.is_empty() {
            return intent.peers.contains(own).then(|| intent.peers.clone());
        }
        intent.join.is_empty().then(|| vec![own.clone()])
    }

    fn waits_to_join(&self) -> String {
        let (own, peers) = (&self.node.peer_address, self.intent.peers.join(","));
        match peers.is_empty() {
            true => "waiting for a node of the cluster to join".to_owned(),
            false => format!(
                "this node's --peer-address {own} is not among --peers {peers}: waiting for their \
                 cluster, to join it"
            ),
        }
    }

    /// Returns a formation that is known to be decided: another node sent it, or a member was
    /// founded by it.
    fn decided(&self, replies: &Replies) -> Option<Formation> {
        let told = self.told.lock().take();
        let members = replies.iter().filter(|(_, reply)| reply.cluster_id != 0);
        told.or_else(|| members.filter_map(|(_, reply)| reply.accepted.clone()).next())
    }

    /// True if this node may propose now. If not, sets the progress text to the reason, unless the
    /// node only waits for its turn.
    fn is_turn(&self, turn: &mut Turn, peers: &[String], replies: &Replies) -> bool {
        let quorum = peers.len() / 2 + 1;
        let mut present: Vec<&String> = replies
            .iter()
            .filter(|(address, _)| peers.contains(address))
            .map(|(address, _)| address)
            .collect();
        present.push(&self.node.peer_address);
        if present.len() < quorum {
            self.set_progress(format!("waiting for a quorum of peers: {}/{quorum}", present.len()));
            *turn = Turn::default();
            return false;
        }
        let now = Instant::now();
        let since = *turn.quorum_since.get_or_insert(now);
        let begun = self.data.identity().accepted().is_some()
            || replies.iter().any(|(_, reply)| reply.accepted.is_some());
        let may_finish = begun && now >= since + FINISH_AFTER;
        if !self.intent.cluster_init && !may_finish {
            let message = "waiting for a peer that was started with --cluster-init";
            self.set_progress(message.to_owned());
            return false;
        }
        if present.len() < peers.len() && now < since + GRACE {
            let (here, all) = (present.len(), peers.len());
            self.set_progress(format!("a quorum of peers is here, waiting for all: {here}/{all}"));
            return false;
        }
        let before_me = present.iter().filter(|address| **address < &self.node.peer_address);
        let wait = TURN * u32::try_from(before_me.count()).unwrap_or(u32::MAX);
        now >= *turn.not_before.get_or_insert(now + wait)
    }

    /// Runs one ballot. Returns the formation if it is decided.
    async fn propose(
        self: &Arc<Self>,
        peers: &[String],
        heard: &Replies,
    ) -> Result<Option<Formation>, BootstrapError> {
        self.set_progress("agreeing with the peers on the new cluster".to_owned());
        let own = self.ask_myself(Body::Probe(Default::default())).await?;
        let heard = heard.iter().map(|(_, reply)| reply).chain([&own]);
        let ballot: Ballot = next_ballot(self.node.directory_id, heard);
        let mut proposal = Proposal::new(ballot, peers.len() / 2 + 1);

        let prepare = Body::Prepare(BootstrapPrepare { ballot: Some(ballot.into()) });
        for reply in self.ask_peers(peers, prepare).await? {
            proposal.on_prepared(&reply);
        }
        let new = Formation {
            cluster_id: fastrand::u64(1..),
            nodes: Vec::new(),
            replication_factor: REPLICATION_FACTOR,
            split_keys: self.intent.split_keys.clone(),
            founded_unix_ms: 0,
        };
        let Some(formation) = proposal.formation(new) else { return Ok(None) };
        let accept =
            BootstrapAccept { ballot: Some(ballot.into()), formation: Some(formation.clone()) };
        for reply in self.ask_peers(peers, Body::Accept(accept)).await? {
            proposal.on_accepted(&reply);
        }
        Ok(proposal.is_decided().then_some(formation))
    }

    /// Asks all peers, this node included. This node's own vote is durable before another node is
    /// asked: a proposer that restarts must not use a ballot a second time.
    async fn ask_peers(
        self: &Arc<Self>,
        peers: &[String],
        body: Body,
    ) -> Result<Vec<BootstrapReply>, BootstrapError> {
        let own = &self.node.peer_address;
        let others: Vec<String> = peers.iter().filter(|peer| *peer != own).cloned().collect();
        let own = self.ask_myself(body.clone()).await?;
        if !own.granted {
            return Ok(Vec::new());
        }
        let theirs = peers::ask_all(&others, &body).await.into_iter().map(|(_, reply)| reply);
        Ok(theirs.chain([own]).collect())
    }

    async fn ask_myself(self: &Arc<Self>, body: Body) -> Result<BootstrapReply, BootstrapError> {
        let this = self.clone();
        blocking(move || Ok(this.answer(BootstrapRequest { body: Some(body) })?)).await
    }

    /// Tells other nodes the decision. Best effort: a node that misses it learns of it by asking.
    async fn tell(&self, formation: &Formation) {
        let decided = BootstrapDecided { formation: Some(formation.clone()) };
        peers::ask_all(&self.others(), &Body::Decided(decided)).await;
    }

    pub(super) fn random_below(&self, bound: Duration) -> Duration {
        let millis = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX).max(1);
        Duration::from_millis(self.net.random_below(millis))
    }
}
