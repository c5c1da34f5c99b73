//! New nodes: ids are given once to each data directory.

use prost::Message;
use rangedb_proto::v1::{self, JoinCluster, JoinClusterReply, NodeDescriptor, NodeState};

use super::commit::{at_version, put};
use super::{Control, keys};

/// A node at the same address that was heard of this recently is alive, and no other may take its
/// place.
const ALIVE_WITHIN: std::time::Duration = std::time::Duration::from_secs(3);

/// Bytes of an address at most: the longest host name of DNS, and a port.
const ADDRESS_BYTES_MAX: usize = 253 + ":65535".len();

/// Bytes of a version at most: several times what `rangedb version` prints.
const VERSION_BYTES_MAX: usize = 64;

impl Control {
    pub(super) async fn join(&self, request: JoinCluster) -> Result<JoinClusterReply, v1::Error> {
        let asking = request.node.unwrap_or_default();
        if asking.directory_id == 0 || asking.peer_address.is_empty() {
            return Err(v1::Error::invalid("node", "a directory id and a peer address are needed"));
        }
        check_words(&asking)?;
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

/// Refuses what is no address of a node, or its version: every node is told of it, and people read it.
/// Addresses may be missing.
pub(super) fn check_words(node: &NodeDescriptor) -> Result<(), v1::Error> {
    let addresses = [&node.peer_address, &node.client_address, &node.status_address];
    if let Some(wrong) = addresses.into_iter().find(|a| !a.is_empty() && !is_address(a)) {
        let shown: String = wrong.escape_default().take(ADDRESS_BYTES_MAX).collect();
        return Err(v1::Error::invalid("node", format!("`{shown}` is not of the form HOST:PORT")));
    }
    if node.version.len() > VERSION_BYTES_MAX || !is_one_word(&node.version) {
        return Err(v1::Error::invalid("node", "its version is not a version"));
    }
    Ok(())
}

fn is_address(address: &str) -> bool {
    let is_host = |host: &str| !host.is_empty() && !host.contains('/');
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    address.len() <= ADDRESS_BYTES_MAX
        && is_one_word(address)
        && address.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && is_port(port))
}

fn is_one_word(text: &str) -> bool {
    !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(peer_address: &str) -> NodeDescriptor {
        NodeDescriptor { peer_address: peer_address.to_owned(), ..Default::default() }
    }

    #[test]
    fn addresses_are_a_host_and_a_port() {
        for good in ["n1:8080", "127.0.0.1:1", "[::1]:65535", "db-0.db.svc:8080", "rätsel:80", ""]
        {
            assert_eq!(check_words(&at(good)), Ok(()), "{good}");
        }
        let long = format!("{}:1", "a".repeat(ADDRESS_BYTES_MAX - 1));
        let bad =
            ["n1", ":1", "n1:", "n1:0", "n1:65536", "a b:1", "evil\n\x1b[31m:1", "a/b:1", &long];
        for bad in bad {
            assert!(check_words(&at(bad)).is_err(), "{bad}");
            let node = NodeDescriptor { client_address: bad.to_owned(), ..at("n1:1") };
            assert!(check_words(&node).is_err(), "{bad}");
        }
        let refused = check_words(&at(&"\u{1b}".repeat(3 << 20))).unwrap_err();
        assert!(refused.message.len() < 2 * ADDRESS_BYTES_MAX, "{}", refused.message.len());
        assert!(!refused.message.contains('\u{1b}'));
    }

    #[test]
    fn a_version_is_a_short_word() {
        let of = |version: &str| NodeDescriptor { version: version.to_owned(), ..at("n1:1") };
        assert_eq!(check_words(&of("0.1.0-dev+abc")), Ok(()));
        for bad in ["1\n2".to_owned(), "1".repeat(VERSION_BYTES_MAX + 1)] {
            assert!(check_words(&of(&bad)).is_err(), "{bad}");
        }
    }
}
