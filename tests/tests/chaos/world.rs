//! A cluster of real processes on a network with faults, and all operations on it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;

use super::link::State;
use super::network::{Network, NetworkPlace};
use crate::support::cluster::{Cluster, SMALL_LOG};
use crate::support::ports::free_address;
use crate::support::wait::{check, until};

/// Voters of a range, if there are enough nodes.
const REPLICATION_FACTOR: usize = 3;

/// Maximum time until a healed cluster has all its replicas again. In the longest case, a follower
/// was away, receives a snapshot, and catches up.
const WHOLE_AGAIN: Duration = Duration::from_secs(90);

/// Split keys that make six ranges of the two founding ranges of users. Each founding range becomes
/// two ranges for accounts and one for lists and registers.
const SPLIT_KEYS: &str = "/bank/account/000004,/c,bank/account/000005,c";

pub struct World {
    pub cluster: Cluster,
    pub network: Network,
    down: BTreeSet<NetworkPlace>,
    frozen: BTreeSet<NetworkPlace>,
}

impl World {
    /// Starts a cluster with a drawn configuration and waits until it serves.
    pub async fn start(nodes: usize, rng: &mut Rng) -> World {
        let mut cluster = Cluster::of(nodes).await;
        let mut network = Network::of(nodes);
        for (place, node) in cluster.nodes.iter_mut().enumerate() {
            let actual_host = format!("127.0.2.{}", place + 1);
            let mut advertise = || {
                let free = free_address();
                let port = port_of(&free);
                let advertised = format!("127.0.1.{}:{port}", place + 1);
                let actual = format!("{actual_host}:{port}");
                network.serve(place, parse(&advertised), parse(&actual));
                advertised
            };
            node.peer = advertise();
            node.client = advertise();
            node.status = format!("{actual_host}:{}", port_of(&free_address()));
            node.flags = vec!["--cluster-init".to_owned(), "--listen-host".to_owned(), actual_host];
        }
        let peers: Vec<String> = cluster.nodes.iter().map(|node| node.peer.clone()).collect();
        let read_mode = if rng.u8(0..4) == 0 { "read-index" } else { "lease" };
        for node in &mut cluster.nodes {
            node.flags.extend(["--peers".to_owned(), peers.join(",")]);
            node.flags.extend(["--read-mode".to_owned(), read_mode.to_owned()]);
        }
        // Half of the clusters truncate their logs early and need snapshots.
        let cluster = if rng.bool() { cluster.configured(SMALL_LOG) } else { cluster };
        let splits = ["--split-keys", SPLIT_KEYS];
        let cluster = if rng.bool() { cluster.with_flags(splits) } else { cluster };
        let (down, frozen) = ((0..nodes).collect(), BTreeSet::new());
        let mut world = World { cluster, network, down, frozen };
        world.start_all();
        world.whole().await;
        world
    }

    pub fn nodes(&self) -> usize {
        self.cluster.nodes.len()
    }

    pub fn endpoints(&self, first: NetworkPlace) -> String {
        let clients = self.cluster.nodes.iter().map(|node| node.client.as_str());
        let clients: Vec<&str> = clients.cycle().skip(first).take(self.nodes()).collect();
        clients.join(",")
    }

    pub fn kill(&mut self, node: NetworkPlace) {
        if self.down.insert(node) {
            self.frozen.remove(&node);
            self.network.sources.set(node, None);
            self.cluster.nodes[node].kill();
        }
    }

    /// Stops a node gracefully, unless it is frozen or down.
    pub async fn stop(&mut self, node: NetworkPlace) {
        if !self.frozen.contains(&node) && self.down.insert(node) {
            let status = self.cluster.nodes[node].stop().await;
            self.network.sources.set(node, None);
            assert!(status.success(), "n{} stopped with {status}", node + 1);
        }
    }

    pub fn start_node(&mut self, node: NetworkPlace) {
        if self.down.remove(&node) {
            self.cluster.nodes[node].start();
            let process = self.cluster.nodes[node].process().id();
            self.network.sources.set(node, Some(process));
        }
    }

    pub async fn freeze(&mut self, node: NetworkPlace) {
        if !self.down.contains(&node) && self.frozen.insert(node) {
            self.cluster.nodes[node].process().freeze().await;
        }
    }

    pub fn thaw(&mut self, node: NetworkPlace) {
        if self.frozen.remove(&node) {
            self.cluster.nodes[node].process().thaw();
        }
    }

    pub fn set(&self, links: &[(NetworkPlace, NetworkPlace)], state: State) {
        links.iter().for_each(|link| self.network.set(*link, state));
    }

    /// Mends everything: all nodes run and all links are open.
    pub fn heal(&mut self) {
        self.network.heal();
        (0..self.nodes()).for_each(|node| self.thaw(node));
        self.start_all();
    }

    fn start_all(&mut self) {
        (0..self.nodes()).for_each(|node| self.start_node(node));
    }

    /// Returns a node that has ended and was not killed.
    pub fn ended_by_itself(&mut self) -> Option<NetworkPlace> {
        let running = |node: &NetworkPlace| !self.down.contains(node);
        (0..self.nodes()).filter(running).find(|node| !self.cluster.nodes[*node].is_running())
    }

    /// Waits until every node serves and every range has all its voters.
    pub async fn whole(&mut self) {
        for place in 0..self.nodes() {
            let node = &self.cluster.nodes[place];
            until(&format!("{} is ready", node.name), WHOLE_AGAIN, async || {
                let answer = node.http("/readyz").await?;
                check(answer.code == 200, answer.body)
            })
            .await;
        }
        self.cluster.replicated(REPLICATION_FACTOR.min(self.nodes()), WHOLE_AGAIN).await;
    }
}

fn port_of(address: &str) -> &str {
    address.rsplit_once(':').expect("an address has a port").1
}

fn parse(address: &str) -> SocketAddr {
    address.parse().expect("an address of loopback")
}
