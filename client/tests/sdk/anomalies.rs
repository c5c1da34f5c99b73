//! Isolation anomalies between concurrent transactions, with their keys in one range and in two.

use crate::fake::Cluster;
use futures::StreamExt;
use rangedb_client::{Client, Error, Isolation, RangeOptions, Transaction, TransactionOptions};

const ISOLATIONS: [Isolation; 2] = [Isolation::Serializable, Isolation::Snapshot];

/// Keys in one range, and in two.
const PAIRS: [(&str, &str); 2] = [("a", "b"), ("a", "z")];

async fn begin(client: &Client, isolation: Isolation) -> Transaction {
    client.begin(TransactionOptions { isolation, ..Default::default() }).await.unwrap()
}

/// Runs a story for every isolation and both pairs of keys, each key with the value 10.
fn each(story: impl AsyncFn(Client, Isolation, (&'static str, &'static str))) {
    for isolation in ISOLATIONS {
        for pair in PAIRS {
            let cluster = Cluster::with_seed(1);
            let client = cluster.client();
            cluster.run(async {
                client.put(pair.0, "10").await.unwrap();
                client.put(pair.1, "10").await.unwrap();
                story(client, isolation, pair).await;
            });
        }
    }
}

async fn get(txn: &Transaction, key: &'static str) -> String {
    let row = txn.get(key).await.unwrap().unwrap();
    String::from_utf8(row.value.to_vec()).unwrap()
}

#[track_caller]
fn assert_conflict<T: std::fmt::Debug>(outcome: Result<T, Error>) {
    match outcome {
        Err(error) if error.is_transaction_conflict() => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_update_is_never_lost() {
    each(async |client, isolation, (x, y)| {
        let (one, two) = (begin(&client, isolation).await, begin(&client, isolation).await);
        for txn in [&one, &two] {
            assert_eq!(get(txn, x).await, "10");
        }
        one.put(x, "11").await.unwrap();
        two.put(x, "12").await.unwrap();
        // This write makes the transaction need both ranges, where there are two.
        two.put(y, "12").await.unwrap();
        one.commit().await.unwrap();
        assert_conflict(two.commit().await);
        assert_eq!(&client.get(y).await.unwrap().unwrap().value[..], b"10");
    });
}

#[test]
fn an_update_is_not_lost_to_a_lock_that_came_after_the_read() {
    each(async |client, isolation, (x, y)| {
        let options = TransactionOptions { isolation, pessimistic: true, ..Default::default() };
        let txn = client.begin(options).await.unwrap();
        assert_eq!(get(&txn, x).await, "10");
        client.put(x, "11").await.unwrap();
        match isolation {
            // The commit validates the read.
            Isolation::Serializable => {
                txn.put(x, "12").await.unwrap();
                txn.put(y, "12").await.unwrap();
                assert_conflict(txn.commit().await);
            }
            Isolation::Snapshot => assert_conflict(txn.put(x, "12").await),
        }
        assert_eq!(&client.get(x).await.unwrap().unwrap().value[..], b"11");
    });
}

#[test]
fn write_skew_is_prevented_under_serializable_and_possible_under_snapshot() {
    each(async |client, isolation, (x, y)| {
        let (one, two) = (begin(&client, isolation).await, begin(&client, isolation).await);
        for txn in [&one, &two] {
            get(txn, x).await;
            get(txn, y).await;
        }
        one.put(x, "11").await.unwrap();
        two.put(y, "21").await.unwrap();
        one.commit().await.unwrap();
        let second = two.commit().await;
        match isolation {
            Isolation::Serializable => assert_conflict(second),
            Isolation::Snapshot => drop(second.unwrap()),
        }
    });
}

#[test]
fn a_row_that_appears_in_a_span_that_was_read_is_noticed() {
    each(async |client, isolation, (x, y)| {
        let txn = begin(&client, isolation).await;
        let rows: Vec<_> = txn.range(RangeOptions::new("a", "")).collect().await;
        assert_eq!(rows.len(), 2);
        client.put("c", "appears").await.unwrap();
        client.put("zz", "appears").await.unwrap();
        txn.put(x, "11").await.unwrap();
        txn.put(y, "11").await.unwrap();
        let outcome = txn.commit().await;
        match isolation {
            Isolation::Serializable => assert_conflict(outcome),
            Isolation::Snapshot => drop(outcome.unwrap()),
        }
    });
}

#[test]
fn a_key_that_was_absent_when_it_was_read_is_noticed() {
    each(async |client, isolation, (x, y)| {
        let txn = begin(&client, isolation).await;
        assert!(!txn.exists("absent").await.unwrap());
        client.put("absent", "appears").await.unwrap();
        txn.put(x, "11").await.unwrap();
        txn.put(y, "11").await.unwrap();
        let outcome = txn.commit().await;
        assert_eq!(outcome.is_err(), isolation == Isolation::Serializable, "{outcome:?}");
    });
}

#[test]
fn rows_behind_the_limit_of_a_scan_are_nobodys_business() {
    each(async |client, isolation, (x, y)| {
        let txn = begin(&client, isolation).await;
        let limited = RangeOptions::new("a", "").limit(1);
        assert_eq!(txn.range(limited).count().await, 1);
        client.put("c", "behind it").await.unwrap();
        txn.put(x, "11").await.unwrap();
        txn.put(y, "11").await.unwrap();
        txn.commit().await.unwrap();
    });
}

#[test]
fn reads_of_two_keys_see_one_moment() {
    each(async |client, isolation, (x, y)| {
        let txn = begin(&client, isolation).await;
        assert_eq!(get(&txn, x).await, "10");
        let other = begin(&client, isolation).await;
        other.put(x, "12").await.unwrap();
        other.put(y, "18").await.unwrap();
        other.commit().await.unwrap();
        assert_eq!(get(&txn, y).await, "10");
        // The transaction wrote nothing, so it may stand before the other one.
        txn.commit().await.unwrap();
    });
}

#[test]
fn aborted_and_intermediate_writes_are_never_read() {
    each(async |client, isolation, (x, y)| {
        let writer = begin(&client, isolation).await;
        writer.put(x, "101").await.unwrap();
        let reader = begin(&client, isolation).await;
        assert_eq!(get(&reader, x).await, "10");
        writer.put(x, "11").await.unwrap();
        writer.put(y, "11").await.unwrap();
        writer.rollback().await.unwrap();
        assert_eq!(get(&reader, x).await, "10");
        assert_eq!(get(&begin(&client, isolation).await, y).await, "10");
    });
}

#[test]
fn transactions_that_each_read_what_the_other_writes_do_not_wait_for_ever() {
    for seed in 0..30 {
        let cluster = Cluster::with_seed(seed);
        let client = cluster.client();
        cluster.run(async {
            let (one, two) =
                (begin(&client, ISOLATIONS[0]).await, begin(&client, ISOLATIONS[0]).await);
            for (txn, read, written) in [(&one, "a", "z"), (&two, "z", "a")] {
                txn.get(read).await.unwrap();
                txn.put(written, "1").await.unwrap();
                // This read keeps both transactions from fitting one range.
                txn.get("A").await.unwrap();
            }
            let (first, second) = futures::future::join(one.commit(), two.commit()).await;
            assert!(first.is_err() || second.is_err(), "seed {seed}: both committed");
            for error in [first, second].into_iter().filter_map(Result::err) {
                assert!(error.is_transaction_conflict(), "seed {seed}: {error}");
            }
        });
    }
}
