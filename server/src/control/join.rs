//! New nodes: ids are given once to each data directory.

use prost::Message;
use rangedb_proto::v1::{self, JoinCluster, JoinClusterReply, NodeDescriptor, NodeState};

use super::commit::{at_version, put};
use super::{Control, keys};

/// A node at the same address that was heard of this recently is alive, and no other may take its
/// place.
const ALIVE_WITHIN: std::time::Duration = std::time::Duration::from_secs(3);

impl Control {
    pub(super) async fn join(&self, request: JoinCluster) -> Result<JoinClusterReply, v1::Error> {
        let asking = request.node.unwrap_or_default();
        if asking.directory_id == 0 || asking.peer_address.is_empty() {
            return Err(v1::Error::invalid("node", "a directory id and a peer address are needed"));
        }
        let _change = self.changing.lock().await;
        let cluster_id = self.around.cluster_id;
        let known = self.known(&asking);
        if let Some(known) = known.same_directory {
            if known.state() == NodeState::NodeRemoved {
                return Err(removed(known.node_id));
            }
            return Ok(JoinClusterReply { cluster_id, node_id: known.node_id });
        }
        if let Some(other) = &known.same_address {
            let silence = self.state().silence(other.node_id, self.around.net.now());
            if silence < ALIVE_WITHIN {
                let id = other.node_id;
                let message = format!("node {id} is alive at {}", asking.peer_address);
                return Err(v1::Error::unavailable(message));
            }
        }
        let counter = self.around.get_control(keys::NEXT_NODE_ID).await?.ok_or_else(|| {
            crate::node::storage_error(rangedb_storage::Error::corrupt("the next node id is gone"))
        })?;
        let node_id: u64 = String::from_utf8_lossy(&counter.value).parse().map_err(|_| {
            crate::node::storage_error(rangedb_storage::Error::corrupt("the next node id"))
        })?;
        let node = NodeDescriptor { node_id, state: NodeState::NodeUp.into(), ..asking };
        let mut changed = vec![node];
        // A wiped node comes back under a new id: the old one's replicas are gone with its directory.
        if let Some(mut wiped) = known.same_address {
            wiped.set_state(NodeState::NodeRemoved);
            changed.push(wiped);
        }
        let conditions = vec![at_version(keys::NEXT_NODE_ID.into(), counter.version)];
        let mut writes = vec![put(keys::NEXT_NODE_ID.into(), (node_id + 1).to_string())];
        let nodes = changed.iter();
        writes.extend(nodes.map(|node| put(keys::node(node.node_id), node.encode_to_vec())));
        self.commit(conditions, writes).await?;

        let mut state = self.state();
        state.nodes.extend(changed.into_iter().map(|node| (node.node_id, node)));
        Ok(JoinClusterReply { cluster_id, node_id })
    }

    fn known(&self, asking: &NodeDescriptor) -> Known {
        let state = self.state();
        let find =
            |test: &dyn Fn(&&NodeDescriptor) -> bool| state.nodes.values().find(test).cloned();
        Known {
            same_directory: find(&|node| node.directory_id == asking.directory_id),
            same_address: find(&|node| {
                node.peer_address == asking.peer_address && node.state() != NodeState::NodeRemoved
            }),
        }
    }
}

struct Known {
    same_directory: Option<NodeDescriptor>,
    same_address: Option<NodeDescriptor>,
}

pub(super) fn removed(node_id: u64) -> v1::Error {
    v1::Error::failed_precondition(format!(
        "node {node_id} was removed from the cluster; start it with an empty data directory to join \
         as a new node"
    ))
}
