//! Formation: nodes make exactly one cluster, however they are started.

use std::collections::BTreeSet;

use crate::repeats;
use crate::support::cluster::Cluster;
use crate::support::wait::{SOON, check, until};

/// Returns the id of the cluster that all running nodes belong to.
async fn cluster_id(cluster: &mut Cluster) -> String {
    cluster.ready().await;
    let mut ids = BTreeSet::new();
    for node in &cluster.nodes {
        let page = node.http("/").await.expect("a ready node answers").body;
        let id = page.lines().find_map(|line| line.strip_prefix("cluster ")).expect("it has an id");
        ids.insert(id.split(',').next().expect("something").to_owned());
    }
    assert_eq!(ids.len(), 1, "more than one cluster: {ids:?}");
    ids.pop_first().expect("one id")
}

async fn form_in_order(order: [usize; 3]) {
    let mut cluster = Cluster::of(3).await;
    let [first, second, third] = order;
    cluster.nodes[first].start();
    cluster.nodes[first].not_ready("not part of a cluster").await;
    cluster.nodes[second].start();
    // The last node starts when the others are a cluster already.
    cluster.nodes[second].ready().await;
    cluster.nodes[third].start();
    cluster_id(&mut cluster).await;
    let status = cluster.status().await.unwrap();
    assert_eq!(status.nodes.len(), 3, "{status:?}");
    cluster.replicated(3, SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_started_one_after_the_other_form_one_cluster_in_every_order() {
    let all = [[2, 1, 0], [0, 2, 1], [1, 0, 2], [0, 1, 2], [1, 2, 0], [2, 0, 1]];
    for order in &all[..repeats(2, all.len())] {
        form_in_order(*order).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_started_all_at_once_form_one_cluster_every_time() {
    for _ in 0..repeats(5, 20) {
        let mut cluster = Cluster::started(3).await;
        cluster_id(&mut cluster).await;
        let status = cluster.status().await.unwrap();
        assert_eq!(status.nodes.len(), 3, "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_that_may_form_a_cluster_is_enough() {
    let mut cluster = Cluster::of(3).await;
    for node in &mut cluster.nodes[1..] {
        node.flags.retain(|flag| flag != "--cluster-init");
    }
    let mut cluster = cluster.start().await;
    cluster_id(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_of_three_alone_never_forms_a_cluster() {
    /// Number of unanswered rounds of asking, far more than two nodes need to become a cluster.
    const ASKED_IN_VAIN: usize = 40;
    let mut cluster = Cluster::of(3).await;
    let node = &mut cluster.nodes[0];
    node.flags.extend(["--log-level", "debug"].map(str::to_owned));
    node.start();
    until("the node has asked its peers many times", SOON, async || {
        let asked = node.log_text().matches("no answer about the cluster").count();
        check(asked >= ASKED_IN_VAIN, format!("{asked} times"))
    })
    .await;
    node.not_ready("waiting for a quorum of peers: 1/2").await;
    let endpoint = cluster.nodes[0].client.clone();
    let status =
        cluster.cli(["--endpoints", &endpoint, "--timeout", "1s", "admin", "cluster", "status"]);
    status.await.failure(1, "UNAVAILABLE");
    // The node was still trying: with a second node there is a cluster.
    cluster.nodes[1].start();
    cluster.nodes[0].ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn split_keys_are_those_of_the_cluster_that_was_formed_and_of_no_later_start() {
    let mut cluster = Cluster::of(3).await.with_flags(["--split-keys", "z,/m"]).start().await;
    assert_eq!(cluster.ranges_of(&["/a", "/m", "/z", "a", "z"]).await.len(), 4);
    assert_eq!(cluster.ranges_of(&["/m", "/z"]).await.len(), 1);
    cluster.replicated(3, SOON).await;
    for key in ["/a", "/m", "a", "z"] {
        assert_eq!(cluster.cli(["put", key, "1"]).await.code, 0, "{key}");
    }
    for node in &mut cluster.nodes {
        node.kill();
        node.flags.retain(|flag| flag != "z,/m" && flag != "--split-keys");
        node.flags.extend(["--split-keys".to_owned(), "a,b,c".to_owned()]);
        node.start();
    }
    cluster.ready().await;
    assert_eq!(cluster.ranges_of(&["/a", "/m", "a", "b", "z"]).await.len(), 4);
    let scanned = cluster.cli(["range", "/a", "zz", "--keys-only"]).await;
    assert_eq!(scanned.out.lines().collect::<Vec<_>>(), ["/a", "/m", "a", "z"]);
}
