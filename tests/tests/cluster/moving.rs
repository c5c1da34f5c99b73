//! Nodes that come back at other addresses.

use crate::support::cluster::Cluster;
use crate::support::ports::free_address;
use crate::support::wait::{SOON, check, until};

/// Returns a stopped cluster with a written key.
async fn stopped(count: usize) -> Cluster {
    let mut cluster = Cluster::started(count).await;
    cluster.replicated(count, SOON).await;
    cluster.client().put("/k", "v").await.unwrap();
    for node in &mut cluster.nodes {
        node.kill();
    }
    cluster
}

async fn serves(cluster: &Cluster) {
    for place in 0..cluster.nodes.len() {
        let client = cluster.client_of(place);
        assert_eq!(client.get("/k").await.unwrap().expect("it was written").value, "v");
        client.put(format!("/k/{place}"), "w").await.unwrap();
    }
    cluster.replicated(cluster.nodes.len(), SOON).await;
    // The registry has the new addresses.
    let addresses: Vec<String> = cluster.nodes.iter().map(|node| node.peer.clone()).collect();
    until("the addresses are registered", SOON, async || {
        let status = cluster.status().await.map_err(|error| error.to_string())?;
        let known = status.nodes.into_iter().filter_map(|status| status.node);
        let known: Vec<String> = known.map(|node| node.peer_address).collect();
        let mut wanted = addresses.clone();
        wanted.retain(|address| !known.contains(address));
        check(wanted.is_empty() && known.len() == addresses.len(), format!("{known:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_come_back_at_new_addresses_and_find_each_other_by_peers() {
    let mut cluster = stopped(3).await;
    for node in &mut cluster.nodes {
        (node.peer, node.client) = (free_address(), free_address());
    }
    cluster.tell_peers();
    // One after the other, so that the first one finds nobody at its start.
    for place in 0..3 {
        cluster.nodes[place].start();
        cluster.nodes[place].not_ready("").await;
    }
    cluster.ready().await;
    serves(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_majority_comes_back_at_new_addresses_that_the_node_that_stayed_is_not_told() {
    let mut cluster = stopped(3).await;
    for node in &mut cluster.nodes[1..] {
        (node.peer, node.client) = (free_address(), free_address());
    }
    let told = cluster.nodes[0].flags.clone();
    cluster.tell_peers();
    // Node 0 keeps its old list of peers; the others find it.
    cluster.nodes[0].flags = told;
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster.ready().await;
    serves(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_swap_their_addresses() {
    let mut cluster = stopped(3).await;
    let first = (cluster.nodes[1].peer.clone(), cluster.nodes[1].client.clone());
    let second = (cluster.nodes[2].peer.clone(), cluster.nodes[2].client.clone());
    (cluster.nodes[1].peer, cluster.nodes[1].client) = second;
    (cluster.nodes[2].peer, cluster.nodes[2].client) = first;
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster.ready().await;
    serves(&cluster).await;
}
