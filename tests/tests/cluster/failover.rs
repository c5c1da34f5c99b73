//! Failover: nodes die with -9 under load, acknowledged writes survive, and writes go on.

use std::time::{Duration, Instant};

use crate::support::cluster::Cluster;
use crate::support::load::Load;
use crate::support::wait::{SOON, check, until};

/// Maximum time from the death of a leader until writes go on, at default timings.
const RESUMED_MAX: Duration = Duration::from_secs(3);

/// Prefix of the keys that the load writes: all in one range.
const PREFIX: &str = "/load/";

/// Number of writes after which every writer is at work.
const UNDER_WAY: u64 = 100;

/// Kills a node under load and starts it again. Returns the time until writes went on through every
/// endpoint.
async fn kill_under_load(cluster: &mut Cluster, victim: usize) -> Duration {
    let load = Load::start((0..3).map(|node| cluster.client_of(node)), PREFIX);
    load.progress(UNDER_WAY).await;
    let killed = Instant::now();
    cluster.nodes[victim].kill();
    load.progress(UNDER_WAY).await;
    cluster.nodes[victim].start();
    cluster.nodes[victim].ready().await;
    load.progress(UNDER_WAY).await;
    let outcome = load.stop().await;
    assert_eq!(outcome.failures(), [""; 0]);
    outcome.verify(&cluster.client()).await;
    caught_up(cluster).await;
    outcome.resumed_after(killed)
}

/// Waits until all nodes have applied the same entries of the load's range.
async fn caught_up(cluster: &Cluster) {
    until("all nodes have applied the same", SOON, async || {
        let mut applied = Vec::new();
        for node in &cluster.nodes {
            applied.push(node.sample("rangedb_range_applied_index{range_id=\"1\"}").await?);
        }
        check(applied.iter().all(|index| *index == applied[0]), format!("{applied:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_within_three_seconds_of_the_death_of_their_leader() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader_of(PREFIX.as_bytes()).await;
    let resumed = kill_under_load(&mut cluster, leader).await;
    assert!(resumed < RESUMED_MAX, "writes resumed after {resumed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_within_three_seconds_of_the_death_of_the_control_plane() {
    let mut cluster = Cluster::started(3).await;
    let status = cluster.status().await.unwrap();
    let control = cluster.place_of(status.control_leader_node_id).await.unwrap();
    let resumed = kill_under_load(&mut cluster, control).await;
    assert!(resumed < RESUMED_MAX, "writes resumed after {resumed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_two_nodes_of_three_dead_requests_fail_in_time_and_write_nothing() {
    let mut cluster = Cluster::started(3).await;
    cluster.cli(["put", "/before", "1"]).await.success();
    cluster.nodes[0].kill();
    cluster.nodes[1].kill();
    cluster.nodes[2].not_ready("no leader for 6 of 6 ranges").await;

    let endpoints = cluster.endpoints();
    let began = Instant::now();
    for arguments in [&["put", "/during", "2"][..], &["get", "/before"]] {
        let ran = cli(&endpoints, arguments).await;
        ran.failure(1, "UNAVAILABLE");
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(6), "two requests with --timeout 2s took {took:?}");

    cluster.nodes[1].start();
    cluster.ready().await;
    assert_eq!(cluster.cli(["get", "/before"]).await.success(), "1\n");
    cluster.cli(["get", "/during"]).await.failure(3, "key not found: /during");
    cluster.cli(["put", "/after", "3"]).await.success();
    assert_eq!(cluster.cli(["get", "/after"]).await.success(), "3\n");
}

async fn cli(endpoints: &str, arguments: &[&str]) -> crate::support::cli::Ran {
    let limited = ["--timeout", "2s"].iter().chain(arguments);
    crate::support::cli::run(endpoints, limited).await
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_the_death_of_all_nodes_under_load() {
    let mut cluster = Cluster::started(3).await;
    let mut outcomes = Vec::new();
    for round in 0..3 {
        // Through all endpoints. Rounds alternate between the two ranges of user keys.
        let clients = (0..6).map(|writer| cluster.client_of(writer % 3).with_timeout(SOON));
        let prefix = if round % 2 == 0 { format!("/{round}/") } else { format!("z{round}/") };
        let load = Load::start(clients, &prefix);
        load.progress(300).await;
        for node in &mut cluster.nodes {
            node.kill();
        }
        for node in &mut cluster.nodes {
            node.start();
        }
        cluster.ready().await;
        outcomes.push(load.stop().await);
    }
    for outcome in outcomes {
        outcome.verify(&cluster.client()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_was_stopped_starts_again_with_all_that_it_had() {
    let mut cluster = Cluster::started(3).await;
    let load = Load::start((0..3).map(|node| cluster.client_of(node)), PREFIX);
    load.progress(UNDER_WAY).await;
    let outcome = load.stop().await;
    for node in &mut cluster.nodes {
        assert!(node.stop().await.success());
    }
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster.ready().await;
    outcome.verify(&cluster.client()).await;
}
