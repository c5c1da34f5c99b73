//! Transactions that are suspended, and resumed by another client.

use std::time::Duration;

use crate::fake::Cluster;
use futures::StreamExt;
use rangedb_client::net::Net;
use rangedb_client::{
    Client, Error, RangeOptions, SuspendedTransaction, Transaction, TransactionOptions,
};

const SECOND: Duration = Duration::from_secs(1);

async fn begin(client: &Client) -> Transaction {
    client.begin(TransactionOptions::default()).await.unwrap()
}

/// Suspends and resumes a transaction as another process does: through bytes, by a client of its
/// own.
async fn moved(cluster: &Cluster, txn: Transaction) -> Transaction {
    let bytes = txn.suspend().await.unwrap().to_bytes();
    let suspended = SuspendedTransaction::from_bytes(&bytes).unwrap();
    cluster.client().resume(suspended).await.unwrap()
}

fn locks(cluster: &Cluster) -> usize {
    cluster.state.lock().store.locks.len()
}

#[test]
fn a_transaction_that_moves_between_clients_sees_and_commits_what_it_wrote() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        client.put("b", "old").await.unwrap();
        let txn = begin(&client).await;
        let (id, start_ts) = (txn.id(), txn.start_ts());
        txn.put("a", "1").await.unwrap();
        let txn = moved(&cluster, txn).await;
        client.put("b", "newer").await.unwrap();
        assert_eq!((txn.id(), txn.start_ts()), (id, start_ts));
        txn.put("z", "1").await.unwrap();
        let txn = moved(&cluster, txn).await;
        assert_eq!(&txn.get("a").await.unwrap().unwrap().value[..], b"1");
        assert_eq!(client.get("a").await.unwrap(), None);
        let rows: Vec<_> = txn.range(RangeOptions::new("c", "")).collect().await;
        assert_eq!(rows.len(), 1);
        let commit_ts = txn.commit().await.unwrap();
        for key in ["a", "z"] {
            assert_eq!(client.get(key).await.unwrap().unwrap().mod_ts, commit_ts);
        }
    });
}

#[test]
fn what_was_read_before_is_still_checked_at_commit() {
    for span in [false, true] {
        let cluster = Cluster::with_seed(1);
        let client = cluster.client();
        cluster.run(async {
            let txn = begin(&client).await;
            match span {
                true => drop(txn.range(RangeOptions::new("b", "d")).collect::<Vec<_>>().await),
                false => drop(txn.get("c").await.unwrap()),
            }
            let txn = moved(&cluster, txn).await;
            client.put("c", "appears").await.unwrap();
            txn.put("a", "1").await.unwrap();
            let error = txn.commit().await.unwrap_err();
            assert!(matches!(error, Error::WriteConflict { .. }), "{error}");
        });
    }
}

#[test]
fn locks_stay_while_it_rests_and_are_kept_alive_once_it_goes_on() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let txn = begin(&client).await;
        txn.get_for_update("a").await.unwrap();
        txn.get_for_update("z").await.unwrap();
        let suspended = txn.suspend().await.unwrap();
        assert_eq!(suspended.locked().count(), 2);
        cluster.sleep(9 * SECOND).await;
        let txn = cluster.client().resume(suspended).await.unwrap();
        cluster.sleep(20 * SECOND).await;
        let error = client.with_timeout(SECOND).put("z", "other").await.unwrap_err();
        assert!(matches!(&error, Error::Locked { start_ts, .. } if *start_ts == txn.start_ts().0));
        txn.put("a", "1").await.unwrap();
        txn.commit().await.unwrap();
        client.put("z", "other").await.unwrap();
        assert_eq!(locks(&cluster), 0);
    });
}

#[test]
fn a_lock_that_was_lost_while_it_rested_is_noticed_at_commit() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let txn = begin(&client).await;
        txn.get_for_update("a").await.unwrap();
        txn.put("a", "1").await.unwrap();
        let suspended = txn.suspend().await.unwrap();
        cluster.sleep(11 * SECOND).await;
        client.put("a", "other").await.unwrap();
        let txn = client.resume(suspended).await.unwrap();
        let error = txn.commit().await.unwrap_err();
        assert!(error.is_transaction_conflict(), "{error}");
        assert_eq!(&client.get("a").await.unwrap().unwrap().value[..], b"other");
        assert_eq!(locks(&cluster), 0);
    });
}

#[test]
fn a_rollback_after_it_was_taken_up_leaves_no_lock() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let txn = begin(&client).await;
        txn.get_for_update("a").await.unwrap();
        txn.get_for_update("z").await.unwrap();
        let txn = moved(&cluster, txn).await;
        assert_eq!(locks(&cluster), 2);
        txn.rollback().await.unwrap();
        assert_eq!(locks(&cluster), 0);
    });
}

#[test]
fn another_cluster_refuses_it() {
    let (cluster, other) = (Cluster::with_seed(1), Cluster::with_seed(2));
    other.change(|state| state.cluster_id = 8);
    let suspended = cluster.run(async {
        let txn = begin(&cluster.client()).await;
        txn.put("a", "1").await.unwrap();
        txn.suspend().await.unwrap()
    });
    let refused = other.run(other.client().resume(suspended));
    assert!(matches!(refused, Err(Error::FailedPrecondition(_))));
}
