//! Empty data directories at the addresses of members. A member is evicted only on an operator's
//! word or after a long silence. A replaced node is ready once it holds its replicas.

use std::time::Duration;

use crate::support::cli;
use crate::support::cluster::Cluster;
use crate::support::wait::{SOON, check, until};

/// Maximum time to move six ranges, each with several changes of membership, a snapshot among them.
const MOVED: Duration = Duration::from_secs(90);

const KEYS: usize = 100;

async fn fill(cluster: &Cluster) {
    let client = cluster.client();
    for number in 0..KEYS {
        client.put(format!("/k/{number}"), format!("{number}")).await.unwrap();
    }
}

async fn verify(cluster: &Cluster) {
    let client = cluster.client().with_timeout(SOON);
    for number in 0..KEYS {
        let found = client.get(format!("/k/{number}")).await.unwrap().expect("it was written");
        assert_eq!(found.value, number.to_string());
    }
}

fn clients_except(cluster: &Cluster, except: usize) -> String {
    let clients = cluster.nodes.iter().enumerate().filter(|(place, _)| *place != except);
    let clients: Vec<&str> = clients.map(|(_, node)| node.client.as_str()).collect();
    clients.join(",")
}

async fn listed(cluster: &Cluster, except: usize) -> String {
    cli::run(&clients_except(cluster, except), ["admin", "node", "list"]).await.success()
}

fn is_whole(metric: f64) -> Result<(), String> {
    check(metric == 6.0, metric)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_waits_for_an_operator_and_then_gets_its_replicas_back() {
    let mut cluster = Cluster::started(3).await;
    fill(&cluster).await;
    let old = cluster.cli(["admin", "node", "list"]).await.success();
    let peer = cluster.nodes[0].peer.clone();
    let line = old.lines().find(|line| line.contains(&peer)).expect("it is listed");
    let old_id = line.split_whitespace().next().unwrap().to_owned();
    cluster.nodes[0].kill();
    cluster.nodes[0].wipe();
    cluster.nodes[0].start();
    // The node names the command that would help, in its log too, and replaces no member meanwhile.
    let command = format!("rangedb admin node remove {old_id} --confirm");
    cluster.nodes[0].not_ready(&command).await;
    cluster.nodes[0].not_ready("mount it and start again").await;
    assert!(cluster.nodes[0].log_text().contains(&command));
    let line = listed(&cluster, 0).await;
    assert!(!line.contains("removed"), "{line}");

    // The first of the endpoints is the waiting node. It reads no request, so the client asks the
    // next.
    cluster.cli(["admin", "node", "remove", &old_id, "--confirm"]).await.success();
    until("the wiped node is ready", MOVED, async || {
        let answer = cluster.nodes[0].http("/readyz").await?;
        check(answer.code == 200, answer.body)
    })
    .await;
    // Ready means that the node holds all its replicas.
    is_whole(cluster.nodes[0].metric("rangedb_range_replicas").await.unwrap()).unwrap();
    cluster.replicated(3, MOVED).await;
    // The new replicas count: the cluster survives the loss of another node.
    cluster.nodes[1].kill();
    verify(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_that_loses_disks_and_waits_for_readiness_loses_no_data() {
    let mut cluster = Cluster::started(3).await;
    fill(&cluster).await;
    cluster.cli(["admin", "config", "set", "node_replace_after", "3s"]).await.success();
    for place in 0..3 {
        cluster.nodes[place].kill();
        cluster.nodes[place].wipe();
        cluster.nodes[place].start();
        until("the wiped node is ready", MOVED, async || {
            let answer = cluster.nodes[place].http("/readyz").await?;
            check(answer.code == 200, answer.body)
        })
        .await;
    }
    verify(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_at_the_address_of_a_member_does_not_evict_it() {
    let mut cluster = Cluster::started(3).await;
    fill(&cluster).await;
    // Another machine with a copied command line: the same addresses, a directory of its own.
    let data = cluster.nodes[2].data.clone();
    cluster.nodes[2].kill();
    cluster.nodes[2].data = cluster.path().join("stranger");
    cluster.nodes[2].start();
    cluster.nodes[2].not_ready("not admitted to the cluster yet").await;
    cluster.nodes[2].not_ready("mount it and start again").await;
    cluster.nodes[2].kill();
    // The volume is mounted again.
    cluster.nodes[2].data = data;
    cluster.nodes[2].start();
    cluster.nodes[2].ready().await;
    let nodes = listed(&cluster, 9).await;
    assert!(!nodes.contains("removed"), "{nodes}");
    cluster.nodes[0].kill();
    verify(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_at_the_address_of_a_living_member_is_told_of_both() {
    let mut cluster = Cluster::started(3).await;
    let known = [cluster.nodes[0].peer.clone(), cluster.nodes[2].peer.clone()].join(",");
    let stranger = cluster.joining_through("n4", &known);
    // The stranger listens elsewhere, and advertises the address of node 2.
    cluster.nodes[stranger].peer = cluster.nodes[1].peer.clone();
    cluster.nodes[stranger].flags.extend(["--listen-host".to_owned(), "127.0.0.9".to_owned()]);
    cluster.nodes[stranger].start();
    let address = cluster.nodes[1].peer.clone();
    until("the stranger says why it is not admitted", SOON, async || {
        let said = cluster.nodes[stranger].log_text();
        check(said.contains(&address) && said.contains("address of its own"), said)
    })
    .await;
    let nodes = listed(&cluster, stranger).await;
    assert!(!nodes.contains("removed"), "{nodes}");
}
