//! Nodes of other clusters, garbage, and clients that go away in the middle of a request.

use bytes::Bytes;
use rangedb_client::Batch;
use rangedb_proto::v1::peer_client::PeerClient;
use rangedb_proto::v1::{
    RaftEnvelope, RaftMessages, Replica, SnapshotChunk, SnapshotHeader, raft_envelope,
    snapshot_chunk,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::cluster::Cluster;
use crate::support::gateway::connect;
use crate::support::wait::{SOON, check, until};

/// Builds an envelope that would make the receiver destroy its replica of the first range, if
/// believed.
fn envelope() -> RaftEnvelope {
    let replica = |node_id| Replica { replica_id: node_id, node_id, role: 0 };
    let removed = rangedb_proto::v1::RangeDescriptor {
        range_id: 1,
        epoch: Some(rangedb_proto::v1::Epoch { version: 9, conf_ver: 9 }),
        next_replica_id: 9,
        ..Default::default()
    };
    RaftEnvelope {
        range_id: 1,
        from: Some(replica(2)),
        to: Some(replica(1)),
        epoch: removed.epoch,
        body: Some(raft_envelope::Body::Removed(Box::new(removed))),
        vote_promise_us: 0,
        short_of_room: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_is_not_believed() {
    let cluster = Cluster::started(1).await;
    let own = cluster.status().await.unwrap().cluster_id;
    let mut peer = PeerClient::new(connect(&cluster.nodes[0].peer).await);
    let header = |cluster_id| SnapshotHeader {
        cluster_id,
        from_node_id: 2,
        to_node_id: 1,
        envelope: Some(envelope()),
    };
    let messages = RaftMessages {
        cluster_id: own ^ 1,
        from_node_id: 2,
        to_node_id: 1,
        envelopes: vec![envelope()],
    };
    let refused = peer.raft(futures::stream::iter([messages])).await.unwrap_err();
    assert!(refused.message().contains("cluster"), "{refused}");
    let chunk = SnapshotChunk { body: Some(snapshot_chunk::Body::Header(header(own ^ 1))) };
    let refused = peer.snapshot(futures::stream::iter([chunk])).await.unwrap_err();
    assert!(refused.message().contains("cluster"), "{refused}");
    let refusals = cluster.nodes[0].metric("rangedb_raft_transport_refused_total").await.unwrap();
    assert!(refusals >= 1.0, "{refusals}");
    assert_eq!(cluster.nodes[0].metric("rangedb_range_replicas").await.unwrap(), 6.0);
    cluster.cli(["put", "/still", "here"]).await.success();
}

/// Example: a disk is replaced and the node is started as if there were no cluster yet, or another
/// cluster gets the node's addresses. The ranges there have the same ids and epochs.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_at_the_addresses_of_a_dead_node_takes_no_requests_of_the_old_one() {
    let mut cluster = Cluster::started(3).await;
    cluster.replicated(3, SOON).await;
    let own = cluster.status().await.unwrap().cluster_id;
    let victim = cluster.leader_of(b"/k").await;
    let client = cluster.client();
    client.put("/k", "old").await.unwrap();

    cluster.nodes[victim].kill();
    cluster.nodes[victim].wipe();
    cluster.nodes[victim].flags = vec!["--cluster-init".to_owned()];
    cluster.nodes[victim].start();
    let foreign = cluster.client_of(victim);
    let there = until("it has formed a cluster of its own", SOON, async || {
        foreign.admin().cluster_status().await.map_err(|error| error.to_string())
    });
    assert_ne!(there.await.cluster_id, own);

    let healthy: Vec<usize> = (0..3).filter(|node| *node != victim).collect();
    for round in 0..20 {
        // The client knows the range's leader at that address, and so do the other nodes.
        let value = format!("{round}");
        client.put("/k", value.clone()).await.unwrap();
        let through = cluster.client_of(healthy[round % 2]);
        assert_eq!(through.get("/k").await.unwrap().unwrap().value, value);
        assert_eq!(through.admin().cluster_status().await.unwrap().cluster_id, own);
    }
    assert_eq!(foreign.get("/k").await.unwrap(), None);
    for node in healthy {
        assert!(cluster.nodes[node].is_running(), "{} ended", cluster.nodes[node].name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_on_every_port_do_no_harm() {
    let mut cluster = Cluster::started(1).await;
    cluster.cli(["put", "/k", "v"]).await.success();
    let mut noise = fastrand::Rng::with_seed(7);
    let node = &cluster.nodes[0];
    for address in [&node.peer, &node.client, &node.status] {
        for round in 0..30 {
            let mut bytes: Vec<u8> = (0..noise.usize(1..4096)).map(|_| noise.u8(..)).collect();
            if round % 2 == 0 {
                // Passes the first check, so that the node takes the rest for frames of HTTP/2.
                bytes.splice(0..0, *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            }
            let mut stream = TcpStream::connect(address).await.unwrap();
            // The node may hang up before it has read all.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap();
        }
    }
    assert!(cluster.nodes[0].is_running());
    let answer = cluster.nodes[0].http("/healthz").await.unwrap();
    assert_eq!(answer.code, 200);
    assert_eq!(cluster.cli(["get", "/k"]).await.success(), "v\n");
    assert!(!cluster.nodes[0].log_text().contains("panicked"), "a task panicked");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_vanish_in_the_middle_of_requests_leave_nothing_half_done() {
    const CLIENTS: u8 = 20;
    let cluster = Cluster::started(3).await;
    let mut vanishing = JoinSet::new();
    for client in 0..CLIENTS {
        let connection = cluster.client_of(usize::from(client) % 3);
        vanishing.spawn(async move {
            for round in 0..u32::from(client) + 1 {
                let value = Bytes::from(vec![client; 10_000]);
                let key = |part| format!("/gone/{client}/{round}/{part}");
                let batch = Batch::new().put(key("a"), value.clone()).put(key("b"), value);
                // Dropped while in flight, each a little later than the one before.
                let writing = connection.batch(batch);
                let steps = futures::future::join_all((0..round).map(|_| tokio::task::yield_now()));
                let _ = futures::future::select(Box::pin(writing), Box::pin(steps)).await;
            }
        });
    }
    vanishing.join_all().await;
    // A request without its end, too.
    for node in &cluster.nodes {
        let mut stream = TcpStream::connect(&node.client).await.unwrap();
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x10")
            .await
            .unwrap();
    }
    let client = cluster.client();
    for owner in 0..CLIENTS {
        for round in 0..u32::from(owner) + 1 {
            let keys = ["a", "b"].map(|part| format!("/gone/{owner}/{round}/{part}"));
            let found = client.get_many(keys).await.unwrap();
            assert_eq!(found[0].is_some(), found[1].is_some(), "half of {owner}/{round} is there");
        }
    }
    until("nothing waits for who has gone", SOON, async || {
        for node in &cluster.nodes {
            let waiting = node.metric("rangedb_raft_mailbox_bytes").await?;
            check(waiting == 0.0, format!("{} has {waiting} bytes waiting", node.name))?;
        }
        Ok::<_, String>(())
    })
    .await;
    cluster.cli(["put", "/still", "here"]).await.success();
}
