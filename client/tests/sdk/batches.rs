//! What a batch may hold, and what is refused before anything is sent.

use crate::fake::{Cluster, Range};
use rangedb_client::{Batch, Client, DeleteOptions, Error, PutOptions};

fn refused(cluster: &Cluster, client: &Client, batch: Batch) -> Error {
    cluster.run(client.get("k")).unwrap();
    cluster.take_log("");
    let error = cluster.run(client.batch(batch)).unwrap_err();
    let log = std::mem::take(&mut cluster.state.lock().unwrap().log);
    let sent = log.iter().any(|(_, kind)| *kind == "write" || *kind == "timestamps");
    assert!(!sent, "refused after something was sent: {log:?}");
    error
}

#[test]
fn a_batch_over_two_ranges_is_refused_whole() {
    let cluster = Cluster::new();
    let client = cluster.client();
    let error = refused(&cluster, &client, Batch::new().put("a", "1").put("z", "2"));
    let message = error.to_string();
    assert!(matches!(error, Error::Invalid { .. }), "{message}");
    assert!(message.contains("the batch covers keys of 2 ranges"), "{message}");
    assert!(cluster.state.lock().unwrap().data.is_empty());
}

#[test]
fn a_delete_range_over_a_boundary_is_refused() {
    let cluster = Cluster::new();
    let client = cluster.client();
    for (start, end) in [("a", "n"), ("a", "")] {
        let error = refused(&cluster, &client, Batch::new().delete_range(start, end));
        assert!(error.to_string().contains("2 ranges"), "{error}");
    }
    cluster.fill(["n".to_owned(), "o".to_owned(), "b".to_owned()]);
    let batch = Batch::new().delete_range("m", "");
    let committed = cluster.run(client.batch(batch)).unwrap();
    assert_eq!(committed.results[0].deleted, 2);
    assert_eq!(cluster.state.lock().unwrap().data.len(), 1);
}

#[test]
fn a_batch_whose_range_splits_on_the_way_writes_nothing() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(client.get("z")).unwrap();
    // The client still believes in one range when it checks the batch.
    cluster.change(|state| {
        state.ranges[3] = Range::new(4, "m", "t", 2, &[1, 2, 3], 1);
        state.ranges.push(Range::new(9, "t", "", 2, &[1, 2, 3], 1));
    });
    let batch = || Batch::new().put("n", "1").put("z", "2");
    let error = cluster.run(client.batch(batch())).unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    let error = cluster.run(client.batch(batch())).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    assert!(cluster.state.lock().unwrap().data.is_empty());
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
