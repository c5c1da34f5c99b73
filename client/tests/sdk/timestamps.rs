//! Timestamps: requests that wait share them, and none is older than its request.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::fake::{Cluster, Mode};
use futures::future::{join, join_all};
use rangedb_client::Error;
use rangedb_client::net::Net;

#[test]
fn requests_that_wait_share_a_call() {
    let cluster = Cluster::new();
    let client = cluster.client();
    let all = cluster.run(join_all((0..100).map(|_| client.timestamp())));
    let distinct: BTreeSet<u64> = all.into_iter().map(|ts| ts.unwrap().0).collect();
    assert_eq!(distinct.len(), 100);
    assert!(cluster.take_log("timestamps").len() <= 2);
}

#[test]
fn a_timestamp_is_never_older_than_the_request_for_it() {
    let cluster = Cluster::new();
    let client = cluster.client();
    // A call is in flight, and has been served, when the second request arrives.
    let (first, second) = cluster.run(join(client.timestamp(), async {
        cluster.sleep(Duration::from_micros(1500)).await;
        assert_eq!(cluster.state.lock().oracle, 1001, "the call has reached the oracle");
        cluster.change(|state| state.oracle = 5000);
        client.timestamp().await
    }));
    assert_eq!(first.unwrap().0, 1001);
    assert!(second.unwrap().0 > 5000);
}

#[test]
fn the_oracles_node_is_asked_directly_once_it_is_known() {
    let cluster = Cluster::new();
    cluster.change(|state| state.ranges.iter_mut().for_each(|range| range.leader = 3));
    let client = cluster.client();
    cluster.run(async {
        client.timestamp().await.unwrap();
        cluster.sleep(Duration::from_millis(10)).await;
        cluster.take_log("");
        client.timestamp().await.unwrap();
    });
    assert_eq!(cluster.take_log("timestamps"), [3]);
    // When the oracle's node goes down, other nodes forward the request.
    cluster.set_mode(3, Mode::Down);
    cluster.run(client.timestamp()).unwrap();
    assert_eq!(cluster.take_log("timestamps"), [1]);
}

#[test]
fn an_oracle_that_goes_back_is_an_error() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(client.timestamp()).unwrap();
    cluster.change(|state| state.oracle = 10);
    let error = cluster.run(client.timestamp()).unwrap_err();
    assert!(matches!(error, Error::Corruption { .. }), "{error}");
}

#[test]
fn whoever_waits_gives_up_at_the_deadline() {
    let cluster = Cluster::new();
    let client = cluster.client().with_timeout(Duration::from_millis(300));
    (1..=5).for_each(|node| cluster.set_mode(node, Mode::Hanging));
    let error = cluster.run(client.timestamp()).unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    assert_eq!(cluster.clock.now(), Duration::from_millis(300));
    (1..=5).for_each(|node| cluster.set_mode(node, Mode::Up));
    let client = cluster.client();
    cluster.run(client.timestamp()).unwrap();
}
