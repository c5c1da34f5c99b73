//! Joining of new nodes: each data directory is given an id once.

use rangedb_proto::v1::{self, JoinCluster, JoinClusterReply, NodeDescriptor, NodeState};

use super::Control;
use super::settings::{self, NODE_REPLACE_AFTER};
use crate::surroundings::storage_error;
use crate::system::Changes;
use crate::system::records;

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
        let known = self.known(&asking);
        if let Some(known) = known.same_directory {
            if known.state() == NodeState::NodeRemoved {
                return Err(removed(known.node_id));
            }
            return Ok(self.joined(known.node_id));
        }
        self.refuse_taken_address(&asking, &known.same_address)?;
        let counter = self.store.read().await?.get(&records::NEXT_NODE_ID.only())?;
        let counter = counter.ok_or_else(|| {
            storage_error(rangedb_storage::Error::corrupt("the next node id is gone"))
        })?;
        let node_id = counter.record;
        let node = NodeDescriptor { node_id, state: NodeState::NodeUp.into(), ..asking };
        let mut changed = vec![node];
        for mut silent in known.same_address {
            silent.set_state(NodeState::NodeRemoved);
            changed.push(silent);
        }
        let mut changes = Changes::default()
            .if_version(records::NEXT_NODE_ID.only(), counter.version)
            .put(records::NEXT_NODE_ID.only(), &(node_id + 1));
        for node in &changed {
            changes = changes.put(records::NODES.key(node.node_id), node);
        }
        self.commit(changes).await?;

        self.state().nodes.extend(changed.into_iter().map(|node| (node.node_id, node)));
        Ok(self.joined(node_id))
    }

    fn joined(&self, node_id: u64) -> JoinClusterReply {
        let nodes = self.state().nodes.values().cloned().collect();
        JoinClusterReply { cluster_id: self.around.cluster_id, node_id, nodes }
    }

    /// Refuses a data directory at the address of a member that was heard of within
    /// `node_replace_after`. The directory may be the member's own, on a disk that was replaced. It
    /// may as well be another one, started with the wrong address or beside a volume that is not
    /// mounted. Only an operator knows which, or time tells.
    fn refuse_taken_address(
        &self,
        asking: &NodeDescriptor,
        members: &[NodeDescriptor],
    ) -> Result<(), v1::Error> {
        let (state, now) = (self.state(), self.around.net.now());
        let grace = state.settings().node_replace_after;
        let heard = members.iter().find(|member| state.silence(member.node_id, now) < grace);
        heard.map_or(Ok(()), |member| {
            let is_alive = state.silence(member.node_id, now) < settings::REPLACE_AFTER_MIN;
            Err(address_taken(asking, member, is_alive, &state.setting(NODE_REPLACE_AFTER)))
        })
    }

    fn known(&self, asking: &NodeDescriptor) -> Known {
        let state = self.state();
        let find =
            |test: &dyn Fn(&&NodeDescriptor) -> bool| state.nodes.values().find(test).cloned();
        Known {
            same_directory: find(&|node| node.directory_id == asking.directory_id),
            same_address: state
                .nodes
                .values()
                .filter(|node| node.peer_address == asking.peer_address)
                .filter(|node| node.state() != NodeState::NodeRemoved)
                .cloned()
                .collect(),
        }
    }
}

struct Known {
    same_directory: Option<NodeDescriptor>,
    /// More than one if nodes swap addresses and not all have reported yet.
    same_address: Vec<NodeDescriptor>,
}

/// Reason why a data directory is not admitted at a member's address. The text stays the same while
/// the directory waits.
fn address_taken(
    asking: &NodeDescriptor,
    member: &NodeDescriptor,
    is_alive: bool,
    grace: &str,
) -> v1::Error {
    let (id, address) = (member.node_id, &asking.peer_address);
    let directories = format!(
        "node {id} with the data directory {:016x} is at {address}, and this is the data directory \
         {:016x}",
        member.directory_id, asking.directory_id
    );
    if is_alive {
        return v1::Error::failed_precondition(format!(
            "{directories}: node {id} was alive a moment ago. If it still runs, start this one with an \
             address of its own; if its data are gone for good, give its place free with `rangedb admin \
             node remove {id} --confirm`"
        ));
    }
    v1::Error::failed_precondition(format!(
        "{directories}: if a volume is not mounted, mount it and start again; if the data of node {id} \
         are gone for good, give its place free with `rangedb admin node remove {id} --confirm`. After \
         {grace} of silence (`node_replace_after`) that happens by itself"
    ))
}

pub(super) fn removed(node_id: u64) -> v1::Error {
    v1::Error::failed_precondition(format!(
        "node {node_id} was removed from the cluster; start it with an empty data directory to join \
         as a new node"
    ))
}

/// Refuses text that is not an address of a node, or not its version: every node learns the text,
/// and people read it. Addresses may be missing.
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

/// True if a node's description of itself has a peer address and can be stored and shown.
pub fn describes_a_node(node: &NodeDescriptor) -> bool {
    !node.peer_address.is_empty() && check_words(node).is_ok()
}

/// True if the address is of the form HOST:PORT.
pub fn is_address(address: &str) -> bool {
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
    fn who_waits_for_a_members_address_is_told_what_frees_it() {
        let member = NodeDescriptor { node_id: 2, directory_id: 0xab, ..at("n2:1") };
        let asking = NodeDescriptor { directory_id: 0xcd, ..at("n2:1") };
        for (is_alive, way_out) in
            [(true, "an address of its own"), (false, "After 10m of silence")]
        {
            let said = address_taken(&asking, &member, is_alive, "10m").message;
            for part in
                ["00000000000000ab", "00000000000000cd", "n2:1", "node remove 2 --confirm", way_out]
            {
                assert!(said.contains(part), "{part}: {said}");
            }
        }
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
