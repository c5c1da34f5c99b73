//! Bootstrap of a data directory without an identity: the directory becomes part of one cluster,
//! and never of a second one.
//!
//! A node first asks all nodes that its command line names. If one of them belongs to a cluster,
//! this node becomes part of it: as the founding node that the formation names, or by asking to
//! join. Otherwise the peers agree on one [`Formation`] by single-decree Paxos (Lamport, "Paxos
//! Made Simple"). `acceptor.rs` holds the rules of voting and `proposal.rs` those of proposing,
//! both without any IO.
//!
//! Invariants:
//! - One vote per data directory. A vote is in the IDENTITY file before the node answers, and it
//!   counts once, under whatever names the directory is reached.
//! - A quorum is a majority of `--peers`, never of the nodes that happen to answer.
//! - A proposer that learns of an accepted formation proposes that one and no other.
//! - The founding ranges are durable before the identity says that the node is a member.
//!
//! Only a node with `--cluster-init` may start a proposal. Every peer may finish the proposal of
//! another node, which is always safe. A wiped directory has a new id, so it cannot repeat a vote
//! of the old one. It finds its cluster by asking, and joins as a new node.

mod acceptor;
mod form;
mod join;
pub(crate) mod peers;
mod proposal;

use std::sync::Arc;

use parking_lot::Mutex;
use rangedb_client::net::SharedNet;
use rangedb_proto::v1::bootstrap_request::Body;
use rangedb_proto::v1::{BootstrapReply, BootstrapRequest, Formation, NodeDescriptor};
use tokio::sync::Notify;

use crate::node::AddressBook;
use crate::shell::clock::SystemClock;
use crate::shell::identity::{DataDir, IdentityError, Membership};
use crate::surroundings::WallClock;

/// Replicas of a range where the cluster is large enough, until an operator changes the setting.
const REPLICATION_FACTOR: u32 = 3;

#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error(
        "the data directory belongs to cluster {own:016x}, but {peer} belongs to cluster \
         {other:016x}"
    )]
    OtherCluster { own: u64, other: u64, peer: String },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Storage(#[from] rangedb_storage::Error),
}

/// Options of the command line that decide how the node becomes part of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Intent {
    pub peers: Vec<String>,
    pub join: Vec<String>,
    pub cluster_init: bool,
    /// Split keys of a cluster that this node proposes.
    pub split_keys: Vec<String>,
}

impl Intent {
    /// True if the command line says how the node becomes part of a cluster.
    pub fn is_given(&self) -> bool {
        self.cluster_init || !self.peers.is_empty() || !self.join.is_empty()
    }
}

/// Function that makes the founding replicas of a node in the engines, durably. Idempotent.
pub type Found = Box<dyn Fn(&Formation, u64) -> rangedb_storage::Result<()> + Send + Sync>;

/// Bootstrap of this node: it answers other nodes from the first moment on, and leads this node
/// into a cluster.
pub struct Bootstrap {
    data: Arc<DataDir>,
    /// Addresses and version of this node, without an id.
    node: NodeDescriptor,
    intent: Intent,
    net: SharedNet,
    found: Found,
    /// Decided formation that another node sent, for the loop to pick up.
    told: Mutex<Option<Formation>>,
    wake: Notify,
    /// Text for people that names the event the node waits for.
    progress: Mutex<String>,
}

impl Bootstrap {
    pub fn new(
        data: Arc<DataDir>,
        mut node: NodeDescriptor,
        intent: Intent,
        net: SharedNet,
        found: Found,
    ) -> Self {
        node.directory_id = data.identity().directory_id;
        Bootstrap {
            data,
            node,
            intent,
            net,
            found,
            told: Mutex::default(),
            wake: Notify::new(),
            progress: Mutex::new("looking for a cluster".to_owned()),
        }
    }

    /// Answers another node. A vote is durable when this returns. Blocks.
    pub fn answer(&self, request: BootstrapRequest) -> Result<BootstrapReply, IdentityError> {
        let granted = match request.body {
            Some(Body::Prepare(prepare)) => {
                let ballot = prepare.ballot.unwrap_or_default().into();
                self.data.update(|identity| acceptor::prepare(identity, ballot))?
            }
            Some(Body::Accept(accept)) => {
                let ballot = accept.ballot.unwrap_or_default().into();
                let formation = accept.formation.unwrap_or_default();
                self.data.update(|identity| acceptor::accept(identity, ballot, &formation))?
            }
            Some(Body::Decided(decided)) => {
                if let Some(formation) = decided.formation.filter(acceptor::is_sound) {
                    *self.told.lock() = Some(formation);
                    self.wake.notify_one();
                }
                true
            }
            Some(Body::Probe(_)) | None => true,
        };
        let reply = acceptor::reply(&self.data.identity(), &self.node, granted);
        Ok(BootstrapReply { clock_unix_ms: SystemClock.unix_millis(), ..reply })
    }

    /// Returns the text that names the event the node waits for, while it is not yet part of a
    /// cluster.
    pub fn progress(&self) -> String {
        self.progress.lock().clone()
    }

    fn set_progress(&self, progress: String) {
        let mut current = self.progress.lock();
        if *current != progress {
            tracing::info!("{progress}");
            *current = progress;
        }
    }

    /// Returns once the directory is part of a cluster, which may take as long as its peers take.
    pub async fn run(self: &Arc<Self>) -> Result<Membership, BootstrapError> {
        if let Some(membership) = self.data.identity().membership() {
            if self.intent.cluster_init {
                tracing::info!(
                    cluster_id = format!("{:016x}", membership.cluster_id),
                    node_id = membership.node_id,
                    "already part of a cluster, --cluster-init has no effect"
                );
            }
            self.look_around(membership).await?;
            return Ok(membership);
        }
        self.form_or_join().await
    }

    /// Returns the addresses of all nodes to ask, except this node's own.
    fn others(&self) -> Vec<String> {
        let listed = self.intent.peers.iter().chain(&self.intent.join);
        let mut others: Vec<String> = Vec::new();
        for address in listed {
            if *address != self.node.peer_address && !others.contains(address) {
                others.push(address.clone());
            }
        }
        others
    }

    /// Asks the nodes that the command line names, and stores the current addresses of the
    /// cluster's members. Refuses to start if no member answers and a node of another cluster does:
    /// a directory that was moved to another cluster would do harm there.
    async fn look_around(self: &Arc<Self>, own: Membership) -> Result<(), BootstrapError> {
        let replies = peers::probe_all(&self.others()).await;
        let members = peers::members(own, &replies);
        if members.is_empty() {
            let stranger = replies.into_iter().find(|(_, reply)| is_other(own, reply));
            return stranger.map_or(Ok(()), |(peer, reply)| {
                let (own, other) = (own.cluster_id, reply.cluster_id);
                Err(BootstrapError::OtherCluster { own, other, peer })
            });
        }
        let this = self.clone();
        blocking(move || {
            this.data.update(|identity| {
                let founders = identity.formation().unwrap_or_default().nodes;
                let mut book = AddressBook::of(founders.into_iter().chain(identity.nodes()));
                for member in &members {
                    if let Err(reason) = book.meet(member) {
                        tracing::warn!("{reason}");
                    }
                }
                let nodes: Vec<NodeDescriptor> = book.nodes().cloned().collect();
                identity.set_nodes(&nodes);
            })?;
            Ok(())
        })
        .await
    }

    /// Makes this directory the founding node that the formation names. `None` if it does not name
    /// this directory.
    async fn become_founding_node(
        self: &Arc<Self>,
        formation: &Formation,
    ) -> Result<Option<Membership>, BootstrapError> {
        let me = formation.nodes.iter().find(|n| n.directory_id == self.node.directory_id);
        let Some(node_id) = me.map(|node| node.node_id) else { return Ok(None) };
        let membership = Membership { cluster_id: formation.cluster_id, node_id };
        let (this, formation) = (self.clone(), formation.clone());
        blocking(move || {
            (this.found)(&formation, node_id)?;
            this.data.update(|identity| identity.become_member(membership, Some(&formation)))?;
            Ok(())
        })
        .await?;
        tracing::info!(
            cluster_id = format!("{:016x}", membership.cluster_id),
            node_id,
            "the cluster is formed"
        );
        Ok(Some(membership))
    }
}

fn is_other(own: Membership, reply: &BootstrapReply) -> bool {
    reply.cluster_id != 0 && reply.cluster_id != own.cluster_id
}

/// Runs work that syncs files, apart from the tasks that answer.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BootstrapError> + Send + 'static,
) -> Result<T, BootstrapError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

#[cfg(test)]
mod tests;
