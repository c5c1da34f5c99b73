//! Memory of a node under clients that request much and read nothing, and under clients whose
//! messages are large once decoded.

use futures::StreamExt;
use rangedb_client::Client;
use rangedb_proto::v1::kv_client::KvClient;
use rangedb_proto::v1::node_client::NodeClient;
use rangedb_proto::v1::{RangeRequest, Request, Requests, Scan, request};
use tonic::Code;

use crate::support::cluster::Cluster;
use crate::support::gateway::connect;
use crate::support::node::Node;
use crate::support::range::header_of;
use crate::support::wait::{SOON, check, until};

const LIMIT: &str = "512MiB";
const LIMIT_BYTES: f64 = (512_u64 << 20) as f64;

const ANSWERS_USED: &str = "rangedb_memory_share_used_bytes{share=\"answers\"}";

/// Writes enough rows for full pages of a scan.
async fn fill(client: &Client) {
    for number in 0..40 {
        client.put(format!("k{number:02}"), vec![b'x'; 100_000]).await.unwrap();
    }
}

async fn started() -> Cluster {
    let cluster = Cluster::of(1).await.with_flags(["--memory-limit", LIMIT]).start().await;
    fill(&cluster.client()).await;
    cluster
}

async fn resident(node: &Node) -> f64 {
    node.metric("process_resident_memory_bytes").await.unwrap()
}

/// Asserts that other clients are served, and that the node keeps within its limit meanwhile.
async fn others_are_served(cluster: &Cluster) {
    let other = cluster.client();
    for number in 0..200 {
        other.put("other", number.to_string()).await.unwrap();
        assert_eq!(other.get("other").await.unwrap().unwrap().value, number.to_string());
        let resident = resident(&cluster.nodes[0]).await;
        assert!(resident < LIMIT_BYTES, "{resident} bytes after {number} puts");
    }
}

async fn answers_used(node: &Node, is_wanted: impl Fn(f64) -> bool) {
    until("memory of answers is as it should be", SOON, async || {
        let used = node.sample(ANSWERS_USED).await?;
        check(is_wanted(used), format!("{used} bytes of answers"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_whose_answers_nobody_reads_take_no_more_than_their_share() {
    let cluster = started().await;
    let node = &cluster.nodes[0];
    let range = Some(header_of(&cluster, b"k").await);
    let scan = |id| {
        let (start_key, end_key) = ("k".into(), "l".into());
        let scan = Scan { range, start_key, end_key, ..Default::default() };
        Request {
            id,
            timeout_ms: 600_000,
            body: Some(request::Body::Scan(scan)),
            ..Default::default()
        }
    };
    let requests = Requests { requests: (1..=2048).map(scan).collect() };
    let (open, more) = futures::channel::mpsc::unbounded();
    let sent = futures::stream::iter([requests]).chain(more);
    let mut slow = NodeClient::new(connect(&node.client).await);
    let unread = slow.stream(sent).await.unwrap();
    answers_used(node, |used| used >= (1 << 20) as f64).await;
    others_are_served(&cluster).await;
    // Both halves are dropped: one open half would keep the stream open.
    drop(open);
    drop(unread);
    answers_used(node, |used| used == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_that_nobody_reads_are_refused_once_their_share_is_used_up() {
    let cluster = started().await;
    let node = &cluster.nodes[0];
    let mut kv = KvClient::new(connect(&node.client).await);
    let mut unread = Vec::new();
    let refused = loop {
        let everything = RangeRequest { start_key: "k".into(), ..Default::default() };
        let request = RangeRequest { end_key: "l".into(), ..everything };
        let mut request = tonic::Request::new(request);
        request.set_timeout(std::time::Duration::from_secs(2));
        match kv.range(request).await {
            Ok(rows) => unread.push(rows),
            Err(status) => break status,
        }
        assert!(unread.len() < 500, "every stream was opened");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    others_are_served(&cluster).await;
    drop(unread);
    drop(kv);
    answers_used(node, |used| used == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_millions_of_empty_parts_costs_little() {
    let cluster = started().await;
    let node = &cluster.nodes[0];
    let before = resident(node).await;
    for _ in 0..4 {
        let mut client =
            NodeClient::new(connect(&node.client).await).max_encoding_message_size(16 << 20);
        let many = Requests { requests: vec![Default::default(); 2_000_000] };
        let mut answers = client.stream(futures::stream::iter([many])).await.unwrap().into_inner();
        let refused = answers.message().await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains("too many parts"), "{refused}");
    }
    let grown = resident(node).await - before;
    assert!(grown < (100 << 20) as f64, "it grew by {grown} bytes");
}
