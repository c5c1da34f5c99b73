//! Timestamps that a client names and the oracle did not hand out.

use std::time::Duration;

use bytes::Bytes;
use rangedb_proto::Timestamp;
use rangedb_proto::v1::error::Kind;
use rangedb_proto::v1::node_client::NodeClient;
use rangedb_proto::v1::{
    self, CommitOneRange, Condition, Operation, Put, Request, condition, operation, request,
    response,
};

use crate::support::cluster::Cluster;
use crate::support::gateway::connect;
use crate::support::range::header_of;

/// Distance into the future, below what nodes once took on trust.
const AHEAD: Duration = Duration::from_millis(2_400);

fn put(key: &'static str, value: &'static str) -> Operation {
    let put = Put { key: key.into(), value: value.into(), lease_id: 0 };
    Operation { body: Some(operation::Body::Put(put)) }
}

fn ahead_of(now: Timestamp) -> u64 {
    Timestamp::from_millis(now.millis() + AHEAD.as_millis() as u64).0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timestamp_from_the_future_is_refused_and_pushes_nobody_there() {
    let cluster = Cluster::started(1).await;
    let client = cluster.client();
    client.put("k", "old").await.unwrap();
    let mut node = NodeClient::new(connect(&cluster.nodes[0].client).await);
    let range = header_of(&cluster, b"k").await;
    let fails = Condition { key: "k".into(), test: Some(condition::Test::Exists(false)) };
    for conditions in [vec![], vec![fails]] {
        let start_ts = ahead_of(client.timestamp().await.unwrap());
        let operations = vec![put("pushed", "x")];
        let commit = CommitOneRange { start_ts, conditions, operations, ..Default::default() };
        let write = v1::Write { range: Some(range), commit: Some(commit), ..Default::default() };
        let body = Some(request::Body::Write(write));
        let answer = node.call(Request { body, ..Default::default() }).await.unwrap().into_inner();
        let Some(response::Body::Error(refused)) = answer.body else { panic!("{answer:?}") };
        assert!(matches!(refused.kind, Some(Kind::InvalidArgument(_))), "{refused:?}");
    }
    // A reader that begins after an acknowledged write sees the write.
    let written = client.put("k", "new").await.unwrap();
    let afterwards = client.timestamp().await.unwrap();
    assert!(written.commit_ts < afterwards, "{written:?} is not below {afterwards}");
    let seen = client.get_at("k", afterwards).await.unwrap().unwrap();
    assert_eq!(seen.value, Bytes::from("new"));
    assert_eq!(client.get("pushed").await.unwrap(), None);
}
