//! An operator's bad night: nodes die and hang, and `admin cluster status` is compared with what is
//! so.

use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::wait::{SOON, check, until};

async fn status(cluster: &Cluster) -> Result<Value, String> {
    let line = ["admin", "cluster", "status", "--output", "json", "--timeout", "2s"];
    let printed = cluster.cli(line).await.succeeded()?;
    serde_json::from_str(&printed).map_err(|error| error.to_string())
}

async fn has_no_problems(cluster: &Cluster) {
    until("nothing is wrong any more", SOON, async || {
        let status = status(cluster).await?;
        let is_sound = status["health"] == "OK" && status["problems"] == Value::Array(Vec::new());
        check(is_sound && status["ranges_replica_down"] == 0, status)
    })
    .await;
}

/// Checks that the status names the node, its cost and the way out, and that metrics agree.
async fn names(cluster: &Cluster, node_id: u64) {
    let silent = format!("node {node_id} (");
    let way_out = format!("rangedb admin node remove {node_id} --confirm");
    let status = until(&format!("node {node_id} is suspect"), SOON, async || {
        let status = status(cluster).await?;
        let nodes = status["nodes"].as_array().expect("a list of nodes");
        let state = nodes.iter().find(|node| node["node_id"] == node_id);
        let is_suspect = state.is_some_and(|node| node["state"] == "suspect");
        let costs = status["ranges_replica_down"] == 6 && status["ranges_under_factor"] == 6;
        check(is_suspect && costs && status["ranges_without_leader"] == 0, &status)?;
        Ok::<_, String>(status)
    })
    .await;
    assert_eq!(status["health"], "DEGRADED", "{status}");
    assert_eq!(status["ranges_without_quorum"], 0, "{status}");
    let problems = status["problems"].as_array().expect("a list of problems");
    let of_node = problems
        .iter()
        .find(|problem| problem["what"].as_str().is_some_and(|what| what.starts_with(&silent)));
    let of_node = of_node.unwrap_or_else(|| panic!("{silent}: {status}"));
    assert!(of_node["advice"].as_str().unwrap().contains(&way_out), "{of_node}");
    let leader = status["control_leader_node_id"].as_u64().expect("it answered");
    let leader = cluster.place_of(leader).await.unwrap();
    for (sample, value) in [
        ("rangedb_cluster_nodes{state=\"suspect\"}", 1.0),
        ("rangedb_cluster_nodes{state=\"up\"}", 2.0),
        ("rangedb_cluster_ranges{state=\"replica_down\"}", 6.0),
        ("rangedb_cluster_ranges{state=\"without_quorum\"}", 0.0),
    ] {
        assert_eq!(cluster.nodes[leader].sample(sample).await.unwrap(), value, "{sample}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_who_does_not_answer_what_it_costs_and_what_to_do() {
    let mut cluster = Cluster::started(3).await;
    has_no_problems(&cluster).await;
    // The node of the control plane itself, which the next one has never heard.
    let control = cluster.status().await.unwrap().control_leader_node_id;
    let place = cluster.place_of(control).await.unwrap();
    cluster.nodes[place].kill();
    names(&cluster, control).await;
    cluster.nodes[place].start();
    cluster.nodes[place].ready().await;
    has_no_problems(&cluster).await;

    // A node that hangs, with its connections open.
    let control = cluster.status().await.unwrap().control_leader_node_id;
    let nodes = cluster.status().await.unwrap().nodes;
    let mut ids = nodes.iter().filter_map(|status| Some(status.node.as_ref()?.node_id));
    let hung = ids.find(|id| *id != control).unwrap();
    let place = cluster.place_of(hung).await.unwrap();
    cluster.nodes[place].process().freeze().await;
    names(&cluster, hung).await;
    cluster.nodes[place].process().thaw();
    has_no_problems(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_alone_is_told_that_it_has_no_copies() {
    let cluster = Cluster::started(1).await;
    let status = status(&cluster).await.unwrap();
    assert_eq!(
        (&status["health"], &status["ranges_under_factor"]),
        (&"DEGRADED".into(), &6.into())
    );
    let said = status["problems"][0]["what"].as_str().unwrap();
    assert!(said.starts_with("1 of the 3 nodes"), "{status}");
    cluster.cli(["admin", "config", "set", "replication_factor", "1"]).await.success();
    has_no_problems(&cluster).await;
}
