//! Leaderships are spread over the nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::wait::{SOON, check, until};

/// A leadership rests for twenty seconds before it is moved, and moves are made one at a time.
const BALANCED: Duration = Duration::from_secs(120);

async fn leaders(cluster: &Cluster) -> Result<BTreeMap<u64, usize>, String> {
    let partitions = cluster.partitions().await.map_err(|error| error.to_string())?;
    let mut leaders = BTreeMap::new();
    for report in partitions.into_iter().filter_map(|partition| partition.report) {
        *leaders.entry(report.leader_node_id).or_default() += 1;
    }
    Ok(leaders)
}

#[tokio::test(flavor = "multi_thread")]
async fn leaderships_that_gathered_on_few_nodes_are_spread_again() {
    let mut cluster = Cluster::started(3).await;
    cluster.replicated(3, SOON).await;
    // Its leaderships go to the others, and do not come back by themselves.
    assert!(cluster.nodes[0].stop().await.success());
    cluster.nodes[0].start();
    cluster.nodes[0].ready().await;
    until("every node leads two of the six ranges", BALANCED, async || {
        let leaders = leaders(&cluster).await?;
        check(
            leaders.len() == 3 && leaders.values().all(|count| *count == 2),
            format!("{leaders:?}"),
        )
    })
    .await;
    cluster.client().put("/k", "v").await.unwrap();
}
