//! Lookup of nodes while the control plane cannot tell where they are.
//!
//! While there is a control plane, its answers to heartbeats name every node's addresses. If a
//! majority came back at other addresses, there is no control plane, and none can be elected before
//! the nodes have found each other. So a node asks each address that it knows which node is there,
//! in two cases: its heartbeats go unanswered, or another node answered at a node's address. It
//! knows the addresses of its command line and of its address book.
//!
//! A node that opens a stream of Raft messages says where it is reached, and the receiver asks
//! there too. So a node that kept its address need not be told the new addresses of others. An
//! answer counts if it comes from this cluster, and from the data directory that belongs to the
//! node's id.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::node::{Met, Node};
use crate::shell::bootstrap::peers;
use crate::shell::identity::Membership;
use crate::shell::transport::Directory;

/// Time between two checks for nodes that have to be looked up.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Time without an answer to a heartbeat after which a node looks others up. Heartbeats go out
/// every half second; an election takes about two seconds.
const UNANSWERED_MIN: Duration = Duration::from_secs(2);

/// Bounds of the pause between two rounds. A round that finds nothing new doubles the pause.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// Maximum number of addresses asked in one round, each on a connection of its own. The next round
/// continues after them.
const ADDRESSES_MAX: usize = 64;

/// Maximum number of nodes that are named in the log because they are not believed.
const SAID_MAX: usize = 64;

/// Task that looks up nodes while the control plane cannot tell where they are.
pub(crate) struct Lookup {
    pub own: Membership,
    pub node: Arc<Node>,
    pub directory: Arc<Directory>,
    /// Addresses from the command line.
    pub seeds: Vec<String>,
}

impl Lookup {
    /// Looks up nodes until the future is dropped.
    pub async fn run(self) {
        let mut pause = PAUSE_MIN;
        let mut asked_before = 0;
        let mut said = BTreeSet::new();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let mut addresses: Vec<String> = self.directory.take_hints().into_iter().collect();
            let is_lost =
                self.directory.take_misled() || self.node.unanswered_for() >= UNANSWERED_MIN;
            if is_lost {
                let mut known = self.addresses();
                let count = known.len().max(1);
                known.rotate_left(asked_before % count);
                known.truncate(ADDRESSES_MAX);
                asked_before = (asked_before + known.len()) % count;
                addresses.extend(known);
            } else {
                pause = PAUSE_MIN;
            }
            if addresses.is_empty() {
                continue;
            }
            let found = self.ask(&addresses, &mut said).await;
            pause = if found { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
            self.rest(pause).await;
        }
    }

    /// Waits for the next round; a hint ends the wait.
    async fn rest(&self, pause: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < pause && !self.directory.has_hints() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Returns every address at which a node may be, except this node's own.
    fn addresses(&self) -> Vec<String> {
        let known = self.node.address_book().into_iter().map(|node| node.peer_address);
        let own = &self.node.descriptor().peer_address;
        let all: BTreeSet<String> = known.chain(self.seeds.iter().cloned()).collect();
        all.into_iter().filter(|address| address != own).collect()
    }

    /// Asks the addresses. True if a node was found at an address that was not known to be its own.
    async fn ask(&self, addresses: &[String], said: &mut BTreeSet<u64>) -> bool {
        let mut found = false;
        for member in peers::members(self.own, &peers::probe_all(addresses).await) {
            let (node_id, address) = (member.node_id, &member.peer_address);
            match self.node.meet(&member) {
                Ok(Met::Unchanged) => {}
                Ok(Met::New | Met::Moved) => {
                    found = true;
                    tracing::info!(node_id, address, "found a node at another address");
                }
                // Logged once per id: the node will answer the same again.
                Err(reason) => {
                    if said.len() < SAID_MAX && said.insert(node_id) {
                        tracing::warn!("{reason}");
                    }
                }
            }
        }
        found
    }
}
