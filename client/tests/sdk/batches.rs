//! Batches: their limits, refusals before anything is sent, and batches over ranges.

use std::time::Duration;

use crate::fake::{Cluster, Range};
use futures::future::join_all;
use rangedb_client::net::Net;
use rangedb_client::{Batch, Client, Condition, DeleteOptions, Error, PutOptions, Test};

fn refused(cluster: &Cluster, client: &Client, batch: Batch) -> Error {
    cluster.run(client.get("k")).unwrap();
    cluster.take_log("");
    let error = cluster.run(client.batch(batch)).unwrap_err();
    let log = std::mem::take(&mut cluster.state.lock().log);
    let sent = log.iter().any(|(_, kind)| *kind == "write" || *kind == "timestamps");
    assert!(!sent, "refused after something was sent: {log:?}");
    error
}

fn rows(cluster: &Cluster) -> Vec<(String, String)> {
    let state = cluster.state.lock();
    assert!(state.store.locks.is_empty(), "a lock was left");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    state.store.rows.values().map(|kv| (text(&kv.key), text(&kv.value))).collect()
}

/// Runs until the background tasks have ended.
fn settle(cluster: &Cluster) {
    cluster.run(cluster.sleep(Duration::from_secs(1)));
}

#[test]
fn a_batch_over_two_ranges_happens_at_one_timestamp() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let batch = Batch::new().put("a", "1").put("z", "2");
        let committed = client.batch(batch).await.unwrap();
        assert_eq!(committed.results.len(), 2);
        for key in ["a", "z"] {
            assert_eq!(client.get(key).await.unwrap().unwrap().mod_ts, committed.commit_ts);
        }
        cluster.sleep(Duration::from_secs(1)).await;
    });
    assert_eq!(rows(&cluster), [("a".into(), "1".into()), ("z".into(), "2".into())]);
}

#[test]
fn a_batch_over_ranges_with_a_failing_condition_applies_nothing() {
    for condition in [Condition::exists("b"), Condition::value("x", "other")] {
        let cluster = Cluster::with_seed(1);
        let client = cluster.client();
        cluster.run(client.put("x", "1")).unwrap();
        let key = condition.key.clone();
        let batch =
            Batch::new().when(Condition::exists("x")).when(condition).put("a", "1").put("z", "2");
        let error = cluster.run(client.batch(batch)).unwrap_err();
        match error {
            Error::Conflict { key: failed, condition_index, .. } => {
                assert_eq!((failed, condition_index), (key, 1));
            }
            other => panic!("{other}"),
        }
        settle(&cluster);
        assert_eq!(rows(&cluster), [("x".into(), "1".into())]);
    }
}

#[test]
fn a_condition_is_checked_in_a_range_where_nothing_is_written() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(client.put("A", "1")).unwrap();
    let batch = |test| Batch::new().when(Condition::new("A", test)).put("a", "1").put("z", "2");
    cluster.run(client.batch(batch(Test::Absent))).unwrap_err();
    cluster.run(client.batch(batch(Test::Exists))).unwrap();
}

#[test]
fn a_batch_over_ranges_answers_as_one_in_a_range_does() {
    let batch = |moved: &str| {
        Batch::new()
            .put("b", "2")
            .delete("b")
            .put("b", "3")
            .put("c", "1")
            .delete(moved.to_owned())
            .delete("absent")
            .delete_range("d", "e")
            .return_previous()
    };
    let mut answers = Vec::new();
    // The keys are the same, except for one that lies in the other range in the second run.
    for moved in ["k", "z"] {
        let cluster = Cluster::with_seed(1);
        let client = cluster.client();
        cluster.fill(["b", moved, "d1", "d2"].map(str::to_owned));
        let committed = cluster.run(client.batch(batch(moved))).unwrap();
        let answer = committed.results.iter().map(|result| {
            let previous = result.previous.clone().map(|previous| {
                let own = previous.mod_ts == committed.commit_ts;
                (previous.version, own, previous.create_ts == committed.commit_ts)
            });
            (result.deleted, previous)
        });
        answers.push(answer.collect::<Vec<_>>());
        settle(&cluster);
        assert_eq!(rows(&cluster), [("b".into(), "3".into()), ("c".into(), "1".into())]);
    }
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn a_delete_range_over_a_boundary_deletes_on_both_sides() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.fill(["b", "l", "m", "n", "z"].map(str::to_owned));
    let committed = cluster.run(client.batch(Batch::new().delete_range("l", "y"))).unwrap();
    assert_eq!(committed.results[0].deleted, 3);
    settle(&cluster);
    let left: Vec<String> = rows(&cluster).into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, ["b", "z"]);
}

#[test]
fn a_batch_whose_range_splits_on_the_way_goes_over_both() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(client.get("z")).unwrap();
    // The client still has one range in its cache when it locates the batch.
    cluster.change(|state| {
        state.ranges[3] = Range::new(4, "m", "t", 2, &[1, 2, 3], 1);
        state.ranges.push(Range::new(9, "t", "", 2, &[1, 2, 3], 1));
    });
    cluster.run(client.batch(Batch::new().put("n", "1").put("z", "2"))).unwrap();
    settle(&cluster);
    assert_eq!(rows(&cluster), [("n".into(), "1".into()), ("z".into(), "2".into())]);
}

#[test]
fn a_batch_of_more_than_a_range_takes_in_one_command_is_done_in_chunks() {
    const KEYS: usize = 16 * 1024 + 1;
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    let all = (0..KEYS).fold(Batch::new(), |batch, i| batch.put(format!("k{i:05}"), "v"));
    let committed = cluster.run(client.batch(all.when(Condition::absent("k00000")))).unwrap();
    assert_eq!(committed.results.len(), KEYS);
    settle(&cluster);
    assert_eq!(rows(&cluster).len(), KEYS);
    assert!(cluster.take_log("write").is_empty(), "sent as one command all the same");
}

#[test]
fn batches_that_write_the_same_keys_in_two_ranges_all_succeed() {
    for seed in 0..20 {
        let cluster = Cluster::with_seed(seed);
        let clients: Vec<Client> = (0..6).map(|_| cluster.client()).collect();
        let batches = clients.iter().enumerate().map(|(at, client)| {
            let batch = Batch::new().put("a", format!("{at}")).put("z", format!("{at}"));
            client.batch(batch)
        });
        for outcome in cluster.run(join_all(batches)) {
            outcome.unwrap();
        }
        settle(&cluster);
        let rows = rows(&cluster);
        assert_eq!(rows[0].1, rows[1].1, "seed {seed}");
    }
}

#[test]
fn keys_of_the_system_are_denied_to_users_and_open_to_the_control_plane() {
    let cluster = Cluster::new();
    let client = cluster.client();
    let error = refused(&cluster, &client, Batch::new().put("_/cluster/x", "1"));
    assert!(matches!(error, Error::PermissionDenied(_)), "{error}");
    let error = refused(&cluster, &client, Batch::new().delete_range("", ""));
    assert!(matches!(error, Error::PermissionDenied(_)), "{error}");
    let read = cluster.run(client.get("_/cluster/x"));
    assert!(matches!(read, Err(Error::PermissionDenied(_))));
    let system = client.system();
    cluster.run(system.put("_/cluster/x", "1")).unwrap();
    assert!(cluster.run(system.get("_/cluster/x")).unwrap().is_some());
}

#[test]
fn what_is_too_long_or_empty_is_refused() {
    let cluster = Cluster::new();
    let client = cluster.client();
    let long = vec![b'k'; rangedb_proto::KEY_BYTES_MAX + 1];
    let large = vec![0; rangedb_proto::VALUE_BYTES_MAX];
    let larger = vec![0; rangedb_proto::VALUE_BYTES_MAX + 1];
    let bad = [
        Batch::new(),
        Batch::new().put("", "v"),
        Batch::new().put(long, "v"),
        Batch::new().put("k", larger),
        Batch::new().put("k", large.clone()).put("k2", large.clone()).put("k3", large),
        Batch::new().delete_range("b", "a"),
    ];
    for batch in bad {
        let error = refused(&cluster, &client, batch);
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
    }
}

#[test]
fn what_was_replaced_comes_back_if_asked_for() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(async {
        let returning = || PutOptions { return_previous: true, ..PutOptions::default() };
        let first = client.put_with("k", "1", returning()).await.unwrap();
        assert_eq!(first.previous, None);
        let second = client.put_with("k", "2", returning()).await.unwrap();
        assert_eq!(&second.previous.unwrap().value[..], b"1");
        assert_eq!(client.put("k", "3").await.unwrap().previous, None);
        let returning = DeleteOptions { return_previous: true, ..DeleteOptions::default() };
        let deleted = client.delete_with("k", returning).await.unwrap();
        assert!(deleted.existed);
        assert_eq!(deleted.previous.unwrap().version, 3);
        assert!(!client.delete("k").await.unwrap().existed);
    });
}

#[test]
fn a_swap_happens_only_from_the_expected_value() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(async {
        client.compare_and_swap("k", None, "1").await.unwrap();
        assert!(client.compare_and_swap("k", None, "2").await.is_err());
        client.compare_and_swap("k", Some("1".into()), "2").await.unwrap();
        assert!(client.compare_and_swap("k", Some("1".into()), "3").await.is_err());
        assert_eq!(&client.get("k").await.unwrap().unwrap().value[..], b"2");
    });
}
