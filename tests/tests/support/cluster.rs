//! Clusters: nodes that belong together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::TryStreamExt;
use rangedb_client::{Client, Config};
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{ClusterStatus, PartitionStatus};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::cli::{self, Ran};
use super::node::Node;
use super::wait::{SOON, check, until};

/// Maximum number of clusters that run at the same time. Each has several processes that sync to
/// the same disk. With more clusters, elections would begin because the processor is busy, and not
/// because of a test's actions.
const CLUSTERS_MAX: usize = 2;

static SLOTS: Semaphore = Semaphore::const_new(CLUSTERS_MAX);

/// Timeout of the clients of tests: longer than any failover.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum time until leaderships are balanced. A leadership rests for twenty seconds before it is
/// moved, and moves are made one at a time.
const BALANCED: Duration = Duration::from_secs(120);

/// Settings that make a node flush its state and drop its log after a few hundred kilobytes, so
/// that a test need not write gigabytes.
pub const SMALL_LOG: &str = "[raft]\nflush_log_bytes = \"256KiB\"\nlog_keep_bytes = \"128KiB\"\n";

pub struct Cluster {
    pub nodes: Vec<Node>,
    directory: TempDir,
    _slot: SemaphorePermit<'static>,
}

impl Cluster {
    /// Makes nodes that form a cluster among themselves once they are started.
    pub async fn of(count: usize) -> Cluster {
        let slot = SLOTS.acquire().await.expect("never closed");
        let directory = tempfile::tempdir().expect("a test can make a directory");
        let mut nodes: Vec<Node> =
            (1..=count).map(|number| Node::new(directory.path(), &format!("n{number}"))).collect();
        let peers: Vec<String> = nodes.iter().map(|node| node.peer.clone()).collect();
        for node in &mut nodes {
            node.flags = vec!["--cluster-init".to_owned()];
            if count > 1 {
                node.flags.extend(["--peers".to_owned(), peers.join(",")]);
            }
        }
        Cluster { nodes, directory, _slot: slot }
    }

    /// Starts a cluster and waits until it is ready for requests.
    pub async fn started(count: usize) -> Cluster {
        Self::of(count).await.start().await
    }

    /// Gives every node a configuration file.
    pub fn configured(mut self, toml: &str) -> Cluster {
        let file = self.file("rangedb.toml", toml);
        for node in &mut self.nodes {
            node.flags.extend(["--config".to_owned(), file.display().to_string()]);
        }
        self
    }

    /// Gives every node more flags.
    pub fn with_flags<const N: usize>(mut self, flags: [&str; N]) -> Cluster {
        for node in &mut self.nodes {
            node.flags.extend(flags.map(str::to_owned));
        }
        self
    }

    pub async fn start(mut self) -> Cluster {
        self.nodes.iter_mut().for_each(Node::start);
        self.ready().await;
        self
    }

    /// Waits until every node that runs says that it can serve.
    pub async fn ready(&mut self) {
        for node in self.nodes.iter_mut().filter_map(|node| node.is_running().then_some(node)) {
            node.ready().await;
        }
    }

    /// Adds a node that joins through the existing nodes. The node is not started.
    pub fn joining(&mut self, name: &str) -> usize {
        let known: Vec<String> = self.nodes.iter().map(|node| node.peer.clone()).collect();
        self.joining_through(name, &known.join(","))
    }

    /// Adds a node that knows these peer addresses and no others. The node is not started.
    pub fn joining_through(&mut self, name: &str, peers: &str) -> usize {
        let node = Node::new(self.path(), name).with_flags(["--join", peers]);
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Gives every node a peer list with the current addresses of all nodes.
    pub fn tell_peers(&mut self) {
        let peers: Vec<String> = self.nodes.iter().map(|node| node.peer.clone()).collect();
        for node in &mut self.nodes {
            let place = node.flags.iter().position(|flag| flag == "--peers").expect("it has peers");
            node.flags[place + 1] = peers.join(",");
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file beside the nodes' own.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).expect("a test can write a file");
        path
    }

    pub fn endpoints(&self) -> String {
        let clients: Vec<&str> = self.nodes.iter().map(|node| node.client.as_str()).collect();
        clients.join(",")
    }

    /// Makes a client that begins with any of the nodes.
    pub fn client(&self) -> Client {
        connect(&self.endpoints())
    }

    /// Makes a client that begins with this node.
    pub fn client_of(&self, node: usize) -> Client {
        connect(&self.nodes[node].client)
    }

    pub async fn cli<const N: usize>(&self, arguments: [&str; N]) -> Ran {
        cli::run(&self.endpoints(), arguments).await
    }

    pub async fn status(&self) -> Result<ClusterStatus, rangedb_client::Error> {
        self.client().admin().cluster_status().await
    }

    pub async fn partitions(&self) -> Result<Vec<PartitionStatus>, rangedb_client::Error> {
        self.client().admin().partitions().try_collect().await
    }

    /// Finds the node with this id. Returns its place among the nodes.
    pub async fn place_of(&self, node_id: u64) -> Result<usize, String> {
        let status = self.status().await.map_err(|error| error.to_string())?;
        let known = status.nodes.into_iter().filter_map(|status| status.node);
        let node = known.into_iter().find(|node| node.node_id == node_id);
        let peer = node.ok_or(format!("nobody knows node {node_id}"))?.peer_address;
        let place = self.nodes.iter().position(|node| node.peer == peer);
        place.ok_or(format!("{peer} is no node of this test"))
    }

    /// Returns the ids of the ranges that hold these keys.
    pub async fn ranges_of(&self, keys: &[&str]) -> BTreeSet<u64> {
        let partitions = self.partitions().await.expect("a cluster that runs lists its ranges");
        let reports = partitions.into_iter().filter_map(|partition| partition.report);
        let ranges = reports.filter_map(|report| report.descriptor);
        let holding = ranges.filter(|range| keys.iter().any(|key| range.contains(key.as_bytes())));
        holding.map(|range| range.range_id).collect()
    }

    /// Finds the node that leads the range of a key, as its own report says.
    pub async fn leader_of(&self, key: &[u8]) -> usize {
        until("the range's leader is known", SOON, async || {
            let partitions = self.partitions().await.map_err(|error| error.to_string())?;
            let reports = partitions.into_iter().filter_map(|partition| partition.report);
            let mut holding = reports
                .filter(|report| report.descriptor.as_ref().is_some_and(|d| d.contains(key)));
            let report = holding.next().ok_or("no range holds the key")?;
            self.place_of(report.leader_node_id).await
        })
        .await
    }

    /// Waits until balancing has no more leadership to move: every running node leads about as many
    /// ranges as any other.
    pub async fn balanced(&self) {
        until("leaderships are balanced", BALANCED, async || {
            let partitions = self.partitions().await.map_err(|error| error.to_string())?;
            let mut leaders: BTreeMap<u64, usize> = BTreeMap::new();
            for report in partitions.into_iter().filter_map(|partition| partition.report) {
                *leaders.entry(report.leader_node_id).or_default() += 1;
            }
            let (fewest, most) = (leaders.values().min(), leaders.values().max());
            let is_balanced = fewest.zip(most).is_some_and(|(fewest, most)| most - fewest < 2);
            check(is_balanced && leaders.len() == self.nodes.len(), format!("{leaders:?}"))
        })
        .await;
    }

    /// Waits until every range has this many voters, none of them down or behind, and a leader.
    pub async fn replicated(&self, voters: usize, within: Duration) {
        until(&format!("every range has {voters} good voters"), within, async || {
            let status = self.status().await.map_err(|error| error.to_string())?;
            check(status.ranges_without_leader == 0, "a range has no leader")?;
            let partitions = self.partitions().await.map_err(|error| error.to_string())?;
            check(!partitions.is_empty(), "no range is known")?;
            for partition in partitions {
                check(has_good_voters(&partition, voters), format!("{partition:?}"))?;
            }
            Ok::<_, String>(())
        })
        .await;
    }
}

fn has_good_voters(partition: &PartitionStatus, wanted: usize) -> bool {
    let Some(report) = &partition.report else { return false };
    let replicas = report.descriptor.as_ref().map_or(&[][..], |descriptor| &descriptor.replicas);
    let voters = replicas.iter().filter(|r| r.role() == rangedb_proto::v1::ReplicaRole::Voter);
    voters.count() == wanted
        && replicas.len() == wanted
        && report.down_replica_ids.is_empty()
        && report.lagging_replica_ids.is_empty()
        && !report.in_joint_change
}

/// Makes a client that begins with these nodes.
pub fn connect(endpoints: &str) -> Client {
    Client::connect(Config::from_list(endpoints).timeout(CLIENT_TIMEOUT)).expect("good endpoints")
}
