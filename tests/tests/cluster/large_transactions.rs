//! A transaction as large as is allowed: many keys in two ranges, all of them visible at once.

use std::time::Duration;

use rangedb_client::{Client, RangeOptions, TransactionOptions};

use crate::support::cluster::Cluster;

const KEYS: usize = 100_000;

/// Size of a value. With their keys, all values have nearly as many bytes as a transaction may
/// hold.
const VALUE_BYTES: usize = 900;

/// Maximum growth of a node's memory, with caches as small as below. Every byte goes through a node
/// as a lock and again as a version.
const MEMORY_MAX: u64 = (2 * KEYS * VALUE_BYTES) as u64;

/// Timeout for writing a hundred megabytes three times, on a machine that does other things too.
const TIMEOUT: Duration = Duration::from_secs(240);

/// Settings with small caches and frequent flushes, so that memory shows the cost of a transaction.
const SMALL: &str = "[storage]\nblock_cache_bytes = \"8MiB\"\nwrite_buffer_bytes = \"4MiB\"\n\
                     [raft]\nflush_log_bytes = \"4MiB\"\nlog_keep_bytes = \"1MiB\"\n";

fn key(number: usize) -> String {
    let range = if number.is_multiple_of(2) { "/large" } else { "large" };
    format!("{range}/{number:08}")
}

async fn count(client: &Client, at: rangedb_client::Timestamp) -> usize {
    let mut found = 0;
    for prefix in ["/large/", "large/"] {
        let mut rows = client.range(RangeOptions::prefix(prefix).keys_only().at(at));
        while let Some(row) = rows.next().await {
            row.unwrap();
            found += 1;
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_keys_in_two_ranges_become_visible_at_once() {
    let mut cluster = Cluster::of(3).await.configured(SMALL).start().await;
    let client = cluster.client().with_timeout(TIMEOUT);
    client.put("large/before", "").await.unwrap();
    let before: Vec<u64> =
        cluster.nodes.iter_mut().map(|node| node.process().peak_memory().unwrap()).collect();

    let txn = client.begin(TransactionOptions::default()).await.unwrap();
    for number in 0..KEYS {
        txn.put(key(number), vec![b'v'; VALUE_BYTES]).await.unwrap();
    }
    let not_yet = client.timestamp().await.unwrap();
    let committed = txn.commit().await.unwrap();
    assert_eq!(count(&client, not_yet).await, 1);
    assert_eq!(count(&client, committed).await, KEYS + 1);
    for number in [0, 1, KEYS - 2, KEYS - 1] {
        let row = client.get(key(number)).await.unwrap().unwrap();
        assert_eq!(row.mod_ts, committed, "{}", row.key.escape_ascii());
    }
    for (node, before) in cluster.nodes.iter_mut().zip(before) {
        let more = node.process().peak_memory().unwrap() - before;
        assert!(more < MEMORY_MAX, "{} took {more} bytes more", node.name);
    }
}
