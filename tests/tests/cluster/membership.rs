//! Membership: nodes come and go while the cluster serves.

use crate::support::cli;
use crate::support::cluster::Cluster;
use crate::support::load::Load;
use crate::support::wait::{SOON, check, until};

/// Maximum time to move six ranges, each with several changes of membership, a snapshot among them.
const MOVED: std::time::Duration = std::time::Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn one_node_under_load_grows_to_three_without_a_failed_request() {
    let mut cluster = Cluster::started(1).await;
    let load = Load::start((0..3).map(|_| cluster.client_of(0)), "/load/");
    load.progress(100).await;
    for name in ["n2", "n3"] {
        let joined = cluster.joining(name);
        cluster.nodes[joined].start();
        cluster.nodes[joined].ready().await;
    }
    cluster.replicated(3, MOVED).await;
    load.progress(100).await;
    let outcome = load.stop().await;
    assert_eq!(outcome.failures(), [""; 0]);
    // The new replicas are real: the cluster survives the loss of its first node.
    cluster.nodes[0].kill();
    let client = cluster.client_of(1);
    outcome.verify(&client).await;
    client.put("/after", "1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_changes_go_through_past_a_node_that_hangs_and_are_made_once() {
    let mut cluster = Cluster::started(3).await;
    let spare = cluster.joining("n4");
    cluster.nodes[spare].start();
    cluster.nodes[spare].ready().await;
    let status = cluster.status().await.unwrap();
    let leader = cluster.place_of(status.control_leader_node_id).await.unwrap();
    let hung = (leader + 1) % 3;
    cluster.nodes[hung].process().freeze().await;
    // The node that hangs is asked first.
    let places = [hung].into_iter().chain((0..3).filter(|place| *place != hung));
    let endpoints: Vec<String> = places.map(|place| cluster.nodes[place].client.clone()).collect();
    let endpoints = endpoints.join(",");
    let set = ["admin", "config", "set", "gc_retention", "11m", "--timeout", "20s"];
    cli::run(&endpoints, set).await.success();
    let address = &cluster.nodes[spare].peer;
    let node = status.nodes.into_iter().filter_map(|status| status.node);
    let id = node.into_iter().find(|node| node.peer_address == *address).unwrap().node_id;
    let remove = ["admin", "node", "remove", &id.to_string(), "--confirm", "--timeout", "20s"];
    for _ in 0..2 {
        cli::run(&endpoints, remove).await.success();
    }
    let client = crate::support::cluster::connect(&endpoints);
    let setting = client.admin().config_get("gc_retention", true).await.unwrap();
    assert_eq!(setting.value.unwrap().value, "11m");
    assert_eq!(setting.history.len(), 1, "it was set once: {:?}", setting.history);
    cluster.nodes[hung].process().thaw();
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_of_a_removed_node_are_made_again_and_the_node_ends() {
    let mut cluster = Cluster::started(3).await;
    let spare = cluster.joining("n4");
    cluster.nodes[spare].start();
    cluster.nodes[spare].ready().await;
    let load = Load::start((0..3).map(|node| cluster.client_of(node)), "/load/");
    load.progress(100).await;

    let leader = cluster.leader_of(b"/load/").await;
    let address = cluster.nodes[leader].peer.clone();
    let rest: Vec<String> = (0..4)
        .filter(|node| *node != leader)
        .map(|node| cluster.nodes[node].client.clone())
        .collect();
    let rest = rest.join(",");
    let remove = ["admin", "node", "remove", &address];
    cli::run(&rest, remove).await.failure(2, "--confirm");
    let dry = cli::run(&rest, remove.iter().chain(&["--dry-run"])).await.success();
    assert!(dry.contains("nothing was changed"), "{dry}");
    cli::run(&rest, remove.iter().chain(&["--confirm"])).await.success();

    until("no range has a replica on the removed node", MOVED, async || {
        let status = cluster.status().await.map_err(|error| error.to_string())?;
        let nodes = status.nodes.iter().filter_map(|status| status.node.as_ref());
        let removed = nodes.clone().find(|node| node.peer_address == address);
        let removed = removed.ok_or("it is not listed")?.node_id;
        let partitions = cluster.partitions().await.map_err(|error| error.to_string())?;
        let descriptors = partitions.iter().filter_map(|p| p.report.as_ref()?.descriptor.as_ref());
        let mut replicas = descriptors.flat_map(|descriptor| &descriptor.replicas);
        check(replicas.all(|replica| replica.node_id != removed), "one is there still")
    })
    .await;
    cluster.replicated(3, MOVED).await;
    let (status, said) = cluster.nodes[leader].ended(0).await;
    assert!(!status.success(), "{status}");
    assert!(said.contains("removed"), "{said}");
    load.progress(100).await;
    let outcome = load.stop().await;
    assert_eq!(outcome.failures(), [""; 0]);
    outcome.verify(&crate::support::cluster::connect(&rest)).await;

    let listed = cli::run(&rest, ["admin", "node", "list"]).await.success();
    let line = listed.lines().find(|line| line.contains(&address)).expect("it is still listed");
    assert!(line.contains("removed"), "{line}");
    // Started again, the node gets the same answer.
    let said = cluster.nodes[leader].refuses().await;
    assert!(said.contains("removed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_of_a_node_that_is_silent_for_too_long_are_made_again_elsewhere() {
    let mut cluster = Cluster::started(3).await;
    cluster.cli(["admin", "config", "set", "node_dead_after", "5s"]).await.success();
    let spare = cluster.joining("n4");
    cluster.nodes[spare].start();
    cluster.nodes[spare].ready().await;
    cluster.cli(["put", "/k", "v"]).await.success();
    cluster.nodes[1].kill();
    until("the dead node's replicas are on the spare one", MOVED, async || {
        let replicas = cluster.nodes[spare].metric("rangedb_range_replicas").await?;
        check(replicas == 6.0, replicas)
    })
    .await;
    cluster.replicated(3, MOVED).await;
    // The dead node has no vote any more, so the cluster survives the loss of one more.
    cluster.nodes[0].kill();
    let client = cluster.client_of(2).with_timeout(SOON);
    assert_eq!(client.get("/k").await.unwrap().unwrap().value, "v");
}
