//! Bad requests: the server itself refuses a request that breaks a rule, names the rule, and
//! changes nothing.

use bytes::Bytes;
use rangedb_client::RangeOptions;
use rangedb_proto::v1::error::Kind;
use rangedb_proto::v1::kv_client::KvClient;
use rangedb_proto::v1::node_client::NodeClient;
use rangedb_proto::v1::{
    self, BatchRequest, ConfigSet, DeleteRequest, Operation, PointRead, Put, PutRequest, Requests,
    Scan, operation, request, response,
};
use rangedb_proto::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use tonic::{Code, Request};

use crate::support::cluster::Cluster;
use crate::support::gateway::connect;
use crate::support::range::header_of;

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Request<PutRequest> {
    let (key, value) = (key.into(), value.into());
    Request::new(PutRequest { key, value, ..Default::default() })
}

async fn rows(cluster: &Cluster) -> Vec<Bytes> {
    let mut rows = cluster.client().range(RangeOptions::new("", ""));
    let mut keys = Vec::new();
    while let Some(row) = rows.next().await {
        keys.push(row.unwrap().key);
    }
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_values_out_of_bounds_are_refused_with_the_bound() {
    let cluster = Cluster::started(1).await;
    let mut kv = KvClient::new(connect(&cluster.nodes[0].client).await);
    let longest = vec![b'k'; KEY_BYTES_MAX];
    let too_long = vec![b'k'; KEY_BYTES_MAX + 1];
    let too_large = vec![b'v'; VALUE_BYTES_MAX + 1];
    for (request, rule) in [
        (put("", "v"), "at least one byte".to_owned()),
        (put(too_long.clone(), "v"), KEY_BYTES_MAX.to_string()),
        (put("k", too_large), VALUE_BYTES_MAX.to_string()),
    ] {
        let refused = kv.put(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(&rule), "{rule} is not in {refused}");
    }
    let key = Bytes::from(too_long);
    let refused = kv.delete(DeleteRequest { key, ..Default::default() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let nothing = kv.batch(BatchRequest::default()).await.unwrap_err();
    assert_eq!(nothing.code(), Code::InvalidArgument, "{nothing}");
    let mut leased = put("k", "v");
    leased.get_mut().lease_id = 7;
    let refused = kv.put(leased).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("no leases"), "{refused}");
    assert!(rows(&cluster).await.is_empty());
    // A key and a value just within the bounds are accepted.
    kv.put(put(longest.clone(), vec![b'v'; VALUE_BYTES_MAX])).await.unwrap();
    assert_eq!(rows(&cluster).await, [longest]);

    cluster.cli(["put", "", "v"]).await.failure(2, "INVALID_ARGUMENT");
    cluster.cli(["get", ""]).await.failure(2, "INVALID_ARGUMENT");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_the_system_are_neither_written_nor_read_by_users() {
    let cluster = Cluster::started(1).await;
    let mut kv = KvClient::new(connect(&cluster.nodes[0].client).await);
    let system = "_/cluster/config/replication_factor";
    let write = kv.put(put(system, "7")).await.unwrap_err();
    assert_eq!(write.code(), Code::PermissionDenied, "{write}");
    let body = Put { key: system.into(), value: "7".into(), lease_id: 0 };
    let operations = vec![Operation { body: Some(operation::Body::Put(body)) }];
    let batch = kv.batch(BatchRequest { operations, ..Default::default() }).await.unwrap_err();
    assert_eq!(batch.code(), Code::PermissionDenied, "{batch}");
    for arguments in [["put", system, "7"].as_slice(), &["delete", system], &["get", system]] {
        let ran = crate::support::cli::run(&cluster.endpoints(), arguments).await;
        ran.failure(1, "PERMISSION_DENIED");
    }
    cluster.cli(["range", "_/", "_0"]).await.failure(1, "PERMISSION_DENIED");
    let factor = cluster.cli(["admin", "config", "get", "replication_factor"]).await;
    assert_eq!(factor.success(), "3\n");
}

/// Sends a request to a node without the SDK, and returns the answer.
async fn ask(address: &str, body: request::Body) -> response::Body {
    let request = v1::Request { body: Some(body), ..Default::default() };
    let answer = NodeClient::new(connect(address).await).call(request).await.unwrap();
    answer.into_inner().body.unwrap()
}

fn is_denied(answer: &response::Body) -> bool {
    let response::Body::Error(error) = answer else { return false };
    matches!(error.kind, Some(Kind::PermissionDenied(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_nodes_may_ask_is_refused_to_users() {
    let cluster = Cluster::started(1).await;
    let range = Some(header_of(&cluster, b"_/cluster/").await);
    let (start_key, end_key) = (Bytes::from("_/cluster/"), Bytes::from("_/cluster0"));
    let key = Bytes::from("_/cluster/config/replication_factor");
    let read = request::Body::PointRead(PointRead { range, key, ..Default::default() });
    let scan = Scan { range, start_key, end_key, ..Default::default() };
    let inner = || Box::new(v1::Request { body: Some(read.clone()), ..Default::default() });
    let asked = [
        read.clone(),
        request::Body::Scan(scan),
        request::Body::ForUser(inner()),
        request::Body::Forwarded(inner()),
        request::Body::Heartbeat(Default::default()),
        request::Body::Join(Default::default()),
    ];
    for body in asked {
        let answer = ask(&cluster.nodes[0].client, body.clone()).await;
        assert!(is_denied(&answer), "{body:?} was answered by {answer:?}");
    }
    // Nodes may read system keys, but not for a user.
    let peer = &cluster.nodes[0].peer;
    assert!(matches!(ask(peer, read.clone()).await, response::Body::PointRead(_)));
    assert!(is_denied(&ask(peer, request::Body::ForUser(inner())).await));
    // The admin commands that show system keys still work.
    cluster.cli(["admin", "meta", "list", "_/cluster/"]).await.success();
    cluster.cli(["admin", "debug", "locks"]).await.success();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_is_refused_leaves_value_and_version_as_they_were() {
    let cluster = Cluster::started(1).await;
    cluster.cli(["admin", "config", "set", "replication_factor", "5"]).await.success();
    let shown = ["admin", "config", "get", "replication_factor", "--history", "--output", "json"];
    let before = cluster.cli(shown).await.success();
    for bad in ["0", "abc", "-1", "99"] {
        let set = cluster.cli(["admin", "config", "set", "replication_factor", bad]).await;
        set.failure(2, "INVALID_ARGUMENT");
    }
    let set = cluster.cli(["admin", "config", "set", "node_dead_after", "soon"]).await;
    set.failure(2, "INVALID_ARGUMENT");
    let set = cluster.cli(["admin", "config", "set", "no_such_setting", "1"]).await;
    set.failure(2, "no_such_setting");
    assert_eq!(cluster.cli(shown).await.success(), before);
    assert!(before.contains("\"version\":1"), "{before}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_is_not_said_to_have_a_value_that_its_request_has_not_set() {
    let cluster = Cluster::started(1).await;
    let address = &cluster.nodes[0].client;
    let set = async |value: &str, request_id| {
        let (name, value) = ("node_dead_after".to_owned(), value.to_owned());
        let set = ConfigSet { name, value, dry_run: false, request_id };
        ask(address, request::Body::ConfigSet(set)).await
    };
    let version = |answer: &response::Body| {
        let response::Body::ConfigSet(reply) = answer else { return None };
        Some(reply.entry.as_ref()?.value.as_ref()?.version)
    };
    let first = set("7m", 42).await;
    assert_eq!(version(&first), Some(1), "{first:?}");
    let again = set("7m", 42).await;
    assert_eq!(version(&again), Some(1), "{again:?}");
    let response::Body::Error(refused) = set("8m", 42).await else { panic!("8m was not set") };
    assert!(matches!(refused.kind, Some(Kind::InvalidArgument(_))), "{refused:?}");
    let other = set("8m", 43).await;
    assert_eq!(version(&other), Some(2), "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_too_many_requests_breaks_its_stream_off_and_nothing_else() {
    let cluster = Cluster::started(1).await;
    let mut node = NodeClient::new(connect(&cluster.nodes[0].client).await);
    let many = Requests { requests: vec![Default::default(); 5_000] };
    let mut answers = node.stream(futures::stream::iter([many])).await.unwrap().into_inner();
    let refused = answers.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("5000 requests"), "{refused}");

    let few = Requests { requests: vec![Default::default(); 100] };
    let mut answers = node.stream(futures::stream::iter([few])).await.unwrap().into_inner();
    let mut answered = 0;
    while let Some(message) = answers.message().await.unwrap() {
        answered += message.responses.len();
    }
    assert_eq!(answered, 100);
}
