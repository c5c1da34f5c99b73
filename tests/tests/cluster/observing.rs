//! Observability of a node: metrics, health, readiness and its log.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::http;
use crate::support::wait::{SOON, check, until};

#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_all_families_are_shown_and_move() {
    let cluster = Cluster::started(1).await;
    let node = &cluster.nodes[0];
    let before = http::samples(&node.http("/metrics").await.unwrap().body);
    for family in
        ["rangedb_raft_", "rangedb_range_", "rangedb_storage_", "rangedb_grpc_", "process_"]
    {
        let shown = before.keys().filter(|name| name.starts_with(family)).count();
        assert!(shown > 0, "no metric begins with {family}");
    }
    cluster.cli(["put", "/k", "v"]).await.success();
    let after = until("the figures are published", SOON, async || {
        let after = http::samples(&node.http("/metrics").await?.body);
        let answered = |samples| http::sum(samples, "rangedb_raft_requests_answered_total");
        check(answered(&after) > answered(&before), "not yet")?;
        Ok::<_, String>(after)
    })
    .await;
    let applied = "rangedb_range_applied_index{range_id=\"1\"}";
    assert!(after[applied] > before[applied]);
    assert!(http::sum(&after, "process_resident_memory_bytes") > 1e6);
    let text = node.http("/metrics").await.unwrap().body;
    let documented: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect();
    let typed: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(documented, typed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_quorum_is_healthy_and_not_ready() {
    let mut cluster = Cluster::started(3).await;
    assert_eq!(cluster.nodes[0].http("/readyz").await.unwrap().body, "ready\n");
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    cluster.nodes[0].not_ready("no leader for").await;
    assert_eq!(cluster.nodes[0].http("/healthz").await.unwrap().code, 200);
    assert_eq!(cluster.nodes[0].http("/metrics").await.unwrap().code, 200);
    assert_eq!(cluster.nodes[0].http("/no/such/page").await.unwrap().code, 404);
    cluster.nodes[1].start();
    cluster.nodes[0].ready().await;
}

/// Returns the levels of the lines in a node's log, if the node was started with this level and
/// served a request.
async fn levels_at(level: &str) -> BTreeSet<String> {
    let mut cluster = Cluster::of(1).await;
    cluster.nodes[0].flags.extend(["--log-level", level].map(str::to_owned));
    let mut cluster = cluster.start().await;
    cluster.cli(["put", "/k", "v"]).await.success();
    assert!(cluster.nodes[0].stop().await.success());
    let log = cluster.nodes[0].log_text();
    let lines = log.lines().map(|line| {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    let line = lines.map(|line| {
        assert!(line["timestamp"].is_string() && line["target"].is_string(), "{line}");
        let level = line["level"].as_str().expect("a level").to_owned();
        assert!(level != "INFO" || line["message"].is_string(), "{line}");
        level
    });
    line.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_json_and_obeys_its_level() {
    assert_eq!(levels_at("error").await, BTreeSet::new());
    let info = levels_at("info").await;
    assert!(
        info.contains("INFO") && !info.contains("DEBUG") && !info.contains("TRACE"),
        "{info:?}"
    );
    let trace = levels_at("trace").await;
    assert!(trace.contains("DEBUG") && trace.contains("TRACE"), "{trace:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_for_people_is_plain_text() {
    let mut cluster = Cluster::of(1).await;
    cluster.nodes[0].flags.extend(["--log-format", "text"].map(str::to_owned));
    let cluster = cluster.start().await;
    let log = cluster.nodes[0].log_text();
    assert!(log.contains(" INFO ") && !log.contains('{') && !log.contains('\u{1b}'), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_ask_a_quorum_only_where_leases_are_off() {
    for (mode, quorum) in [("lease", false), ("read-index", true)] {
        let mut cluster = Cluster::of(1).await;
        cluster.nodes[0].flags.extend(["--read-mode", mode].map(str::to_owned));
        let cluster = cluster.start().await;
        cluster.cli(["put", "/k", "v"]).await.success();
        let node = &cluster.nodes[0];
        let metric = if quorum { "reads_confirmed_total" } else { "reads_under_lease_total" };
        let metric = format!("rangedb_raft_{metric}");
        let before = node.metric(&metric).await.unwrap();
        until(&format!("{metric} counts reads in mode {mode}"), SOON, async || {
            assert_eq!(cluster.cli(["get", "/k"]).await.success(), "v\n");
            check(node.metric(&metric).await? > before, before)
        })
        .await;
        if quorum {
            let leased = node.metric("rangedb_raft_reads_under_lease_total").await.unwrap();
            assert_eq!(leased, 0.0);
        }
    }
}
