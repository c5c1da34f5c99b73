//! Joins: a new node needs the address of any one member.

use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::node::Node;
use crate::support::wait::{SOON, check, until};

/// Maximum time to move six ranges, each with several changes of membership.
const MOVED: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_through_any_one_member() {
    let mut cluster = Cluster::started(3).await;
    cluster.client().put("/k", "v").await.unwrap();
    for member in 0..3 {
        let through = cluster.nodes[member].peer.clone();
        let joined = cluster.joining_through(&format!("n{}", member + 4), &through);
        cluster.nodes[joined].start();
        cluster.nodes[joined].ready().await;
        // Ready means that the control plane hears the node, and that the node answers.
        let address = cluster.nodes[joined].peer.clone();
        let status = cluster.client_of(joined).admin().cluster_status().await.unwrap();
        let of_it = |node: &rangedb_proto::v1::NodeStatus| {
            node.node.as_ref().is_some_and(|node| node.peer_address == address)
        };
        let listed = status.nodes.iter().find(|node| of_it(node)).expect("it is a member");
        assert!(listed.silent_ms.is_some(), "it has never reported: {listed:?}");
        let found = cluster.client_of(joined).get("/k").await.unwrap();
        assert_eq!(found.expect("it was written").value, "v");
    }
}

/// As `kubectl scale` adds a node: every node of a set has the same command line.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_among_the_peers_of_its_command_line_joins_their_cluster() {
    let mut cluster = Cluster::of(3).await;
    let flags = cluster.nodes[0].flags.clone();
    assert!(flags.iter().any(|flag| flag == "--peers"), "{flags:?}");
    let mut fourth = Node::new(cluster.path(), "n4").with_flags(flags);
    // It is there before anybody else, and founds nothing.
    fourth.start();
    fourth.not_ready("is not among --peers").await;
    cluster = cluster.start().await;
    fourth.ready().await;
    cluster.nodes.push(fourth);
    assert_eq!(cluster.status().await.unwrap().nodes.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joined_through_a_follower_finds_the_cluster_again_and_takes_replicas() {
    let mut cluster = Cluster::started(3).await;
    let control = cluster.status().await.unwrap().control_leader_node_id;
    let leader = cluster.place_of(control).await.unwrap();
    let follower = (leader + 1) % 3;
    let through = cluster.nodes[follower].peer.clone();
    let joined = cluster.joining_through("n4", &through);
    cluster.nodes[joined].start();
    cluster.nodes[joined].ready().await;
    // The node keeps the addresses of the others: the member in its flags is gone when it starts
    // again.
    let kept = || std::fs::read_to_string(cluster.nodes[joined].data.join("IDENTITY"));
    let addresses: Vec<String> = cluster.nodes[..3].iter().map(|node| node.peer.clone()).collect();
    until("it keeps where the others are", SOON, async || {
        let text = kept().map_err(|error| error.to_string())?;
        check(addresses.iter().all(|address| text.contains(address)), text)
    })
    .await;
    cluster.nodes[joined].kill();
    cluster.nodes[follower].kill();
    cluster.nodes[joined].start();
    cluster.nodes[joined].ready().await;

    let gone = cluster.nodes[follower].peer.clone();
    let rest = (0..4).filter(|place| *place != follower);
    let rest: Vec<String> = rest.map(|place| cluster.nodes[place].client.clone()).collect();
    let remove = ["admin", "node", "remove", &gone, "--confirm"];
    crate::support::cli::run(&rest.join(","), remove).await.success();
    until("the node that joined has the replicas of the one that left", MOVED, async || {
        let replicas = cluster.nodes[joined].metric("rangedb_range_replicas").await?;
        check(replicas == 6.0, replicas)
    })
    .await;
}
