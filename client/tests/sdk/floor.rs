//! Holds of the GC floor, by name and for reads; and the listing of locks.

use std::time::Duration;

use crate::fake::Cluster;
use futures::TryStreamExt;
use rangedb_client::net::Net;
use rangedb_client::{Client, Error, RangeOptions, Timestamp, Transaction, TransactionOptions};

const SECOND: Duration = Duration::from_secs(1);

async fn begin(client: &Client) -> Transaction {
    client.begin(TransactionOptions::default()).await.unwrap()
}

/// Timestamps that are held, in no order.
fn held(cluster: &Cluster) -> Vec<u64> {
    cluster.state.lock().holds.values().map(|(timestamp, _)| *timestamp).collect()
}

#[test]
fn short_transactions_hold_nothing_and_leave_no_task() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        for _ in 0..20 {
            let txn = begin(&client).await;
            txn.put("a", "1").await.unwrap();
            txn.commit().await.unwrap();
            cluster.sleep(SECOND / 5).await;
        }
        cluster.sleep(2 * SECOND).await;
    });
    assert_eq!(cluster.take_log("hold"), []);
}

#[test]
fn what_the_oldest_long_transaction_reads_at_is_held_until_it_ends() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let (old, young) = (begin(&client).await, begin(&client).await);
        let (oldest, next) = (old.start_ts().0, young.start_ts().0);
        cluster.sleep(3 * SECOND).await;
        assert_eq!(held(&cluster), [oldest]);
        let (_, (_, ttl_ms)) = cluster.state.lock().holds.pop_first().unwrap();
        assert_eq!(ttl_ms, 10_000);
        cluster.sleep(7 * SECOND).await;
        assert_eq!(held(&cluster), [oldest], "said again");
        old.rollback().await.unwrap();
        cluster.sleep(7 * SECOND).await;
        assert_eq!(held(&cluster), [next]);
        drop(young);
        cluster.sleep(3 * SECOND).await;
        assert!(held(&cluster).is_empty());
        cluster.take_log("");
        cluster.sleep(60 * SECOND).await;
    });
    assert_eq!(cluster.take_log("hold"), []);
}

#[test]
fn the_past_that_a_scan_or_a_transaction_reads_is_held_too() {
    let cluster = Cluster::with_seed(1);
    cluster.fill((0..9).map(|at| format!("b{at}")));
    let client = cluster.client();
    cluster.run(async {
        let past = client.timestamp().await.unwrap();
        let past_too = client.timestamp().await.unwrap();
        let mut rows = client.range(RangeOptions::prefix("b").at(past_too));
        rows.next().await.unwrap().unwrap();
        cluster.sleep(3 * SECOND).await;
        assert_eq!(held(&cluster), [past_too.0]);
        let options = TransactionOptions { at: Some(past), ..Default::default() };
        let txn = client.begin(options).await.unwrap();
        cluster.sleep(3 * SECOND).await;
        assert_eq!(held(&cluster), [past.0], "the older one, without delay");
        drop((rows, txn));
        cluster.sleep(3 * SECOND).await;
        assert!(held(&cluster).is_empty());
    });
    // One name for each of the two holds, neither of them reused: the fake cluster checks that.
    assert_eq!(cluster.state.lock().let_go.len(), 2);
}

#[test]
fn one_from_below_the_floor_does_not_keep_others_from_being_held() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let late = begin(&client).await;
        let floor = client.timestamp().await.unwrap();
        cluster.change(|state| state.floor = floor.0);
        let txn = begin(&client).await;
        cluster.sleep(5 * SECOND).await;
        assert_eq!(held(&cluster), [txn.start_ts().0]);
        assert!(matches!(late.get("a").await, Err(Error::TooOld { .. })));
    });
}

#[test]
fn a_hold_by_name_stays_until_it_is_released() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let at = client.timestamp().await.unwrap();
        client.admin().hold_floor("backup", at, None).await.unwrap();
        client.admin().hold_floor("watch", at, Some(SECOND)).await.unwrap();
        let holds = client.admin().garbage_status().await.unwrap().holds;
        let shown = holds.iter().map(|hold| (&hold.name[..], hold.timestamp, hold.remaining_ms));
        let expected = [("backup", at.0, None), ("watch", at.0, Some(1000))];
        assert_eq!(shown.collect::<Vec<_>>(), expected);
        client.admin().release_floor("backup").await.unwrap();
        let again = client.admin().release_floor("backup").await;
        assert!(matches!(again, Err(Error::NotFound(_))));
        let refused = client.admin().hold_floor("backup", Timestamp::ZERO, None).await;
        assert!(matches!(refused, Err(Error::Invalid { .. })));
        cluster.change(|state| state.floor = at.0 + 1);
        let refused = client.admin().hold_floor("backup", at, None).await;
        assert!(matches!(refused, Err(Error::TooOld { .. })));
    });
}

#[test]
fn locks_are_listed_over_all_ranges_and_pages() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let txn = begin(&client).await;
        let keys: Vec<String> =
            (0..8).flat_map(|at| [format!("b{at}"), format!("y{at}")]).collect();
        for key in &keys {
            txn.get_for_update(key.clone()).await.unwrap();
        }
        let list = async |prefix: &'static str| {
            let locks: Vec<_> =
                client.admin().locks(prefix.as_bytes()).try_collect().await.unwrap();
            assert!(locks.iter().all(|lock| lock.start_ts == txn.start_ts().0));
            locks.into_iter().map(|lock| lock.key).collect::<Vec<_>>()
        };
        let all = list("").await;
        assert_eq!(all.len(), 16);
        assert!(all.is_sorted());
        assert_eq!(list("y").await.len(), 8);
        assert_eq!(list("y3").await, ["y3"]);
        assert!(list("m").await.is_empty());
    });
}
