//! Graceful stops: a node hands over its leaderships, and no client notices.

use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;

use crate::support::cluster::Cluster;
use crate::support::load::Load;
use crate::support::wait::{SOON, check, until};

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_stopped_one_by_one_fail_no_request() {
    let mut cluster = Cluster::started(3).await;
    let load = Load::start((0..3).map(|node| cluster.client_of(node)), "/load/");
    load.progress(100).await;
    for place in 0..3 {
        let status = cluster.nodes[place].stop().await;
        assert_eq!(status.code(), Some(0));
        load.progress(100).await;
        cluster.nodes[place].start();
        cluster.nodes[place].ready().await;
        cluster.replicated(3, crate::support::wait::SOON).await;
    }
    let outcome = load.stop().await;
    assert_eq!(outcome.failures(), [""; 0]);
    outcome.verify(&cluster.client()).await;
    let slowest = outcome.writes.iter().map(|write| write.ended - write.began).max().unwrap();
    // Less than the shortest election timeout: no range waited for an election.
    assert!(slowest.as_millis() < 1000, "a write took {slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_stops_also_while_it_looks_for_its_cluster_or_has_no_quorum() {
    let mut cluster = Cluster::of(3).await;
    cluster.nodes[0].start();
    cluster.nodes[0].not_ready("waiting for a quorum of peers").await;
    assert_eq!(cluster.nodes[0].stop().await.code(), Some(0));

    let mut cluster = cluster.start().await;
    cluster.nodes[0].kill();
    cluster.nodes[1].kill();
    cluster.nodes[2].not_ready("no leader for 6 of 6 ranges").await;
    assert_eq!(cluster.nodes[2].stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_asks_for_something_else_is_ignored_and_logged() {
    let mut cluster = Cluster::started(1).await;
    for (signal, name) in
        [(Signal::HUP, "SIGHUP"), (Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")]
    {
        cluster.nodes[0].process().signal(signal);
        cluster.cli(["put", "/after", name]).await.success();
    }
    let node = &mut cluster.nodes[0];
    until("the first is logged", SOON, async || {
        let log = node.log_text();
        let logged = ["SIGHUP", "SIGUSR1", "SIGUSR2"].iter().any(|name| log.contains(name));
        check(logged && log.contains("SIGTERM stops the node"), log)
    })
    .await;
    assert_eq!(node.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_signals_at_once_are_one_stop() {
    let mut cluster = Cluster::started(3).await;
    let node = &mut cluster.nodes[0];
    // A supervisor and a terminal may both send a signal: one to the process, one to its group.
    node.process().signal(Signal::INT);
    node.process().signal(Signal::TERM);
    let (status, said) = node.ended(0).await;
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("\"stopped\""), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_signal_ends_a_stop_that_takes_long() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader_of(b"/a").await;
    for place in (0..3).filter(|place| *place != leader) {
        cluster.nodes[place].process().freeze().await;
    }
    // No other node takes the leadership over, so the stop would take its longest.
    let node = cluster.nodes[leader].process();
    let status = until("a node that is asked again and again ends", SOON, async || {
        node.signal(Signal::TERM);
        node.exit_status().ok_or("it runs")
    });
    assert_eq!(status.await.signal(), Some(9));
    let said = cluster.nodes[leader].log_text();
    assert!(said.contains("not waiting any longer"), "{said}");
}
