//! Records of the IDENTITY file for messages of the wire. The records have field names, for people
//! to read. They are separate from the messages, so that each format can change without the other.

use rangedb_proto::v1::{BootstrapBallot, Formation, NodeDescriptor};
use serde::{Deserialize, Serialize};

/// Cluster and node that a data directory belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Membership {
    pub cluster_id: u64,
    pub node_id: u64,
}

/// Ballot of an attempt to form a cluster, ordered by round and then by the proposer's directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Ballot {
    pub round: u64,
    pub directory_id: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Accepted {
    pub ballot: Ballot,
    pub formation: FormationRecord,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct FormationRecord {
    cluster_id: u64,
    replication_factor: u32,
    nodes: Vec<NodeRecord>,
    #[serde(default)]
    split_keys: Vec<String>,
    #[serde(default)]
    founded_unix_ms: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct NodeRecord {
    node_id: u64,
    peer_address: String,
    client_address: String,
    status_address: String,
    directory_id: u64,
    state: i32,
    version: String,
    #[serde(default)]
    starts: u64,
}

impl From<BootstrapBallot> for Ballot {
    fn from(ballot: BootstrapBallot) -> Self {
        Ballot { round: ballot.round, directory_id: ballot.directory_id }
    }
}

impl From<Ballot> for BootstrapBallot {
    fn from(ballot: Ballot) -> Self {
        BootstrapBallot { round: ballot.round, directory_id: ballot.directory_id }
    }
}

impl From<&Formation> for FormationRecord {
    fn from(formation: &Formation) -> Self {
        FormationRecord {
            cluster_id: formation.cluster_id,
            replication_factor: formation.replication_factor,
            nodes: formation.nodes.iter().map(NodeRecord::from).collect(),
            split_keys: formation.split_keys.clone(),
            founded_unix_ms: formation.founded_unix_ms,
        }
    }
}

impl From<&FormationRecord> for Formation {
    fn from(record: &FormationRecord) -> Self {
        Formation {
            cluster_id: record.cluster_id,
            replication_factor: record.replication_factor,
            nodes: record.nodes.iter().map(NodeDescriptor::from).collect(),
            split_keys: record.split_keys.clone(),
            founded_unix_ms: record.founded_unix_ms,
        }
    }
}

impl From<&NodeDescriptor> for NodeRecord {
    fn from(node: &NodeDescriptor) -> Self {
        NodeRecord {
            node_id: node.node_id,
            peer_address: node.peer_address.clone(),
            client_address: node.client_address.clone(),
            status_address: node.status_address.clone(),
            directory_id: node.directory_id,
            state: node.state,
            version: node.version.clone(),
            starts: node.starts,
        }
    }
}

impl From<&NodeRecord> for NodeDescriptor {
    fn from(record: &NodeRecord) -> Self {
        NodeDescriptor {
            node_id: record.node_id,
            peer_address: record.peer_address.clone(),
            client_address: record.client_address.clone(),
            status_address: record.status_address.clone(),
            directory_id: record.directory_id,
            state: record.state,
            version: record.version.clone(),
            starts: record.starts,
        }
    }
}
