//! Leaderships are spread over the nodes.

use crate::support::cluster::Cluster;
use crate::support::wait::SOON;

#[tokio::test(flavor = "multi_thread")]
async fn leaderships_that_gathered_on_few_nodes_are_spread_again() {
    let mut cluster = Cluster::started(3).await;
    cluster.replicated(3, SOON).await;
    // The leaderships of a stopped node go to the others, and only balancing brings them back.
    assert!(cluster.nodes[0].stop().await.success());
    cluster.nodes[0].start();
    cluster.nodes[0].ready().await;
    cluster.balanced().await;
    cluster.client().put("/k", "v").await.unwrap();
}
