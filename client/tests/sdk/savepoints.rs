//! Savepoints of transactions.

use crate::fake::Cluster;
use rangedb_client::{Client, Error, SAVEPOINTS_MAX, Transaction, TransactionOptions};

async fn begin(client: &Client) -> Transaction {
    client.begin(TransactionOptions::default()).await.unwrap()
}

#[test]
fn what_was_written_since_a_savepoint_is_undone_and_nothing_else() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        client.put("a", "old").await.unwrap();
        let txn = begin(&client).await;
        txn.put("b", "kept").await.unwrap();
        let savepoint = txn.savepoint().unwrap();
        for _ in 0..2 {
            txn.delete("a").await.unwrap();
            txn.put("b", "undone").await.unwrap();
            txn.put("z", "undone").await.unwrap();
            txn.rollback_to(savepoint).unwrap();
            assert_eq!(&txn.get("a").await.unwrap().unwrap().value[..], b"old");
            assert_eq!(&txn.get("b").await.unwrap().unwrap().value[..], b"kept");
            assert_eq!(txn.get("z").await.unwrap(), None);
        }
        txn.commit().await.unwrap();
        assert_eq!(&client.get("a").await.unwrap().unwrap().value[..], b"old");
        assert_eq!(&client.get("b").await.unwrap().unwrap().value[..], b"kept");
        assert_eq!(client.get("z").await.unwrap(), None);
    });
}

#[test]
fn reads_and_locks_stay() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let txn = begin(&client).await;
        let savepoint = txn.savepoint().unwrap();
        txn.get("z").await.unwrap();
        txn.get_for_update("a").await.unwrap();
        txn.rollback_to(savepoint).unwrap();
        assert_eq!(cluster.state.lock().store.locks.len(), 1);
        client.put("z", "changed").await.unwrap();
        txn.put("b", "1").await.unwrap();
        assert!(matches!(txn.commit().await, Err(Error::WriteConflict { .. })));
    });
}

#[test]
fn savepoints_of_others_and_too_many_are_refused() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let (one, two) = (begin(&client).await, begin(&client).await);
        let savepoint = one.savepoint().unwrap();
        assert!(matches!(two.rollback_to(savepoint), Err(Error::Invalid { .. })));
        for _ in 1..SAVEPOINTS_MAX {
            one.savepoint().unwrap();
        }
        assert!(matches!(one.savepoint(), Err(Error::TooLarge { .. })));
        one.rollback_to(savepoint).unwrap();
        one.savepoint().unwrap();
    });
}
