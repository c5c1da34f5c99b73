//! Stale reads: a leader that stood still while another was elected must not answer from its old
//! state.

use bytes::Bytes;
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::node_client::NodeClient;
use rangedb_proto::v1::{PointRead, RangeHeader, Request, request, response};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::support::cluster::Cluster;
use crate::support::gateway::{self, Gateway};
use crate::support::wait::{SOON, until};

const KEY: &str = "/stale";

/// Number of reads that wait in the connection while the leader stands still.
const WAITING_READS: u64 = 32;

/// Asks the node itself, as the leader of the range. None if the node does not answer as the
/// leader.
async fn ask_leader(mut node: NodeClient<Channel>, range: RangeHeader, id: u64) -> Option<Bytes> {
    let key = Bytes::from_static(KEY.as_bytes());
    let read = PointRead { range: Some(range), key, ..Default::default() };
    let body = Some(request::Body::PointRead(read));
    let answer =
        node.call(Request { id, timeout_ms: 10_000, body, ..Default::default() }).await.ok()?;
    match answer.into_inner().body? {
        response::Body::PointRead(reply) => Some(reply.kv.expect("the key was written").value),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stood_still_never_answers_a_stale_read() {
    let mut cluster = Cluster::started(3).await;
    cluster.client().put(KEY, "0").await.unwrap();
    for round in 1..=3 {
        let new = round.to_string();
        let leader = cluster.leader_of(KEY.as_bytes()).await;
        let others = cluster.client_of((leader + 1) % 3);
        let range = range_of(&cluster).await;
        let direct = NodeClient::new(gateway::connect(&cluster.nodes[leader].client).await);
        let gateway = Gateway::of(&cluster.nodes[leader].client).await;

        cluster.nodes[leader].process().freeze().await;
        others.put(KEY, new.clone()).await.unwrap();
        // The write is acknowledged: from here on no read may return the old value.
        let mut reads = JoinSet::new();
        for id in 1..=WAITING_READS {
            reads.spawn(ask_leader(direct.clone(), range, id));
            let mut gateway = gateway.clone();
            reads.spawn(async move { Some(gateway.get(KEY).await.ok()??.value) });
        }
        cluster.nodes[leader].process().thaw();
        for value in reads.join_all().await.into_iter().flatten() {
            assert_eq!(value, new, "a stale read in round {round}");
        }
        let mut gateway = gateway.clone();
        let value = until("the node answers again", SOON, async || gateway.get(KEY).await).await;
        assert_eq!(value.unwrap().value, new);
        cluster.ready().await;
    }
}

async fn range_of(cluster: &Cluster) -> RangeHeader {
    let partitions = cluster.partitions().await.unwrap();
    let descriptors = partitions.into_iter().filter_map(|p| p.report?.descriptor);
    let holding = descriptors.into_iter().find(|d| d.contains(KEY.as_bytes()));
    let descriptor = holding.expect("a range holds the key");
    RangeHeader { range_id: descriptor.range_id, epoch: Some(descriptor.epoch()) }
}
