//! Crashes: a transaction whose client dies at any step is there as a whole or not at all, for
//! every reader. Nobody waits for it longer than a lock lives.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::fake::{Cluster, Mortal};
use futures::future::{Either, select};
use rangedb_client::net::Net;
use rangedb_client::{Client, Error, Timestamp, TransactionOptions};
use std::pin::pin;

const KEYS: [&str; 4] = ["a", "k", "n", "z"];
const LOCK_TTL: Duration = Duration::from_secs(10);

/// More calls than the transaction below makes.
const CALLS: usize = 60;

async fn transfer(client: Client) -> Result<Timestamp, Error> {
    let txn = client.begin(TransactionOptions::default()).await?;
    for key in KEYS {
        txn.get(key).await?;
    }
    txn.get("A").await?;
    for key in KEYS {
        txn.put(key, "new").await?;
    }
    txn.commit().await
}

/// Returns the value of all keys; panics if the values differ.
async fn agreed(client: &Client) -> String {
    let options = TransactionOptions { read_only: true, ..Default::default() };
    let txn = client.begin(options).await.unwrap();
    let rows = txn.get_many(KEYS).await.unwrap();
    let values: Vec<String> = rows
        .into_iter()
        .map(|row| String::from_utf8(row.unwrap().value.to_vec()).unwrap())
        .collect();
    assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
    values[0].clone()
}

/// Checks all keys after a client may have died at a call. True if the client lived.
fn die_at(seed: u64, call: usize, last_arrives: bool) -> bool {
    let cluster = Cluster::with_seed(seed);
    let reader = cluster.client().with_timeout(LOCK_TTL * 2);
    cluster.run(async {
        for key in KEYS {
            reader.put(key, "old").await.unwrap();
        }
        let mortal = Mortal::new(&cluster, call, last_arrives);
        let outcome = match select(pin!(transfer(mortal.client())), pin!(mortal.death())).await {
            Either::Left((outcome, _)) => Some(outcome.unwrap()),
            Either::Right(_) => None,
        };
        let before = cluster.clock.now();
        let seen = agreed(&reader).await;
        assert!(outcome.is_none() || seen == "new", "answered and not there");
        let waited = cluster.clock.now() - before;
        assert!(waited < Duration::from_secs(1), "a reader waited {waited:?}");
        // A writer succeeds once the locks have expired, and the value that was read stays.
        reader.put("A", "other").await.unwrap();
        for key in KEYS {
            let row = reader.get(key).await.unwrap().unwrap();
            let options = rangedb_client::PutOptions {
                conditions: vec![rangedb_client::Test::ModTs(row.mod_ts)],
                ..Default::default()
            };
            reader.put_with(key, row.value, options).await.unwrap();
        }
        assert!(cluster.clock.now() - before < LOCK_TTL + Duration::from_secs(2));
        assert_eq!(agreed(&reader).await, seen);
        outcome.is_some()
    })
}

#[test]
fn a_transaction_is_whole_wherever_its_client_dies() {
    for seed in 0..6 {
        for last_arrives in [false, true] {
            let lived = (1..CALLS).find(|call| die_at(seed, *call, last_arrives));
            assert!(lived.is_some_and(|call| call > 10), "it takes some calls to commit");
        }
    }
}

#[test]
fn a_commit_that_is_dropped_at_any_moment_is_whole_and_cleaned_up() {
    let mut outcomes = BTreeSet::new();
    for step in 0..300 {
        let cluster = Cluster::with_seed(step);
        let client = cluster.client();
        cluster.run(async {
            for key in KEYS {
                client.put(key, "old").await.unwrap();
            }
            let given_up = cluster.sleep(Duration::from_micros(300 * step));
            drop(select(pin!(transfer(client.clone())), given_up).await);
            cluster.sleep(Duration::from_secs(1)).await;
            let seen = agreed(&client).await;
            cluster.sleep(Duration::from_secs(1)).await;
            for key in KEYS {
                client.put(key, seen.clone()).await.unwrap();
            }
            outcomes.insert(seen);
            assert!(cluster.clock.now() < LOCK_TTL, "its locks went before they expired");
        });
        assert!(cluster.state.lock().store.locks.is_empty(), "step {step}");
    }
    assert_eq!(outcomes.len(), 2, "given up before and after the decision");
}

#[test]
fn answers_that_are_lost_never_make_an_outcome_wrong() {
    let kinds = ["prewrite", "validate", "commit", "rollback", "write", "timestamps"];
    for (seed, kind) in (0..10).flat_map(|seed| kinds.map(|kind| (seed, kind))) {
        let cluster = Cluster::with_seed(seed);
        let client = cluster.client();
        cluster.run(async {
            for key in KEYS {
                client.put(key, "old").await.unwrap();
            }
            cluster.lose(kind);
            let outcome = transfer(client.clone()).await;
            cluster.change(|state| state.kinds_lost.clear());
            let seen = agreed(&client).await;
            match &outcome {
                Ok(_) => assert_eq!(seen, "new", "{kind}"),
                Err(Error::Undetermined(_)) => assert_eq!(kind, "commit", "{outcome:?}"),
                Err(_) => assert_eq!(seen, "old", "{kind}: {outcome:?}"),
            }
            cluster.sleep(LOCK_TTL + LOCK_TTL).await;
            assert_eq!(agreed(&client).await, seen, "{kind}");
        });
    }
}
