//! Transactions of one client that contend for a key: they take turns, and nothing depends on
//! turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::fake::Cluster;
use futures::future::{Either, join, join_all, select};
use rangedb_client::net::Net;
use rangedb_client::{Client, Error, PutOptions, Result, Test, Transaction, TransactionOptions};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

async fn begin(client: &Client) -> Transaction {
    client.begin(TransactionOptions::default()).await.unwrap()
}

async fn length(txn: &Transaction, key: &str) -> Result<usize> {
    Ok(txn.get(key.to_owned()).await?.map_or(0, |row| row.value.len()))
}

async fn add(txn: &Transaction, key: &str) -> Result<()> {
    let length = length(txn, key).await?;
    txn.put(key.to_owned(), vec![b'+'; length + 1]).await
}

/// Adds 1 to a key in a transaction of its own.
async fn count(client: &Client, key: &'static str) -> Result<()> {
    client.transaction(|txn| async move { add(&txn, key).await }).await
}

/// Makes two transactions conflict at the key, so that the next ones take turns.
async fn heat(client: &Client, key: &str) {
    let (one, two) = (begin(client).await, begin(client).await);
    add(&one, key).await.unwrap();
    add(&two, key).await.unwrap();
    one.commit().await.unwrap();
    assert!(matches!(two.commit().await, Err(Error::WriteConflict { .. })));
}

/// Runs a story at the key "k", where transactions already take turns.
fn at_a_hot_key(story: impl AsyncFnOnce(&Cluster, &Client)) {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        heat(&client, "k").await;
        story(&cluster, &client).await;
    });
}

#[test]
fn a_crowd_that_counts_in_transactions_meets_once_and_then_takes_turns() {
    const WORKERS: usize = 32;
    const TIMES: usize = 10;
    for seed in 0..5 {
        let cluster = Cluster::with_seed(seed);
        let client = cluster.client();
        cluster.run(async {
            let work = || async {
                for _ in 0..TIMES {
                    count(&client, "k").await.unwrap();
                }
            };
            join_all((0..WORKERS).map(|_| work())).await;
            let row = client.get("k").await.unwrap().unwrap();
            assert_eq!((row.value.len(), row.version), (WORKERS * TIMES, row.value.len() as u64));
        });
        // Each worker's first attempt begins before the key is hot, and few other attempts are
        // lost.
        let conflicts = client.metrics().conflicts;
        assert!(conflicts < 2 * WORKERS as u64, "seed {seed}: {conflicts}");
    }
}

/// Checks that every member of a crowd got through often, and none more often than another.
fn are_equal(times: &[u32]) {
    let (fewest, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(*fewest > 10 && most - fewest <= 2, "{times:?}");
}

#[test]
fn in_a_crowd_everybody_gets_through_equally_often() {
    for seed in 0..5 {
        let cluster = Cluster::with_seed(seed);
        let client = cluster.client();
        cluster.run(async {
            let end = cluster.now() + 5 * SECOND;
            let work = || async {
                let mut times = 0;
                while cluster.now() < end {
                    count(&client, "k").await.unwrap();
                    times += 1;
                }
                times
            };
            are_equal(&join_all((0..16).map(|_| work())).await);
        });
    }
}

#[test]
fn conditional_writes_of_a_crowd_get_through_equally_often() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(async {
        let end = cluster.now() + 5 * SECOND;
        let work = || async {
            let (mut version, mut times) = (0, 0);
            while cluster.now() < end {
                let conditions = vec![Test::Version(version)];
                let options = PutOptions { conditions, ..PutOptions::default() };
                match client.put_with("k", "value", options).await {
                    Ok(_) => (version, times) = (version + 1, times + 1),
                    Err(Error::Conflict { actual, .. }) => version = actual.unwrap().version,
                    Err(error) => panic!("{error}"),
                }
            }
            times
        };
        are_equal(&join_all((0..16).map(|_| work())).await);
    });
}

#[test]
fn who_waited_sees_what_was_committed_meanwhile() {
    at_a_hot_key(async |_, client| {
        let (first, second) = (begin(client).await, begin(client).await);
        add(&first, "k").await.unwrap();
        let (_, read) = join(first.commit(), add(&second, "k")).await;
        read.unwrap();
        assert_eq!(length(&second, "k").await.unwrap(), 3);
        second.commit().await.unwrap();
    });
}

#[test]
fn a_snapshot_that_was_looked_at_stays_where_it_is() {
    at_a_hot_key(async |_, client| {
        let holder = begin(client).await;
        add(&holder, "k").await.unwrap();
        let (shown, reading) = (begin(client).await, begin(client).await);
        let start_ts = shown.start_ts();
        reading.get("other").await.unwrap();
        holder.commit().await.unwrap();
        for txn in [&shown, &reading] {
            assert_eq!(length(txn, "k").await.unwrap(), 1);
        }
        assert_eq!(shown.start_ts(), start_ts);
    });
}

#[test]
fn a_transaction_that_reads_the_key_late_has_its_turn_when_it_begins_anew() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let work = || async {
            let late = |txn: Transaction| async move {
                txn.get("other").await?;
                add(&txn, "k").await
            };
            client.transaction(late).await.unwrap();
        };
        join_all((0..16).map(|_| work())).await;
        assert_eq!(client.get("k").await.unwrap().unwrap().value.len(), 16);
    });
    assert!(client.metrics().restarts <= 16, "{}", client.metrics().restarts);
}

#[test]
fn a_closure_that_takes_long_loses_its_turn() {
    at_a_hot_key(async |cluster, client| {
        let attempts = Arc::new(AtomicUsize::new(0));
        let slow = client.transaction(|txn| {
            let (cluster, attempts) = (cluster.clone(), attempts.clone());
            async move {
                add(&txn, "k").await?;
                if attempts.fetch_add(1, Ordering::Relaxed) == 0 {
                    cluster.sleep(5 * SECOND).await;
                }
                Ok(())
            }
        });
        let others = async {
            cluster.sleep(20 * MILLI).await;
            let begun = cluster.now();
            for end in join_all((0..8).map(|_| count(client, "k"))).await {
                end.unwrap();
            }
            assert!(cluster.now() - begun < SECOND, "{:?}", cluster.now() - begun);
        };
        let (slow, ()) = join(slow, others).await;
        slow.unwrap();
        assert_eq!(client.get("k").await.unwrap().unwrap().value.len(), 10);
        assert_eq!(attempts.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn a_turn_ends_with_its_transaction_however_that_ends() {
    enum End {
        Drop,
        RollBack,
        Commit,
        Suspend,
    }
    for end in [End::Drop, End::RollBack, End::Commit, End::Suspend] {
        let cluster = Cluster::with_seed(1);
        let client = cluster.client();
        cluster.run(async {
            client.cluster_id().await.unwrap();
            heat(&client, "k").await;
            let holder = begin(&client).await;
            holder.get("k").await.unwrap();
            let ended = async {
                cluster.sleep(50 * MILLI).await;
                let ended = cluster.now();
                match end {
                    End::Drop => drop(holder),
                    End::RollBack => holder.rollback().await.unwrap(),
                    End::Commit => drop(holder.commit().await.unwrap()),
                    End::Suspend => drop(holder.suspend().await.unwrap()),
                }
                ended
            };
            let next = async {
                let next = begin(&client).await;
                next.get("k").await.unwrap();
                cluster.now()
            };
            let (ended, read) = join(ended, next).await;
            assert!(read > ended && read < ended + 30 * MILLI, "{ended:?} {read:?}");
        });
    }
}

#[test]
fn a_closure_that_fails_or_is_given_up_leaves_its_turn_to_the_next() {
    at_a_hot_key(async |cluster, client| {
        let begun = cluster.now();
        let failing = client.transaction(|txn| async move {
            add(&txn, "k").await?;
            Err::<(), _>(Error::NotFound("of the closure's own".to_owned()))
        });
        // One closure is given up while it has the turn, and one while it waits for it.
        let given_up = || async {
            let work = client.transaction(|txn| async move {
                txn.get("k").await?;
                std::future::pending::<Result<()>>().await
            });
            let ended = select(Box::pin(work), cluster.sleep(50 * MILLI)).await;
            assert!(matches!(ended, Either::Right(_)), "it does not end");
        };
        let ((failed, ()), ((), end)) =
            join(join(failing, given_up()), join(given_up(), count(client, "k"))).await;
        assert!(matches!(failed, Err(Error::NotFound(_))));
        end.unwrap();
        assert!(cluster.now() - begun < 200 * MILLI, "{:?}", cluster.now() - begun);
    });
}

#[test]
fn who_waits_too_long_goes_on_in_the_dark() {
    at_a_hot_key(async |cluster, client| {
        let locker = begin(client).await;
        locker.get_for_update("k").await.unwrap();
        // The write has the turn, and waits for the lock.
        let options = PutOptions { conditions: vec![Test::Version(1)], ..PutOptions::default() };
        let write = client.put_with("k", "1", options);
        let hasty = async {
            cluster.sleep(20 * MILLI).await;
            let begun = cluster.now();
            let options = TransactionOptions { timeout: Some(SECOND), ..Default::default() };
            let txn = client.begin(options).await.unwrap();
            assert_eq!(length(&txn, "k").await.unwrap(), 1);
            txn.put("other", "1").await.unwrap();
            txn.commit().await.unwrap();
            let took = cluster.now() - begun;
            assert!(took > 500 * MILLI && took < 550 * MILLI, "{took:?}");
            locker.rollback().await.unwrap();
        };
        let (written, ()) = join(write, hasty).await;
        written.unwrap();
    });
}

#[test]
fn who_only_reads_waits_for_nobody() {
    at_a_hot_key(async |cluster, client| {
        let holder = begin(client).await;
        add(&holder, "k").await.unwrap();
        let begun = cluster.now();
        let options = TransactionOptions { read_only: true, ..TransactionOptions::default() };
        let reader = client.begin(options).await.unwrap();
        assert_eq!(length(&reader, "k").await.unwrap(), 1);
        client.get("k").await.unwrap();
        assert!(cluster.now() - begun < 50 * MILLI);
        holder.commit().await.unwrap();
    });
}

#[test]
fn transactions_that_take_keys_in_opposite_order_all_get_through() {
    const WORKERS: usize = 12;
    for seed in 0..10 {
        let cluster = Cluster::with_seed(seed);
        let client = cluster.client();
        cluster.run(async {
            for key in ["a", "z"] {
                heat(&client, key).await;
            }
            let work = |worker: usize| {
                let client = client.clone();
                async move {
                    let keys = if worker.is_multiple_of(2) { ["a", "z"] } else { ["z", "a"] };
                    let both = |txn: Transaction| async move {
                        add(&txn, keys[0]).await?;
                        add(&txn, keys[1]).await
                    };
                    for _ in 0..5 {
                        client.transaction(both).await.unwrap();
                    }
                }
            };
            let begun = cluster.now();
            join_all((0..WORKERS).map(work)).await;
            for key in ["a", "z"] {
                let row = client.get(key).await.unwrap().unwrap();
                assert_eq!(row.value.len(), 1 + 5 * WORKERS, "seed {seed}");
            }
            let took = cluster.now() - begun;
            assert!(took < 20 * SECOND, "seed {seed}: {took:?}");
        });
    }
}

#[test]
fn two_clients_that_count_in_transactions_lose_nothing() {
    for seed in 0..10 {
        let cluster = Cluster::with_seed(seed);
        let clients = [cluster.client(), cluster.client()];
        cluster.run(async {
            let work = async |worker: usize| {
                for _ in 0..5 {
                    count(&clients[worker % 2], "k").await.unwrap();
                }
            };
            join_all((0..16).map(work)).await;
            assert_eq!(clients[0].get("k").await.unwrap().unwrap().value.len(), 80);
        });
    }
}
