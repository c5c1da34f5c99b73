//! Deletes of whole spans, in as many steps as it takes.

use std::time::Duration;

use crate::fake::{Cluster, Mode};
use rangedb_client::net::Net;
use rangedb_client::{Client, Error, RangeOptions};

async fn keys(client: &Client) -> Vec<String> {
    let mut rows = client.range(RangeOptions::new("", "").keys_only());
    let mut keys = Vec::new();
    while let Some(row) = rows.next().await {
        keys.push(String::from_utf8(row.unwrap().key.to_vec()).unwrap());
    }
    keys
}

fn filled() -> Cluster {
    let cluster = Cluster::with_seed(1);
    cluster.fill((0..20).map(|place| format!("d{place:02}")));
    cluster.fill(["a", "n1", "n2", "z"].map(str::to_owned));
    cluster
}

#[test]
fn a_span_that_one_command_may_delete_goes_at_once() {
    let cluster = filled();
    let client = cluster.client();
    let deleted = cluster.run(client.delete_range("d", "e")).unwrap();
    assert_eq!((deleted.deleted, deleted.commits), (20, 1));
    assert_eq!(cluster.run(keys(&client)), ["a", "n1", "n2", "z"]);
    let nothing = cluster.run(client.delete_range("d", "e")).unwrap();
    assert_eq!(nothing.deleted, 0);
    assert!(nothing.commit_ts > deleted.commit_ts);
}

#[test]
fn a_longer_one_goes_in_steps_over_ranges_and_all_are_counted() {
    let cluster = filled();
    let client = cluster.client();
    cluster.change(|state| state.bounded = true);
    let deleted = cluster.run(client.delete_range("b", "y")).unwrap();
    assert_eq!(deleted.deleted, 22);
    // A page has three rows, and ends at the end of a range too.
    assert_eq!(deleted.commits, 8);
    assert_eq!(cluster.run(keys(&client)), ["a", "z"]);
    let nothing = cluster.run(client.delete_range("b", "y")).unwrap();
    assert_eq!((nothing.deleted, nothing.commits), (0, 0));
    assert!(nothing.commit_ts > deleted.commit_ts, "when nothing was there");
}

#[test]
fn an_error_on_the_way_says_how_far_it_got_and_the_same_request_goes_on() {
    let cluster = filled();
    let client = cluster.client();
    cluster.change(|state| {
        state.bounded = true;
        state.ranges[3].leader = 2;
    });
    cluster.set_mode(2, Mode::Down);
    let error = cluster.run(client.delete_range("b", "y")).unwrap_err();
    let told = error.to_string();
    assert!(matches!(error, Error::Unavailable(_)), "{told}");
    assert!(told.contains("20 keys are deleted, all in front of \"m\""), "{told}");
    cluster.set_mode(2, Mode::Up);
    let rest = cluster.run(client.delete_range("b", "y")).unwrap();
    assert_eq!(rest.deleted, 2);
    assert_eq!(cluster.run(keys(&client)), ["a", "z"]);
}

#[test]
fn all_steps_share_the_callers_time() {
    let cluster = filled();
    let client = cluster.client();
    let second = Duration::from_secs(1);
    cluster.change(|state| {
        state.bounded = true;
        state.slow = Some(("scan", second / 2));
    });
    let before = cluster.clock.now();
    let error = cluster.run(client.with_timeout(2 * second).delete_range("d", "e")).unwrap_err();
    assert!(error.to_string().contains("keys are deleted"), "{error}");
    assert!(cluster.now() - before <= 2 * second + second / 100);
}

#[test]
fn keys_of_the_system_are_refused() {
    let cluster = filled();
    let client = cluster.client();
    let error = cluster.run(client.delete_range("", "")).unwrap_err();
    assert!(matches!(error, Error::PermissionDenied(_)), "{error}");
    assert_eq!(cluster.run(keys(&client)).len(), 24);
}
