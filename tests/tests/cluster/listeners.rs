//! Listeners: the client address does not serve raft. A caller that reaches only this address
//! cannot move raft state.

use rangedb_proto::v1::node_client::NodeClient;
use rangedb_proto::v1::peer_client::PeerClient;
use rangedb_proto::v1::{
    BootstrapProbe, BootstrapRequest, Epoch, Heartbeat, JoinCluster, LockWaits, NodeDescriptor,
    RaftEnvelope, RaftMessages, RangeDescriptor, Replica, Request, SnapshotChunk,
    bootstrap_request, error::Kind, raft_envelope, request, response,
};
use tonic::Code;

use crate::support::cluster::Cluster;
use crate::support::gateway::connect;

/// Builds a message that would make the receiver destroy its replica of a range, if believed.
fn removal(cluster_id: u64, range_id: u64) -> RaftMessages {
    let replica = |node_id| Replica { replica_id: node_id, node_id, role: 0 };
    let removed = RangeDescriptor {
        range_id,
        epoch: Some(Epoch { version: 1, conf_ver: 9 }),
        next_replica_id: 9,
        ..Default::default()
    };
    let envelope = RaftEnvelope {
        range_id,
        from: Some(replica(2)),
        to: Some(replica(1)),
        epoch: removed.epoch,
        body: Some(raft_envelope::Body::Removed(Box::new(removed))),
        vote_promise_us: 0,
        short_of_room: false,
    };
    RaftMessages { cluster_id, from_node_id: 2, to_node_id: 1, envelopes: vec![envelope] }
}

#[tokio::test(flavor = "multi_thread")]
async fn raft_snapshots_and_formation_are_not_served_to_clients() {
    let cluster = Cluster::started(1).await;
    let cluster_id = cluster.status().await.unwrap().cluster_id;
    let mut peer = PeerClient::new(connect(&cluster.nodes[0].client).await);
    let messages: Vec<_> = (1..=6).map(|range| removal(cluster_id, range)).collect();
    let refused = peer.raft(futures::stream::iter(messages)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
    let refused = peer.snapshot(futures::stream::iter([SnapshotChunk::default()])).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
    let probe =
        || BootstrapRequest { body: Some(bootstrap_request::Body::Probe(BootstrapProbe {})) };
    let refused = peer.bootstrap(probe()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
    assert_eq!(cluster.nodes[0].metric("rangedb_range_replicas").await.unwrap(), 6.0);

    let mut peer = PeerClient::new(connect(&cluster.nodes[0].peer).await);
    let answer = peer.bootstrap(probe()).await.unwrap().into_inner();
    assert_eq!(answer.cluster_id, cluster_id, "other nodes are answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nodes_ask_of_each_other_is_refused_to_clients() {
    let cluster = Cluster::started(1).await;
    let mut node = NodeClient::new(connect(&cluster.nodes[0].client).await);
    let status = request::Body::ClusterStatus(Default::default());
    let asked = Request { body: Some(status.clone()), ..Default::default() };
    let stranger = NodeDescriptor {
        peer_address: "127.0.0.1:9".to_owned(),
        directory_id: 77,
        ..Default::default()
    };
    for body in [
        request::Body::Join(JoinCluster { node: Some(stranger) }),
        request::Body::Heartbeat(Heartbeat::default()),
        request::Body::LockWaits(LockWaits::default()),
        request::Body::Forwarded(Box::new(asked)),
    ] {
        let asked = Request { body: Some(body.clone()), ..Default::default() };
        let answer = node.call(asked).await.unwrap().into_inner();
        let Some(response::Body::Error(error)) = answer.body else {
            panic!("{body:?}: {answer:?}")
        };
        assert!(matches!(error.kind, Some(Kind::PermissionDenied(_))), "{body:?}: {error:?}");
    }
    assert_eq!(cluster.status().await.unwrap().nodes.len(), 1);
}
