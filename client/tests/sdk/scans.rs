//! Scans over range boundaries.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::fake::{Cluster, Mode, Range};
use futures::TryStreamExt;
use rangedb_client::net::Net;
use rangedb_client::{Client, Error, KeyValue, RangeOptions};

fn cluster_with_rows() -> (Cluster, Vec<String>) {
    let cluster = Cluster::new();
    let keys =
        (0..10).flat_map(|i| ["A", "_/cluster/", "a", "l", "m", "z"].map(|p| format!("{p}{i}")));
    let keys = cluster.fill(keys);
    (cluster, keys.into_iter().filter(|key| !key.starts_with("_/")).collect())
}

fn scan(cluster: &Cluster, client: &Client, options: RangeOptions) -> Vec<String> {
    let rows: Result<Vec<KeyValue>, Error> = cluster.run(client.range(options).try_collect());
    rows.unwrap().into_iter().map(|row| String::from_utf8(row.key.to_vec()).unwrap()).collect()
}

#[test]
fn rows_come_in_key_order_over_all_ranges_in_both_directions() {
    let (cluster, keys) = cluster_with_rows();
    let client = cluster.client();
    let reversed: Vec<String> = keys.iter().rev().cloned().collect();
    for resume_keys in [false, true] {
        cluster.change(|state| state.resume_keys = resume_keys);
        assert_eq!(scan(&cluster, &client, RangeOptions::new("", "")), keys);
        assert_eq!(scan(&cluster, &client, RangeOptions::new("", "").reverse()), reversed);
    }
}

#[test]
fn a_scan_reads_exactly_its_span() {
    let (cluster, keys) = cluster_with_rows();
    let client = cluster.client();
    let bounds = ["", "A", "A5", "_/", "_0", "a", "l5", "l5\0", "m", "m3", "z9", "zz", ""];
    for (at, start) in bounds.iter().enumerate() {
        for end in &bounds[at..] {
            let inside =
                |key: &&String| key.as_str() >= *start && (end.is_empty() || key.as_str() < *end);
            let wanted: Vec<String> = keys.iter().filter(inside).cloned().collect();
            if *start == "_/" && *end == "_0" {
                continue;
            }
            let options = RangeOptions::new(*start, *end);
            assert_eq!(scan(&cluster, &client, options.clone()), wanted, "{start}..{end}");
            let backwards = scan(&cluster, &client, options.reverse());
            assert!(backwards.iter().eq(wanted.iter().rev()), "{start}..{end} backwards");
        }
    }
}

#[test]
fn a_limit_holds_over_ranges_and_keys_only_leaves_values_out() {
    let (cluster, keys) = cluster_with_rows();
    let client = cluster.client();
    for limit in [0, 1, 3, 4, 25, 1000] {
        let rows = scan(&cluster, &client, RangeOptions::new("", "").limit(limit));
        assert!(rows.iter().eq(keys.iter().take(limit as usize)), "limit {limit}");
    }
    let options = RangeOptions::prefix("l").keys_only().limit(4);
    let rows: Vec<KeyValue> = cluster.run(client.range(options).try_collect()).unwrap();
    assert!(rows.len() == 4 && rows.iter().all(|row| row.value.is_empty() && row.version == 1));
}

#[test]
fn the_next_page_is_fetched_once_half_of_this_one_is_read() {
    let (cluster, _) = cluster_with_rows();
    let client = cluster.client();
    cluster.change(|state| state.page_rows = 10);
    cluster.run(async {
        let mut rows = client.range(RangeOptions::new("a", "m"));
        for read in 1..=9 {
            assert!(rows.next().await.unwrap().is_ok());
            // A slow reader, so that a page that was requested has arrived.
            cluster.sleep(Duration::from_millis(5)).await;
            let log = cluster.state.lock().log.clone();
            let pages = log.iter().filter(|(_, kind)| *kind == "scan").count();
            match read {
                ..=5 => assert_eq!(pages, 1, "{read} rows of 10 are read"),
                9.. => assert_eq!(pages, 2, "{read} rows of 10 are read"),
                _ => {}
            }
        }
    });
}

#[test]
fn a_scan_goes_on_over_a_split_and_a_leader_that_moves() {
    let (cluster, keys) = cluster_with_rows();
    let client = cluster.client();
    let rows = cluster.run(async {
        let mut stream = client.range(RangeOptions::new("", ""));
        let mut rows = Vec::new();
        while let Some(row) = stream.next().await {
            rows.push(String::from_utf8(row.unwrap().key.to_vec()).unwrap());
            if rows.len() == 12 {
                cluster.change(|state| {
                    state.ranges[2] = Range::new(3, "_0", "l", 2, &[1, 2, 3], 2);
                    state.ranges.insert(3, Range::new(9, "l", "m", 2, &[1, 2, 3], 3));
                });
            }
        }
        rows
    });
    assert_eq!(rows, keys);
}

#[test]
fn a_scan_that_cannot_go_on_ends_with_the_error() {
    let (cluster, keys) = cluster_with_rows();
    let client = cluster.client();
    let (rows, error) = cluster.run(async {
        let mut stream = client.range(RangeOptions::new("", ""));
        let mut rows = BTreeSet::new();
        loop {
            match stream.next().await.expect("the error comes before the end") {
                Ok(row) => rows.insert(row.key),
                Err(error) => {
                    assert!(stream.next().await.is_none(), "nothing follows the error");
                    break (rows.len(), error);
                }
            };
            if rows.len() == 5 {
                (1..=5).for_each(|node| cluster.set_mode(node, Mode::Down));
            }
        }
    });
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    assert!(rows >= 5 && rows < keys.len());
}

#[test]
fn a_scan_of_system_keys_is_denied_to_users() {
    let (cluster, _) = cluster_with_rows();
    let client = cluster.client();
    let options = RangeOptions::prefix("_/cluster/");
    let first = cluster.run(async { client.range(options.clone()).next().await });
    assert!(matches!(first, Some(Err(Error::PermissionDenied(_)))));
    assert_eq!(scan(&cluster, &client.system(), options).len(), 10);
}

#[test]
fn many_gets_keep_the_order_of_their_keys() {
    let (cluster, keys) = cluster_with_rows();
    let client = cluster.client();
    let asked: Vec<String> = keys.iter().rev().cloned().chain(["absent".to_owned()]).collect();
    let rows = cluster.run(client.get_many(asked.clone())).unwrap();
    let found: Vec<_> = rows.into_iter().map(|row| row.map(|row| row.key)).collect();
    let wanted: Vec<_> =
        asked.iter().map(|key| (key != "absent").then(|| key.clone().into())).collect();
    assert_eq!(found, wanted);
}
