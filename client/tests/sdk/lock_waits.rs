//! Waiting for locks in a node's queue, and what ends it.

use std::pin::pin;
use std::time::Duration;

use crate::fake::Cluster;
use futures::future::{Either, join, join_all, select};
use rangedb_client::net::Net;
use rangedb_client::{Client, Error, Transaction, TransactionOptions};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

async fn begin(client: &Client) -> Transaction {
    client.begin(TransactionOptions::default()).await.unwrap()
}

fn locks(cluster: &Cluster) -> usize {
    cluster.state.lock().store.locks.len()
}

#[test]
fn a_lock_that_is_let_go_is_handed_on_at_once() {
    for key in ["a", "z"] {
        let cluster = Cluster::with_seed(1);
        let client = cluster.client();
        cluster.run(async {
            let holder = begin(&client).await;
            holder.get_for_update("a").await.unwrap();
            cluster.take_log("");
            let let_go = async {
                cluster.sleep(300 * MILLI).await;
                holder.rollback().await.unwrap();
                cluster.clock.now()
            };
            let wait = async {
                let txn = begin(&client).await;
                txn.get_for_update("a").await.unwrap();
                txn.put(key, "1").await.unwrap();
                let locked = cluster.clock.now();
                txn.commit().await.unwrap();
                locked
            };
            let put = async {
                client.put("a", "2").await.unwrap();
                client.get("a").await.unwrap().unwrap()
            };
            let (let_go, locked) = join(let_go, wait).await;
            assert!(locked < let_go + 20 * MILLI, "{let_go:?} {locked:?}");
            assert!(cluster.take_log("lock").len() <= 2);
            put.await;
        });
    }
}

#[test]
fn a_write_of_one_range_waits_in_the_queue_too() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let holder = begin(&client).await;
        holder.get_for_update("a").await.unwrap();
        cluster.take_log("");
        let let_go = async {
            cluster.sleep(2 * SECOND).await;
            holder.rollback().await.unwrap();
            cluster.clock.now()
        };
        let put = async {
            client.put("a", "1").await.unwrap();
            cluster.clock.now()
        };
        let (let_go, put) = join(let_go, put).await;
        assert!(put < let_go + 20 * MILLI, "{let_go:?} {put:?}");
    });
    assert!(cluster.take_log("write").len() <= 4);
    assert_eq!(client.metrics().lock_waits, 1);
}

#[test]
fn a_write_whose_time_runs_out_in_the_queue_is_told_of_the_lock() {
    for (seed, queues) in (0..60).zip([true, false].into_iter().cycle()) {
        let cluster = Cluster::with_seed(seed);
        cluster.change(|state| state.queues = queues);
        let client = cluster.client();
        cluster.run(async {
            let holder = begin(&client).await;
            holder.get_for_update("a").await.unwrap();
            // A timeout that is not a multiple of any other duration.
            let hasty = client.with_timeout(SECOND + 37 * (seed as u32 % 20) * MILLI);
            let begun = cluster.clock.now();
            let (put, swapped) =
                join(hasty.put("a", "1"), hasty.compare_and_swap("a", None, "1")).await;
            for error in [put.unwrap_err(), swapped.unwrap_err()] {
                assert!(matches!(error, Error::Locked { .. }), "seed {seed}: {error}");
            }
            assert!(cluster.clock.now() - begun > 800 * MILLI);
            holder.rollback().await.unwrap();
        });
    }
}

#[test]
fn a_lock_that_is_waited_for_in_vain_is_told_of_who_has_it() {
    for seed in 0..40 {
        let cluster = Cluster::with_seed(seed);
        cluster.change(|state| state.queues = seed % 2 == 0);
        let client = cluster.client();
        cluster.run(async {
            let holder = begin(&client).await;
            holder.get_for_update("a").await.unwrap();
            let lock_wait = Some(SECOND + 37 * (seed as u32 % 20) * MILLI);
            let options = TransactionOptions { lock_wait, ..Default::default() };
            let txn = client.begin(options).await.unwrap();
            let error = txn.get_for_update("a").await.unwrap_err();
            assert!(matches!(error, Error::Locked { .. }), "seed {seed}: {error}");
            holder.rollback().await.unwrap();
        });
    }
}

#[test]
fn a_transaction_whose_only_lock_was_asked_for_in_vain_commits_nothing_and_leaves_nothing() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let holder = begin(&client).await;
        holder.get_for_update("a").await.unwrap();
        let options = TransactionOptions { lock_wait: Some(SECOND), ..Default::default() };
        let txn = client.begin(options).await.unwrap();
        let start_ts = txn.start_ts();
        assert!(matches!(txn.get_for_update("a").await, Err(Error::Locked { .. })));
        assert_eq!(txn.commit().await, Ok(start_ts));
        // Nor does the abandoned request lock the key once it is free.
        holder.rollback().await.unwrap();
        cluster.sleep(SECOND).await;
        assert_eq!(locks(&cluster), 0);
        client.put("a", "1").await.unwrap();
    });
}

#[test]
fn a_transaction_that_cannot_know_whether_its_first_lock_stands_is_over() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let options = TransactionOptions { lock_wait: Some(SECOND), ..Default::default() };
        let txn = client.begin(options).await.unwrap();
        cluster.lose("lock");
        let error = txn.get_for_update("a").await.unwrap_err();
        cluster.change(|state| state.kinds_lost.clear());
        // Under another primary, a client that found the first lock dead could take its rollback
        // for that of the whole transaction.
        assert_eq!(txn.get_for_update("b").await, Err(error.clone()));
        assert_eq!(txn.put("b", "1").await, Err(error.clone()));
        assert_eq!(txn.commit().await, Err(error));
        cluster.sleep(SECOND).await;
        assert_eq!(locks(&cluster), 0);
        client.put("a", "1").await.unwrap();
    });
}

#[test]
fn a_transaction_whose_first_lock_is_given_up_before_its_answer_is_over() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let txn = begin(&client).await;
        {
            let lock = pin!(txn.get_for_update("a"));
            let sent = async {
                while locks(&cluster) == 0 {
                    cluster.sleep(Duration::from_micros(100)).await;
                }
            };
            // The lock stands, and the client does not know it.
            assert!(matches!(select(lock, pin!(sent)).await, Either::Right(_)));
        }
        assert!(matches!(txn.put("b", "1").await, Err(Error::Unavailable(_))));
        assert!(matches!(txn.commit().await, Err(Error::Unavailable(_))));
        cluster.sleep(SECOND).await;
        assert_eq!(locks(&cluster), 0);
        client.put("a", "1").await.unwrap();
    });
}

#[test]
fn a_later_lock_that_is_given_up_or_refused_leaves_the_primary_where_it_is() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let options = TransactionOptions { lock_wait: Some(SECOND), ..Default::default() };
        let other = begin(&client).await;
        other.get_for_update("c").await.unwrap();
        let txn = client.begin(options).await.unwrap();
        txn.get_for_update("a").await.unwrap();
        drop(txn.get_for_update("b"));
        {
            let lock = pin!(txn.get_for_update("b"));
            assert!(matches!(select(lock, cluster.sleep(SECOND / 1000)).await, Either::Right(_)));
        }
        assert!(matches!(txn.get_for_update("c").await, Err(Error::Locked { .. })));
        txn.put("a", "1").await.unwrap();
        txn.put("d", "1").await.unwrap();
        txn.commit().await.unwrap();
        other.rollback().await.unwrap();
        cluster.sleep(SECOND).await;
        assert_eq!(locks(&cluster), 0);
    });
}

#[test]
fn where_nodes_have_no_queue_the_lock_is_asked_for_again() {
    let cluster = Cluster::with_seed(1);
    cluster.change(|state| state.queues = false);
    let client = cluster.client();
    cluster.run(async {
        let holder = begin(&client).await;
        holder.get_for_update("a").await.unwrap();
        cluster.take_log("");
        let let_go = async {
            cluster.sleep(2 * SECOND).await;
            holder.rollback().await.unwrap();
        };
        let (put, ()) = join(client.put("a", "1"), let_go).await;
        put.unwrap();
    });
    // The client pauses between its requests.
    assert!(cluster.take_log("write").len() <= 20);
}

#[test]
fn of_two_that_wait_for_each_other_one_is_told_and_the_other_commits() {
    for seed in 0..10 {
        let cluster = Cluster::with_seed(seed);
        let client = cluster.client();
        cluster.run(async {
            let (one, two) = (begin(&client).await, begin(&client).await);
            one.get_for_update("a").await.unwrap();
            two.get_for_update("z").await.unwrap();
            let before = cluster.clock.now();
            let finish = async |txn: Transaction, key: &'static str| {
                let locked = txn.get_for_update(key).await;
                let start_ts = txn.start_ts().0;
                if let Err(Error::Deadlock { cycle }) = &locked {
                    assert_eq!(cycle.len(), 2);
                    assert_eq!(cycle[0].waiter_start_ts, start_ts);
                    assert!(matches!(txn.get("b").await, Err(Error::Deadlock { .. })));
                }
                txn.put(key, "1").await.and(locked)?;
                txn.commit().await
            };
            let (first, second) = join(finish(one, "z"), finish(two, "a")).await;
            assert!(cluster.clock.now() < before + SECOND);
            assert_eq!(u8::from(first.is_ok()) + u8::from(second.is_ok()), 1, "seed {seed}");
            for error in [first, second].into_iter().filter_map(Result::err) {
                assert!(matches!(error, Error::Deadlock { .. }), "{error}");
            }
            client.finish().await;
            assert_eq!(locks(&cluster), 0);
        });
        assert_eq!(client.metrics().deadlocks, 1);
    }
}

#[test]
fn a_transaction_that_was_rolled_back_for_a_deadlock_cannot_commit() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let (one, two) = (begin(&client).await, begin(&client).await);
        one.get_for_update("a").await.unwrap();
        two.get_for_update("z").await.unwrap();
        let (first, second) = join(one.get_for_update("z"), two.get_for_update("a")).await;
        let (loser, winner) = if first.is_err() { (one, two) } else { (two, one) };
        assert!(first.is_err() != second.is_err());
        assert!(matches!(loser.commit().await, Err(Error::Deadlock { .. })));
        winner.rollback().await.unwrap();
        assert_eq!(locks(&cluster), 0);
    });
}

#[test]
fn closures_that_lock_in_any_order_all_get_through() {
    for seed in 0..5 {
        let cluster = Cluster::with_seed(seed);
        let client = cluster.client().with_timeout(60 * SECOND);
        let keys = ["a", "n", "z"];
        let run = |at: usize| {
            let add = move |txn: Transaction| async move {
                for step in 0..keys.len() {
                    let key = keys[(at + step) % keys.len()];
                    let before = txn.get_for_update(key).await?.map_or(0, |row| row.value.len());
                    txn.put(key, vec![b'+'; before + 1]).await?;
                }
                Ok(())
            };
            let client = client.clone();
            async move { client.transaction(add).await }
        };
        for outcome in cluster.run(join_all((0..9).map(run))) {
            outcome.unwrap();
        }
        for row in cluster.run(client.get_many(keys)).unwrap() {
            assert_eq!(row.unwrap().value.len(), 9, "seed {seed}");
        }
    }
}
