//! Transactions that wait for each other's locks. In a ring, one of them gets a deadlock error. In
//! a queue, all get their turn.

use std::io::Write;
use std::time::{Duration, Instant};

use futures::future::join_all;
use rangedb_client::{Client, Error, LockWait, Transaction, TransactionOptions};
use tokio::task::JoinSet;

use crate::support::cluster::Cluster;

/// Keys in two ranges, in turn.
const KEYS: [&str; 3] = ["/ring/a", "ring/b", "/ring/c"];

/// Maximum time until a deadlock is found, on a machine that does other things too. On an idle
/// machine it takes a second at most. No wait for a lock ends by itself before this.
const FOUND_WITHIN: Duration = Duration::from_secs(5);

const LOCK_WAIT: Duration = Duration::from_secs(20);

async fn begin(client: &Client) -> Transaction {
    let options = TransactionOptions { lock_wait: Some(LOCK_WAIT), ..Default::default() };
    client.begin(options).await.unwrap()
}

/// Runs transactions of which each holds a key and wants the next one's. Those that get it commit.
/// The one that does not gives up its lock.
async fn ring_of(count: usize) {
    let cluster = Cluster::started(3).await;
    let mut transactions = Vec::new();
    for (place, key) in KEYS[..count].iter().enumerate() {
        let txn = begin(&cluster.client_of(place)).await;
        txn.get_for_update(*key).await.unwrap();
        transactions.push(txn);
    }
    let starts: Vec<u64> = transactions.iter().map(|txn| txn.start_ts().0).collect();
    let begun = Instant::now();
    let ends = transactions.into_iter().enumerate().map(|(place, txn)| async move {
        let wanted = KEYS[(place + 1) % count];
        match txn.get_for_update(wanted).await {
            Ok(_) => {
                txn.put(KEYS[place], "mine").await.unwrap();
                txn.put(wanted, "mine too").await.unwrap();
                txn.commit().await.unwrap();
                None
            }
            Err(error) => {
                let found = begun.elapsed();
                txn.rollback().await.unwrap();
                Some((error, found))
            }
        }
    });
    let ends = join_all(ends).await;
    let mut told = ends.into_iter().enumerate().filter_map(|(place, end)| Some((place, end?)));
    let (place, (error, found)) = told.next().expect("one is told");
    assert!(told.next().is_none(), "one is enough");
    // Shown to people who measure it.
    let _ = writeln!(std::io::stderr(), "a deadlock of {count} was told after {found:?}");
    assert!(found < FOUND_WITHIN, "it took {found:?} to find that out");
    let Error::Deadlock { cycle } = error else { panic!("{error}") };
    let waits = (0..count).map(|step| {
        let (waiter, holder) = ((place + step) % count, (place + step + 1) % count);
        LockWait {
            waiter_start_ts: starts[waiter],
            holder_start_ts: starts[holder],
            key: KEYS[holder].into(),
        }
    });
    assert_eq!(cycle, waits.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_transactions_that_wait_for_each_other_one_is_told_and_the_other_commits() {
    ring_of(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_transactions_in_a_ring_one_is_told_and_the_others_commit() {
    ring_of(3).await;
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
