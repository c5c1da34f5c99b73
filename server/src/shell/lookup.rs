//! Lookup of nodes while the control plane cannot tell where they are.
//!
//! Once there is a control plane, its answers to heartbeats name every node's addresses. When a
//! majority came back at other addresses there is none, and none can be elected before the nodes have
//! found each other. So a node whose heartbeats go unanswered, or that met a stranger where another
//! node should be, asks who is at each address that it knows: those of the command line and those of
//! its address book. Whoever opens a stream of raft messages says where it is, and is asked there
//! too: a node that stayed where it was need not be told where the others went. What a node says of
//! itself counts if it is of this cluster and has the data directory that belongs to its id.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::node::{Met, Node};
use crate::shell::bootstrap::peers;
use crate::shell::identity::Membership;
use crate::shell::transport::Directory;

/// Time between two checks for nodes that have to be looked up.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Heartbeats go out every half second; an election takes about two.
const UNANSWERED_MIN: Duration = Duration::from_secs(2);

/// Between two rounds. A round that finds nothing new doubles the pause.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// Addresses asked in one round at most, each on a connection of its own. The next round goes on
/// behind them.
const ADDRESSES_MAX: usize = 64;

/// Nodes that are not believed and were named in the log at most.
const SAID_MAX: usize = 64;

/// See the module's head.
pub(crate) struct Lookup {
    pub own: Membership,
    pub node: Arc<Node>,
    pub directory: Arc<Directory>,
    /// Addresses from the command line.
    pub seeds: Vec<String>,
}

impl Lookup {
    /// Until it is dropped.
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

    /// Every address at which a node may be; this node's own aside.
    fn addresses(&self) -> Vec<String> {
        let known = self.node.address_book().into_iter().map(|node| node.peer_address);
        let own = &self.node.descriptor().peer_address;
        let all: BTreeSet<String> = known.chain(self.seeds.iter().cloned()).collect();
        all.into_iter().filter(|address| address != own).collect()
    }

    /// True if a node was found where this one did not know it to be.
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
                // Once for each id: it will answer the same again.
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
