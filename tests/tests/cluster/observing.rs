//! Observability of a node: metrics, health, readiness and its log.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use futures::stream;
use parking_lot::Mutex;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1alpha::ServerReflectionRequest;
use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1alpha::server_reflection_response::MessageResponse;

use crate::support::cluster::Cluster;
use crate::support::wait::{SOON, check, until};
use crate::support::{gateway, http};

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

/// As clients made of older descriptions, and tools, ask for them.
#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_are_there_under_every_name_that_clients_ask_for() {
    let cluster = Cluster::started(1).await;
    let channel = gateway::connect(&cluster.nodes[0].client).await;
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "rangedb.v1.Kv", "rangedb.v1.Node"] {
        let asked = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(asked).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let mut reflection = ServerReflectionClient::new(channel);
    let mut ask = async |message| {
        let asked = ServerReflectionRequest { host: String::new(), message_request: Some(message) };
        let answers = reflection.server_reflection_info(stream::iter([asked])).await.unwrap();
        answers.into_inner().message().await.unwrap().unwrap().message_response
    };
    let answer = ask(MessageRequest::ListServices(String::new())).await;
    let Some(MessageResponse::ListServicesResponse(listed)) = answer else {
        panic!("{answer:?}");
    };
    let names: Vec<&str> = listed.service.iter().map(|service| &service.name[..]).collect();
    assert!(names.contains(&"rangedb.v1.Kv"), "{names:?}");
    assert!(names.contains(&"grpc.reflection.v1alpha.ServerReflection"), "{names:?}");
    for name in names {
        let described = ask(MessageRequest::FileContainingSymbol(name.to_owned())).await;
        let is_file = matches!(described, Some(MessageResponse::FileDescriptorResponse(_)));
        assert!(is_file, "{name}: {described:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_a_person_starts_logs_text_and_says_when_it_is_ready() {
    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&screen).unwrap();
    unlockpt(&screen).unwrap();
    let name = ptsname(&screen, Vec::new()).unwrap().into_string().unwrap();
    let end = File::options().read(true).write(true).open(&name).unwrap();
    let mut cluster = Cluster::of(1).await;
    cluster.nodes[0].standard_error = Some(end.into());
    let shown = Arc::new(Mutex::new(Vec::new()));
    let (mut reader, to) = (File::from(screen), shown.clone());
    // Ends when nobody has the other end open any more.
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = reader.read(&mut bytes) {
            to.lock().extend(&bytes[..count]);
        }
    });
    let cluster = cluster.start().await;
    let ready = format!("ready at {}", cluster.nodes[0].client);
    until("the person is told", SOON, async || {
        let text = String::from_utf8_lossy(&shown.lock()).into_owned();
        let is_text = text.contains("listening") && !text.contains("{\"");
        check(is_text && text.contains(&ready), text)
    })
    .await;
}
