//! Lost logs: a node whose standard error cannot be written, or has no reader, goes on without its
//! log.

use std::fs::File;
use std::io::PipeReader;
use std::os::fd::OwnedFd;

use crate::support::cluster::Cluster;
use crate::support::node::Node;
use crate::support::wait::{SOON, check, until};

/// Gives the node a pipe for its standard error. Returns the pipe's reader.
fn into_pipe(node: &mut Node) -> PipeReader {
    let (reader, writer) = std::io::pipe().expect("a test can make a pipe");
    node.standard_error = Some(OwnedFd::from(writer));
    reader
}

async fn lines_dropped(node: &Node) {
    until("lost lines are counted", SOON, async || {
        let dropped = node.metric("rangedb_log_lines_dropped_total").await?;
        check(dropped > 0.0, "none yet")
    })
    .await;
}

async fn stops_in_good_order(node: &mut Node) {
    let status = node.stop().await;
    assert_eq!(status.code(), Some(0), "{} ended with {status}", node.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_log_has_no_reader_any_more_stays_whole() {
    let mut cluster = Cluster::of(3).await;
    let reader = into_pipe(&mut cluster.nodes[0]);
    let mut cluster = cluster.start().await;
    cluster.cli(["put", "/k", "1"]).await.success();
    drop(reader);
    // The test still has the pipe's writer open, but that does not hide the missing reader from the
    // node. The node logs that a peer goes and comes back, and the tasks that log it must survive
    // the error.
    cluster.nodes[1].kill();
    until("node 1 wanted to log that its peer is gone", SOON, async || {
        let dropped = cluster.nodes[0].metric("rangedb_log_lines_dropped_total").await?;
        check(dropped > 0.0, "not yet")
    })
    .await;
    cluster.nodes[1].start();
    cluster.ready().await;
    cluster.replicated(3, SOON).await;
    // Nodes 1 and 2 alone must be a quorum, which needs raft between the two.
    cluster.nodes[2].kill();
    until("the other two serve", SOON, async || {
        cluster.cli(["--timeout", "2s", "put", "/k", "2"]).await.succeeded()
    })
    .await;
    cluster.nodes[2].start();
    cluster.replicated(3, SOON).await;
    stops_in_good_order(&mut cluster.nodes[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_runs_whose_log_can_never_be_written() {
    let mut cluster = Cluster::of(1).await;
    let full = File::options().write(true).open("/dev/full").expect("there is a full device");
    cluster.nodes[0].standard_error = Some(full.into());
    let mut cluster = cluster.start().await;
    cluster.cli(["put", "/k", "1"]).await.success();
    lines_dropped(&cluster.nodes[0]).await;
    stops_in_good_order(&mut cluster.nodes[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_holds_nothing_up() {
    let mut cluster = Cluster::of(1).await.with_flags(["--log-level", "trace"]);
    let reader = into_pipe(&mut cluster.nodes[0]);
    let mut cluster = cluster.start().await;
    // Causes more lines than a pipe and a queue hold.
    let client = cluster.client();
    until("lines are lost, while requests are answered", 4 * SOON, async || {
        for number in 0..100 {
            client.put("/k", number.to_string()).await.map_err(|error| error.to_string())?;
        }
        let dropped = cluster.nodes[0].metric("rangedb_log_lines_dropped_total").await?;
        check(dropped > 0.0, "none yet")
    })
    .await;
    assert_eq!(cluster.cli(["get", "/k"]).await.success(), "99\n");
    stops_in_good_order(&mut cluster.nodes[0]).await;
    drop(reader);
}
