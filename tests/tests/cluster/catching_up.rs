//! A follower that was away for longer than the log reaches gets a snapshot.

use rangedb_client::Batch;

use crate::support::cluster::{Cluster, SMALL_LOG};
use crate::support::wait::{SOON, check, until};

const APPLIED: &str = "rangedb_range_applied_index{range_id=\"1\"}";
const LOG_ENTRIES: &str = "rangedb_range_log_entries{range_id=\"1\"}";

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_the_log_no_longer_reaches_catches_up_by_snapshot() {
    let mut cluster = Cluster::of(3).await.configured(SMALL_LOG).start().await;
    let leader = cluster.leader_of(b"/k").await;
    let follower = (leader + 1) % 3;
    let client = cluster.client_of(leader);
    client.put("/k/first", "1").await.unwrap();
    let had = cluster.nodes[follower].sample(APPLIED).await.unwrap();
    cluster.nodes[follower].kill();

    let mut batches = 0;
    until("the leader has dropped what the follower lacks", SOON, async || {
        let rows = (0..100).map(|row| (format!("/k/{batches}/{row}"), vec![b'v'; 1000]));
        let batch = rows.fold(Batch::new(), |batch, (key, value)| batch.put(key, value));
        client.batch(batch).await.map_err(|error| error.to_string())?;
        batches += 1;
        let node = &cluster.nodes[leader];
        let begins = node.sample(APPLIED).await? - node.sample(LOG_ENTRIES).await?;
        check(begins > had + 1.0, format!("the log begins at {begins}, the follower has {had}"))
    })
    .await;

    let received = "rangedb_raft_snapshots_received_total";
    cluster.nodes[follower].start();
    until("the follower has what the leader has", SOON, async || {
        let node = &cluster.nodes[follower];
        check(node.metric(received).await? >= 1.0, "no snapshot has come")?;
        let (mine, theirs) =
            (node.sample(APPLIED).await?, cluster.nodes[leader].sample(APPLIED).await?);
        check(mine == theirs, format!("{mine} of {theirs}"))
    })
    .await;

    // With the third node gone, nothing is committed or read without the follower's part.
    cluster.nodes[(leader + 2) % 3].kill();
    client.put("/k/last", "1").await.unwrap();
    let keys = (0..batches).flat_map(|batch| (0..100).map(move |row| format!("/k/{batch}/{row}")));
    let found = client.get_many(keys).await.unwrap();
    assert!(found.iter().all(|row| row.as_ref().is_some_and(|row| row.value.len() == 1000)));

    // And with the old leader gone too, the follower leads together with the third node.
    cluster.nodes[leader].kill();
    cluster.nodes[(leader + 2) % 3].start();
    let client = cluster.client_of(follower);
    let first = client.with_timeout(SOON).get("/k/first").await.unwrap();
    assert_eq!(first.unwrap().value, "1");
}
