//! Many writers of one key through one client.

use std::time::Duration;

use crate::fake::{Cluster, Mode};
use futures::future::{join, join_all};
use rangedb_client::net::Net;
use rangedb_client::{Client, Error, KeyValue, PutOptions, Test};

fn when(test: Test) -> PutOptions {
    PutOptions { conditions: vec![test], ..PutOptions::default() }
}

fn writes(cluster: &Cluster) -> usize {
    let log = std::mem::take(&mut cluster.state.lock().log);
    log.iter().filter(|(_, kind)| *kind == "write").count()
}

/// Adds 1 to the counter `times` times, beginning with its current row. Returns the number of
/// attempts.
async fn count(client: &Client, times: usize) -> usize {
    let mut row: Option<KeyValue> = client.get("counter").await.unwrap();
    let (mut added, mut attempts) = (0, 0);
    while added < times {
        attempts += 1;
        let version = row.as_ref().map_or(0, |row| row.version);
        let value = row.as_ref().map_or(0, |row| row.value.len());
        let put = client.put_with("counter", vec![b'.'; value + 1], when(Test::Version(version)));
        match put.await {
            Ok(written) => {
                assert!(written.previous.is_none(), "it was not asked for");
                added += 1;
                row = client.get("counter").await.unwrap();
            }
            Err(Error::Conflict { actual, .. }) => {
                let actual = actual.map(|row| *row);
                assert_ne!(actual.as_ref().map_or(0, |row| row.version), version);
                row = actual;
            }
            Err(error) => panic!("{error}"),
        }
    }
    attempts
}

#[test]
fn of_many_who_create_a_key_one_is_sent_and_the_others_are_told_what_it_created() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(async {
        client.get("k").await.unwrap();
        let put = |value: usize| client.put_with("k", value.to_string(), when(Test::Absent));
        let ends = join_all((0..16).map(put)).await;
        let row = client.get("k").await.unwrap().unwrap();
        for (place, end) in ends.into_iter().enumerate() {
            match end {
                Ok(written) => assert_eq!((place, written.commit_ts), (0, row.mod_ts)),
                Err(Error::Conflict { key, condition_index: 0, actual }) => {
                    assert_eq!((&key[..], *actual.unwrap()), (&b"k"[..], row.clone()));
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
    assert_eq!(writes(&cluster), 1);
}

#[test]
fn a_crowd_that_counts_sends_about_as_many_writes_as_it_counts() {
    const WRITERS: usize = 16;
    const TIMES: usize = 10;
    for seed in 0..10 {
        let cluster = Cluster::with_seed(seed);
        let client = cluster.client();
        cluster.run(async {
            let attempts = join_all((0..WRITERS).map(|_| count(&client, TIMES))).await;
            let attempts: usize = attempts.into_iter().sum();
            let row = client.get("counter").await.unwrap().unwrap();
            assert_eq!((row.value.len(), row.version), (WRITERS * TIMES, row.value.len() as u64));
            let sent = writes(&cluster);
            assert!(sent <= 2 * WRITERS * TIMES, "{sent} of {attempts} attempts were sent");
        });
    }
}

#[test]
fn two_clients_that_count_together_lose_nothing() {
    for seed in 0..10 {
        let cluster = Cluster::with_seed(seed);
        let clients = [cluster.client(), cluster.client()];
        cluster.run(async {
            join_all((0..8).map(|writer| count(&clients[writer % 2], 10))).await;
            assert_eq!(clients[0].get("counter").await.unwrap().unwrap().value.len(), 80);
        });
    }
}

#[test]
fn whoever_gives_up_keeps_nobody_waiting() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(async {
        client.get("k").await.unwrap();
        let given_up = client.put_with("k", "1", when(Test::Absent));
        let given_up = futures::future::select(Box::pin(given_up), cluster.sleep(LESS_THAN_A_TRIP));
        let (given_up, other) =
            join(async { drop(given_up.await) }, client.put_with("k", "2", when(Test::Absent)))
                .await;
        let () = given_up;
        // The first write may have happened: it was in flight.
        assert!(matches!(other, Ok(_) | Err(Error::Conflict { .. })), "{other:?}");
    });
}

const LESS_THAN_A_TRIP: Duration = Duration::from_micros(10);

#[test]
fn who_waits_for_others_waits_no_longer_than_its_own_time() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(async {
        client.get("k").await.unwrap();
        for node in 1..=3 {
            cluster.state.lock().modes.insert(node, Mode::Hanging);
        }
        let slow = client.with_timeout(Duration::from_secs(30));
        let hasty = client.with_timeout(Duration::from_secs(1));
        let slow = slow.put_with("k", "1", when(Test::Absent));
        let begun = cluster.now();
        let hasty = async {
            let end = hasty.put_with("k", "2", when(Test::Absent)).await;
            (end, cluster.now() - begun)
        };
        let (_, (end, took)) = join(slow, hasty).await;
        assert!(matches!(end, Err(Error::Unavailable(_))), "{end:?}");
        assert_eq!(took, Duration::from_secs(1));
    });
}
