//! Address book: every node that this one has heard of, and its addresses.
//!
//! Two sources fill it. The control plane's answers name every node of the cluster. Nodes that are
//! asked for their identity answer for themselves; this is the only source while the control plane
//! cannot be found. Of two addresses of a node, the one from its later start is newer, whichever
//! source it comes from. The state of a node comes from the control plane alone.

use std::collections::BTreeMap;

use rangedb_proto::v1::NodeDescriptor;

/// Nodes in the book above which a node that reports itself is not added: more than a cluster has.
/// Nodes that the control plane names are always added.
const NODES_MAX: usize = 4096;

/// Every known node by id.
#[derive(Default)]
pub struct AddressBook(BTreeMap<u64, NodeDescriptor>);

/// Change of the book by a node that reported itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Met {
    Unchanged,
    New,
    Moved,
}

impl AddressBook {
    /// Creates the book from nodes in any order. Of two with one id, the newer one is kept.
    pub fn of(nodes: impl IntoIterator<Item = NodeDescriptor>) -> Self {
        let mut book = AddressBook::default();
        nodes.into_iter().for_each(|node| book.learn_one(node));
        book
    }

    pub fn get(&self, node_id: u64) -> Option<&NodeDescriptor> {
        self.0.get(&node_id)
    }

    /// All known nodes, in order of their ids.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeDescriptor> {
        self.0.values()
    }

    /// Takes in the nodes that the control plane named.
    pub fn learn(&mut self, nodes: Vec<NodeDescriptor>) {
        nodes.into_iter().for_each(|node| self.learn_one(node));
    }

    fn learn_one(&mut self, node: NodeDescriptor) {
        let known = self.0.get_mut(&node.node_id).filter(|known| known.starts > node.starts);
        match known {
            // The node has moved, and the control plane does not know it yet.
            Some(known) => known.state = node.state,
            None => {
                self.0.insert(node.node_id, node);
            }
        }
    }

    /// Takes in a node's report about itself.
    ///
    /// # Errors
    /// The id belongs to another data directory, so the node is not the one that it claims to be.
    /// Or the node is unknown and the book is full.
    pub fn meet(&mut self, node: &NodeDescriptor) -> Result<Met, String> {
        let is_full = self.0.len() >= NODES_MAX;
        let Some(known) = self.0.get_mut(&node.node_id) else {
            if is_full {
                return Err(format!("of {NODES_MAX} nodes none is node {}", node.node_id));
            }
            self.0.insert(node.node_id, node.clone());
            return Ok(Met::New);
        };
        if known.directory_id != node.directory_id {
            return Err(format!(
                "{} says that it is node {} with the data directory {:016x}, but that node has {:016x}",
                node.peer_address, node.node_id, node.directory_id, known.directory_id
            ));
        }
        let moved = node.starts > known.starts && node.peer_address != known.peer_address;
        if node.starts > known.starts {
            let state = known.state;
            *known = NodeDescriptor { state, ..node.clone() };
        }
        Ok(if moved { Met::Moved } else { Met::Unchanged })
    }
}

#[cfg(test)]
mod tests {
    use rangedb_proto::v1::NodeState;

    use super::*;

    fn node(node_id: u64, peer_address: &str, starts: u64) -> NodeDescriptor {
        let peer_address = peer_address.to_owned();
        NodeDescriptor {
            node_id,
            directory_id: 70 + node_id,
            peer_address,
            starts,
            ..Default::default()
        }
    }

    fn address(book: &AddressBook, node_id: u64) -> &str {
        &book.get(node_id).unwrap().peer_address
    }

    #[test]
    fn two_nodes_that_swapped_their_addresses_are_found_again() {
        let mut book = AddressBook::of([node(1, "a:1", 1), node(2, "b:1", 1)]);
        assert_eq!(book.meet(&node(2, "a:1", 2)), Ok(Met::Moved));
        assert_eq!(book.meet(&node(1, "b:1", 2)), Ok(Met::Moved));
        assert_eq!((address(&book, 1), address(&book, 2)), ("b:1", "a:1"));
    }

    #[test]
    fn what_the_control_plane_says_does_not_undo_a_later_move() {
        let mut book = AddressBook::of([node(1, "a:1", 1)]);
        assert_eq!(book.meet(&node(1, "b:1", 2)), Ok(Met::Moved));
        let mut removed = node(1, "a:1", 1);
        removed.set_state(NodeState::NodeRemoved);
        book.learn(vec![removed]);
        assert_eq!(address(&book, 1), "b:1");
        assert_eq!(book.get(1).unwrap().state(), NodeState::NodeRemoved);
        book.learn(vec![node(1, "c:1", 3)]);
        assert_eq!(address(&book, 1), "c:1");
    }

    #[test]
    fn who_it_is_not_is_not_believed() {
        let mut book = AddressBook::of([node(1, "a:1", 1)]);
        let stranger = NodeDescriptor { directory_id: 1, ..node(1, "b:1", 9) };
        assert!(book.meet(&stranger).is_err());
        assert_eq!(address(&book, 1), "a:1");
        assert_eq!(book.meet(&node(1, "old:1", 1)), Ok(Met::Unchanged));
        assert_eq!(address(&book, 1), "a:1");
        assert_eq!(book.meet(&node(2, "b:1", 1)), Ok(Met::New));
    }
}
