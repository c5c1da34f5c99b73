//! Deletes of spans with more keys than one command may delete, by the SDK and by plain gRPC.

use std::time::Duration;

use rangedb_client::{Batch, RangeOptions};
use rangedb_proto::v1::DeleteRangeRequest;
use rangedb_proto::v1::kv_client::KvClient;
use tonic::Request;

use crate::support::cluster::Cluster;
use crate::support::gateway::connect;

const KEYS: usize = 5_000;
const BATCH: usize = 500;

/// Timeout that all steps of a delete share.
const TIMEOUT: Duration = Duration::from_secs(60);

async fn fill(cluster: &Cluster) {
    let client = cluster.client();
    for first in (0..KEYS).step_by(BATCH) {
        let put = |batch: Batch, number| batch.put(format!("/many/{number:05}"), "v");
        client.batch((first..first + BATCH).fold(Batch::new(), put)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_of_any_size_is_deleted_and_counted() {
    let cluster = Cluster::started(3).await;
    let client = cluster.client().with_timeout(TIMEOUT);
    client.put("/before", "stays").await.unwrap();
    client.put("/zoo", "stays").await.unwrap();

    fill(&cluster).await;
    let deleted = client.delete_range("/many/", "/many0").await.unwrap();
    assert_eq!(deleted.deleted, KEYS as u64);
    assert!(deleted.commits > 1, "{deleted:?}");

    // A second delete, over the tombstones of the first, by plain gRPC.
    fill(&cluster).await;
    let mut kv = KvClient::new(connect(&cluster.nodes[1].client).await);
    for expected in [KEYS as u64, 0] {
        let (start_key, end_key) = ("/many/".into(), "/many0".into());
        let mut request = Request::new(DeleteRangeRequest { start_key, end_key });
        request.set_timeout(TIMEOUT);
        let answer = kv.delete_range(request).await.unwrap().into_inner();
        assert_eq!(answer.deleted, expected);
        assert!(answer.commit_ts > deleted.commit_ts.0);
    }

    // A delete in a batch must be atomic. Above the limits of one command, the batch is a
    // transaction.
    fill(&cluster).await;
    let batch = Batch::new().delete_range("/many/", "/many0");
    let committed = client.batch(batch).await.unwrap();
    assert_eq!(committed.results[0].deleted, KEYS as u64);
    let mut rows = client.range(RangeOptions::new("/", "0").keys_only());
    let mut left = Vec::new();
    while let Some(row) = rows.next().await {
        left.push(row.unwrap().key);
    }
    assert_eq!(left, ["/before", "/zoo"]);
}
