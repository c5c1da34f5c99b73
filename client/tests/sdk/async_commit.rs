//! Asynchronous commits: commits over ranges that are decided by their first phase.

use std::pin::pin;
use std::time::Duration;

use crate::fake::{Cluster, Mortal};
use futures::future::{Either, join, select};
use rangedb_client::net::Net;
use rangedb_client::{Client, Error, Isolation, RangeOptions, Timestamp, TransactionOptions};

const KEYS: [&str; 4] = ["a", "k", "n", "z"];
const SECOND: Duration = Duration::from_secs(1);
const LOCK_TTL: Duration = Duration::from_secs(10);

/// Writes all keys and reads nothing, so nothing has to be validated.
async fn write(client: &Client) -> Result<Timestamp, Error> {
    let txn = client.begin(TransactionOptions::default()).await?;
    for key in KEYS {
        txn.put(key, "new").await?;
    }
    txn.commit().await
}

async fn fill(client: &Client) {
    for key in KEYS {
        client.put(key, "old").await.unwrap();
    }
}

/// Returns the value of all keys at one timestamp; panics if the values differ.
async fn agreed(client: &Client) -> String {
    let options = TransactionOptions { read_only: true, ..Default::default() };
    let txn = client.begin(options).await.unwrap();
    let rows = txn.get_many(KEYS).await.unwrap().into_iter();
    let values: Vec<_> = rows.map(|row| row.unwrap().value).collect();
    assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
    String::from_utf8(values[0].to_vec()).unwrap()
}

fn kinds(cluster: &Cluster) -> Vec<&'static str> {
    let log = std::mem::take(&mut cluster.state.lock().log);
    log.into_iter().map(|(_, kind)| kind).collect()
}

#[test]
fn it_is_answered_after_one_round_and_seen_by_all_who_begin_later() {
    for isolation in [Isolation::Serializable, Isolation::Snapshot] {
        let cluster = Cluster::with_seed(1);
        let client = cluster.client();
        cluster.run(async {
            fill(&client).await;
            let options = TransactionOptions { isolation, ..Default::default() };
            let txn = client.begin(options).await.unwrap();
            if isolation == Isolation::Snapshot {
                txn.get("b").await.unwrap();
            }
            for key in KEYS {
                txn.put(key, "new").await.unwrap();
            }
            kinds(&cluster);
            let commit_ts = txn.commit().await.unwrap();
            assert_eq!(kinds(&cluster), ["timestamps", "prewrite", "prewrite"]);
            assert_eq!(agreed(&client).await, "new");
            assert_eq!(client.get("z").await.unwrap().unwrap().mod_ts, commit_ts);
            client.finish().await;
            assert!(cluster.state.lock().store.locks.is_empty());
        });
        assert_eq!(client.metrics().commits_async, 1);
    }
}

#[test]
fn ranges_that_take_no_part_in_it_are_asked_for_two_phases() {
    let cluster = Cluster::with_seed(1);
    cluster.change(|state| state.async_commits = false);
    let client = cluster.client();
    cluster.run(async {
        fill(&client).await;
        write(&client).await.unwrap();
        assert_eq!(agreed(&client).await, "new");
    });
    assert_eq!((client.metrics().commits_async, client.metrics().commits_two_phase), (0, 1));
}

#[test]
fn what_was_read_or_is_large_goes_through_two_phases() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let txn = client.begin(TransactionOptions::default()).await.unwrap();
        txn.get("n").await.unwrap();
        txn.put("a", "1").await.unwrap();
        txn.put("z", "1").await.unwrap();
        txn.commit().await.unwrap();
        let txn = client.begin(TransactionOptions::default()).await.unwrap();
        for at in 0..200 {
            txn.put(format!("b{at}"), "1").await.unwrap();
            txn.put(format!("y{at}"), "1").await.unwrap();
        }
        txn.commit().await.unwrap();
    });
    assert_eq!((client.metrics().commits_async, client.metrics().commits_two_phase), (0, 2));
}

/// Checks all keys after a client may have died at a call. True if the client lived.
async fn die_at(cluster: &Cluster, client: &Client, call: usize, last_arrives: bool) -> bool {
    fill(client).await;
    let mortal = Mortal::new(cluster, call, last_arrives);
    let dying = mortal.client();
    let outcome = match select(pin!(write(&dying)), pin!(mortal.death())).await {
        Either::Left((outcome, _)) => Some(outcome.unwrap()),
        Either::Right(_) => None,
    };
    let before = cluster.clock.now();
    // Two readers at once: one of them may have to decide the transaction while the other one
    // reads.
    let other = cluster.client().with_timeout(2 * LOCK_TTL);
    let (seen, also) = join(agreed(client), agreed(&other)).await;
    assert_eq!(seen, also);
    assert!(outcome.is_none() || seen == "new", "answered and not there");
    assert!(cluster.clock.now() - before < LOCK_TTL + 2 * SECOND);
    let newest = client.get("n").await.unwrap().unwrap();
    assert_eq!(newest.value, seen);
    for key in KEYS {
        client.put(key, seen.clone()).await.unwrap();
    }
    assert_eq!(agreed(client).await, seen);
    outcome.is_some()
}

#[test]
fn it_is_whole_wherever_its_client_dies() {
    for seed in 0..6 {
        for last_arrives in [false, true] {
            let lived = (1..40).find(|call| {
                let cluster = Cluster::with_seed(seed);
                let client = cluster.client().with_timeout(2 * LOCK_TTL);
                cluster.run(die_at(&cluster, &client, *call, last_arrives))
            });
            assert!(lived.is_some_and(|call| call > 4), "it takes some calls to commit");
        }
    }
}

#[test]
fn a_reader_of_the_newest_does_not_go_before_what_may_be_committed() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client().with_timeout(2 * LOCK_TTL);
    let mut waited = Vec::new();
    for call in 1..20 {
        cluster.change(|state| state.store = Default::default());
        cluster.run(async {
            fill(&client).await;
            let mortal = Mortal::new(&cluster, call, true);
            let dying = mortal.client();
            select(pin!(write(&dying)), pin!(mortal.death())).await;
            let complete = {
                let state = cluster.state.lock();
                state.store.locks.values().filter(|lock| lock.is_async).count() == KEYS.len()
            };
            let before = cluster.clock.now();
            let value = client.get("z").await.unwrap().unwrap().value;
            if complete {
                assert_eq!(&value[..], b"new");
                waited.push(cluster.clock.now() - before);
            }
            cluster.sleep(2 * LOCK_TTL).await;
            agreed(&client).await;
        });
    }
    assert!(waited.iter().any(|waited| *waited > LOCK_TTL / 2), "{waited:?}");
}

#[test]
fn lost_answers_never_make_an_outcome_wrong() {
    let mut outcomes = std::collections::BTreeSet::new();
    for (seed, kinds_lost) in
        (0..20).flat_map(|seed| [vec!["prewrite"], vec!["prewrite", "rollback"]].map(|k| (seed, k)))
    {
        for lost_for in [5u32, 500, 5200, 20_000] {
            let cluster = Cluster::with_seed(seed);
            let client = cluster.client();
            cluster.run(async {
                fill(&client).await;
                for kind in &kinds_lost {
                    cluster.lose(kind);
                }
                cluster.change(|state| state.connections_break = seed % 2 == 0);
                let recover = async {
                    cluster.sleep(Duration::from_millis(lost_for.into())).await;
                    cluster.change(|state| state.kinds_lost.clear());
                };
                let reader = cluster.client().with_timeout(4 * LOCK_TTL);
                let (outcome, ()) = join(write(&client), recover).await;
                let seen = agreed(&reader).await;
                match &outcome {
                    Ok(_) => assert_eq!(seen, "new"),
                    Err(Error::Undetermined(_)) => {}
                    Err(_) => assert_eq!(seen, "old", "{outcome:?}"),
                }
                outcomes.insert(match outcome {
                    Ok(_) => "committed",
                    Err(Error::Undetermined(_)) => "undetermined",
                    Err(_) => "failed",
                });
                cluster.sleep(2 * LOCK_TTL).await;
                assert_eq!(agreed(&reader).await, seen);
            });
        }
    }
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), ["committed", "failed", "undetermined"]);
}

#[test]
fn one_that_meets_a_newer_version_leaves_nothing() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        fill(&client).await;
        let txn = client.begin(TransactionOptions::default()).await.unwrap();
        for key in KEYS {
            txn.put(key, "new").await.unwrap();
        }
        client.put("z", "old").await.unwrap();
        let error = txn.commit().await.unwrap_err();
        assert!(matches!(error, Error::WriteConflict { .. }), "{error}");
        assert!(cluster.state.lock().store.locks.is_empty());
        assert_eq!(agreed(&client).await, "old");
    });
    assert_eq!(client.metrics().conflicts, 1);
}

#[test]
fn writers_and_readers_among_each_other_see_all_or_nothing() {
    for seed in 0..20 {
        let cluster = Cluster::with_seed(seed);
        let client = cluster.client();
        cluster.run(async {
            fill(&client).await;
            let writers = async {
                for _ in 0..10 {
                    let _ = write(&client).await;
                }
            };
            let readers = async {
                for _ in 0..30 {
                    agreed(&client).await;
                    let rows = client.range(RangeOptions::new("z", "")).next().await;
                    rows.unwrap().unwrap();
                }
            };
            join(writers, readers).await;
        });
    }
}
