//! `rangedb admin ...`: commands about the cluster itself. This file holds what they share: the
//! words for states and roles, and the format of lists of ids.

mod cluster_status;
mod config;
mod debug;
mod gc;
mod meta;
mod node;
mod partition;

use clap::Subcommand;
use rangedb_proto::v1;

use crate::failure::Failure;
use crate::session::Session;

/// Look at a cluster and change how it works
#[derive(Debug, Subcommand)]
pub enum Admin {
    /// The cluster as a whole
    #[command(subcommand)]
    Cluster(Cluster),
    #[command(subcommand)]
    Node(node::Node),
    #[command(subcommand)]
    Partition(partition::Partition),
    #[command(subcommand, visible_alias = "metadata")]
    Meta(meta::Meta),
    #[command(subcommand)]
    Config(config::Config),
    #[command(subcommand)]
    Gc(gc::Gc),
    #[command(subcommand)]
    Debug(debug::Debug),
    /// Change a setting: short for `config set`
    Set(config::Set),
}

#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Show the cluster's id, its nodes, and whether every range has its replicas
    Status,
}

impl Admin {
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        match self {
            Admin::Cluster(Cluster::Status) => cluster_status::run(session).await,
            Admin::Node(node) => node.run(session).await,
            Admin::Partition(partition) => partition.run(session).await,
            Admin::Meta(meta) => meta.run(session).await,
            Admin::Config(config) => config.run(session).await,
            Admin::Gc(gc) => gc.run(session).await,
            Admin::Debug(debug) => debug.run(session).await,
            Admin::Set(set) => set.run(session).await,
        }
    }
}

/// Returns the word for a node's state.
fn node_state(state: i32) -> String {
    match v1::NodeState::try_from(state) {
        Ok(v1::NodeState::NodeUp) => "up".to_owned(),
        Ok(v1::NodeState::NodeDead) => "dead".to_owned(),
        Ok(v1::NodeState::NodeRemoved) => "removed".to_owned(),
        // A state that only newer servers know.
        Err(_) => format!("state {state}"),
    }
}

/// Returns the word for a replica's role.
fn replica_role(role: i32) -> String {
    match v1::ReplicaRole::try_from(role) {
        Ok(v1::ReplicaRole::Voter) => "voter".to_owned(),
        Ok(v1::ReplicaRole::Learner) => "learner".to_owned(),
        Ok(v1::ReplicaRole::IncomingVoter) => "incoming".to_owned(),
        Ok(v1::ReplicaRole::OutgoingVoter) => "outgoing".to_owned(),
        Err(_) => format!("role {role}"),
    }
}

/// Returns the node's id, or none where the protocol says 0.
fn known_node(node_id: u64) -> Option<u64> {
    (node_id != 0).then_some(node_id)
}

/// Formats ids as a table's cell: separated by commas, or `-` if there are none.
fn list<T: ToString>(ids: impl IntoIterator<Item = T>) -> String {
    let ids: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
    if ids.is_empty() { "-".to_owned() } else { ids.join(",") }
}
