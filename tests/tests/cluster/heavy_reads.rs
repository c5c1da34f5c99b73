//! Heavy reads beside cheap requests.

use rangedb_proto::v1::node_client::NodeClient;
use rangedb_proto::v1::{ReadCheck, Request, Requests, Scan, Validate, request, response};

use crate::support::cluster::Cluster;
use crate::support::gateway::connect;
use crate::support::range::header_of;

const ROWS: usize = 20_000;

const LEADERSHIPS: &str = "rangedb_raft_leaderships_won_total";

async fn leaderships(cluster: &Cluster) -> f64 {
    let mut won = 0.0;
    for node in &cluster.nodes {
        won += node.metric(LEADERSHIPS).await.unwrap();
    }
    won
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_scans_and_validations_moves_no_leadership_and_fails_no_put() {
    let cluster = Cluster::started(3).await;
    let client = cluster.client();
    for chunk in 0..ROWS / 1000 {
        let mut batch = rangedb_client::Batch::new();
        for row in 0..1000 {
            batch = batch.put(format!("k{chunk:03}{row:03}"), "v");
        }
        client.batch(batch).await.unwrap();
    }
    cluster.replicated(3, crate::support::wait::SOON).await;
    cluster.balanced().await;
    let range = Some(header_of(&cluster, b"k").await);
    let leader = cluster.leader_of(b"k").await;
    let start_ts = client.timestamp().await.unwrap().0;
    let commit_ts = client.timestamp().await.unwrap().0;
    let (start_key, end_key) = (bytes::Bytes::from("k"), bytes::Bytes::from("l"));
    let request = |id: u64| {
        let (start_key, end_key) = (start_key.clone(), end_key.clone());
        let body = match id.is_multiple_of(8) {
            false => request::Body::Scan(Scan {
                range,
                start_key,
                end_key,
                keys_only: true,
                ..Default::default()
            }),
            true => request::Body::Validate(Validate {
                range,
                start_ts,
                commit_ts,
                reads: vec![ReadCheck { start_key, end_key, read_ts: start_ts }],
                ..Default::default()
            }),
        };
        Request { id, timeout_ms: 120_000, body: Some(body), ..Default::default() }
    };
    let before = leaderships(&cluster).await;
    let requests = Requests { requests: (1..=512).map(request).collect() };
    let mut node = NodeClient::new(connect(&cluster.nodes[leader].client).await)
        .max_decoding_message_size(16 << 20);
    let mut answers = node.stream(futures::stream::iter([requests])).await.unwrap().into_inner();
    let flood = async {
        let mut answered = 0;
        while let Some(message) = answers.message().await.unwrap() {
            for response in message.responses {
                let failed = matches!(response.body, None | Some(response::Body::Error(_)));
                assert!(!failed, "{:?}", response.body);
                answered += 1;
            }
        }
        answered
    };
    let puts = async {
        let mut done = 0;
        loop {
            client.put("beside", "v").await.unwrap();
            done += 1;
            tokio::task::yield_now().await;
            if done == 100 {
                return;
            }
        }
    };
    let (answered, ()) = futures::join!(flood, puts);
    assert_eq!(answered, 512);
    assert_eq!(leaderships(&cluster).await, before);
}
