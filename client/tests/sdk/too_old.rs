//! Transactions from below the floor, where versions may be gone.

use std::time::Duration;

use crate::fake::Cluster;
use futures::future::join;
use rangedb_client::net::Net;
use rangedb_client::{Client, Error, Isolation, Timestamp, TransactionOptions};

/// Raises the floor to now, as if all older versions had been dropped.
async fn raise_floor(cluster: &Cluster, client: &Client) -> Timestamp {
    let floor = client.timestamp().await.unwrap();
    cluster.change(|state| state.floor = floor.0);
    floor
}

#[test]
fn reads_and_scans_from_below_the_floor_say_so() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let at = client.timestamp().await.unwrap();
        let txn = client.begin(TransactionOptions::default()).await.unwrap();
        let floor = raise_floor(&cluster, &client).await;
        let read = txn.get("a").await.unwrap_err();
        assert!(matches!(read, Error::TooOld { floor_ts, .. } if floor_ts == floor.0), "{read}");
        let scanned = txn.range(rangedb_client::RangeOptions::new("a", "")).next().await.unwrap();
        assert!(matches!(scanned, Err(Error::TooOld { .. })));
        assert!(matches!(client.get_at("a", at).await, Err(Error::TooOld { .. })));
        client.put("a", "1").await.unwrap();
        assert!(client.get("a").await.unwrap().is_some());
    });
}

#[test]
fn a_commit_from_below_the_floor_fails_and_leaves_nothing() {
    for isolation in [Isolation::Serializable, Isolation::Snapshot] {
        for second in ["b", "z"] {
            let cluster = Cluster::with_seed(1);
            let client = cluster.client();
            cluster.run(async {
                let options = TransactionOptions { isolation, ..Default::default() };
                let txn = client.begin(options).await.unwrap();
                txn.get("a").await.unwrap();
                txn.put("a", "1").await.unwrap();
                txn.put(second, "1").await.unwrap();
                raise_floor(&cluster, &client).await;
                let error = txn.commit().await.unwrap_err();
                assert!(matches!(error, Error::TooOld { .. }), "{isolation:?} {second} {error}");
                assert_eq!(client.get("a").await.unwrap(), None);
                assert!(cluster.state.lock().store.locks.is_empty());
            });
        }
    }
}

#[test]
fn a_commit_that_may_have_happened_before_the_floor_rose_is_undetermined() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let options = TransactionOptions::default();
        let txn = client.begin(options).await.unwrap();
        txn.get("a").await.unwrap();
        txn.put("a", "1").await.unwrap();
        cluster.change(|state| state.answers_to_lose = 1);
        let rise = async {
            cluster.sleep(Duration::from_millis(500)).await;
            // The range no longer remembers the commands that it applied.
            cluster.change(|state| state.applied.clear());
            raise_floor(&cluster, &client).await;
        };
        let (outcome, ()) = join(txn.commit(), rise).await;
        assert!(matches!(outcome, Err(Error::Undetermined(_))), "{outcome:?}");
        assert!(client.get("a").await.unwrap().is_some());
    });
}
