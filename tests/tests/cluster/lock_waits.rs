//! Transactions that wait for one lock: they all get their turn, and each sees what the one before it
//! wrote.

use std::time::Duration;

use rangedb_client::{Client, Error, Transaction, TransactionOptions};
use tokio::task::JoinSet;

use crate::support::cluster::Cluster;

const LOCK_WAIT: Duration = Duration::from_secs(20);

async fn begin(client: &Client) -> Transaction {
    let options = TransactionOptions { lock_wait: Some(LOCK_WAIT), ..Default::default() };
    client.begin(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_in_a_queue_for_one_key_gets_it() {
    const WAITERS: usize = 32;
    const TURNS: usize = 3;
    let cluster = Cluster::started(3).await;
    let first = begin(&cluster.client()).await;
    first.get_for_update("queue").await.unwrap();
    let mut waiters = JoinSet::new();
    for waiter in 0..WAITERS {
        let client = cluster.client_of(waiter % 3);
        waiters.spawn(async move {
            for _ in 0..TURNS {
                let txn = begin(&client).await;
                let row = txn.get_for_update("queue").await?;
                let count = row.map_or(0, |row| row.value.len());
                txn.put("queue", vec![b'.'; count + 1]).await?;
                txn.commit().await?;
            }
            Ok::<(), Error>(())
        });
    }
    first.rollback().await.unwrap();
    while let Some(end) = waiters.join_next().await {
        end.unwrap().expect("its turn comes");
    }
    let row = cluster.client().get("queue").await.unwrap().unwrap();
    assert_eq!(row.value.len(), WAITERS * TURNS, "each saw what the one before it wrote");
}
