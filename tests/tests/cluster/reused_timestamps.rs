//! Clients that use one start_ts for several commands: they get an error, and nothing else happens.
//! Each of these commands once ended every replica of the range, at once and at every start.

use bytes::Bytes;
use rangedb_proto::v1::node_client::NodeClient;
use rangedb_proto::v1::{
    self, CommitOneRange, Epoch, Locate, Operation, Put, RangeHeader, Request, Timestamps, Write,
    error::Kind, operation, request, response,
};
use tonic::transport::Channel;

use crate::support::cluster::Cluster;
use crate::support::gateway::connect;
use crate::support::wait::{SOON, until};

const KEY: &str = "/reused/k";

async fn ask(node: &mut NodeClient<Channel>, body: request::Body) -> response::Body {
    let request = Request { id: 1, timeout_ms: 5_000, body: Some(body), ..Default::default() };
    let response = node.call(request).await.unwrap().into_inner();
    response.body.expect("every request is answered")
}

fn put(key: &str, bytes: usize) -> Operation {
    let (key, value) = (Bytes::from(key.to_owned()), vec![b'v'; bytes].into());
    Operation { body: Some(operation::Body::Put(Put { key, value, lease_id: 0 })) }
}

/// Returns the answer of the range's leader, whichever node that is by now.
async fn write(cluster: &Cluster, commit: &CommitOneRange) -> Result<v1::Committed, v1::Error> {
    until("the range's leader answers", SOON, async || {
        for node in &cluster.nodes {
            let mut node = NodeClient::new(connect(&node.client).await);
            let locate = Locate { key: Bytes::from(KEY), count: 1, reverse: false };
            let response::Body::Locate(found) = ask(&mut node, request::Body::Locate(locate)).await
            else {
                continue;
            };
            let descriptor = found.ranges[0].descriptor.clone().unwrap();
            let epoch: Epoch = descriptor.epoch.unwrap_or_default();
            let range = Some(RangeHeader { range_id: descriptor.range_id, epoch: Some(epoch) });
            let write = Write { range, commit: Some(commit.clone()), lock_wait_ms: 0 };
            match ask(&mut node, request::Body::Write(write)).await {
                response::Body::Write(reply) => return Ok(Ok(reply.committed.unwrap())),
                response::Body::Error(error) => {
                    if let Some(Kind::InvalidArgument(_)) = &error.kind {
                        return Ok(Err(error));
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        Err("no node leads the range")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_ts_that_is_used_again_is_refused_and_ends_nobody() {
    let mut cluster = Cluster::started(3).await;
    let mut node = NodeClient::new(connect(&cluster.nodes[0].client).await);
    let fresh = ask(&mut node, request::Body::Timestamps(Timestamps { count: 1 })).await;
    let response::Body::Timestamps(fresh) = fresh else { panic!("{fresh:?}") };
    let start_ts = fresh.last;
    let first = CommitOneRange { start_ts, operations: vec![put(KEY, 600)], ..Default::default() };
    let operations = vec![put("/reused/a", 1), put(KEY, 700)];
    let second = CommitOneRange { start_ts, operations, ..Default::default() };
    let third = CommitOneRange { return_previous: true, ..second.clone() };
    assert!(!write(&cluster, &first).await.unwrap().repeated_command);
    for command in [&second, &third] {
        let refused = write(&cluster, command).await.unwrap_err();
        assert!(refused.message.contains("another command"), "{refused}");
    }
    assert!(write(&cluster, &first).await.unwrap().repeated_command, "a copy is a copy");
    for node in &mut cluster.nodes {
        assert!(node.stop().await.success(), "{} has ended by itself", node.name);
        node.start();
    }
    cluster.ready().await;
    let client = cluster.client();
    assert_eq!(client.get(KEY).await.unwrap().unwrap().value.len(), 600);
    assert_eq!(client.get("/reused/a").await.unwrap(), None);
    client.put(KEY, "goes on").await.unwrap();
}
