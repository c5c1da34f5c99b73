//! Scans over the boundaries of ranges, through every node.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use futures::{StreamExt, TryStreamExt, stream};
use rangedb_client::{Batch, Client};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::binary::rangedb;
use crate::support::cluster::Cluster;
use crate::support::gateway::Gateway;
use crate::support::process::{peak_memory, without_settings};

const KEYS: usize = 100_000;
const VALUE_BYTES: usize = 512;

/// Maximum memory: half of the scanned bytes, so that nobody can hold all of them.
const MEMORY_MAX: u64 = (KEYS * VALUE_BYTES / 2) as u64;

/// Rows of one batch.
const BATCH: usize = 500;

/// Number of rows between two looks at the reader's memory.
const ROWS_PER_LOOK: usize = 1_000;

/// Settings with caches so small that memory shows what scans take.
const SMALL_CACHES: &str =
    "[storage]\nblock_cache_bytes = \"8MiB\"\nwrite_buffer_bytes = \"4MiB\"\n";

/// Keys in byte order: in the range below the system's key space, in the one above it, and at the
/// edges of both.
fn keys() -> BTreeSet<Vec<u8>> {
    let edges = [
        b"\0".to_vec(),
        b"^\xff".to_vec(),
        b"_".to_vec(),
        b"_.\xff".to_vec(),
        b"_0".to_vec(),
        b"\xff\xff".to_vec(),
    ];
    let below = (0..KEYS / 2).map(|n| format!("/k/{n}").into_bytes());
    let above = (0..KEYS - KEYS / 2 - edges.len()).map(|n| format!("k/{n}").into_bytes());
    below.chain(above).chain(edges).collect()
}

fn is_below(key: &[u8]) -> bool {
    key < &b"_/"[..]
}

async fn fill(client: &Client, keys: &BTreeSet<Vec<u8>>) {
    let (below, above): (Vec<_>, Vec<_>) = keys.iter().cloned().partition(|key| is_below(key));
    let batches = below.chunks(BATCH).chain(above.chunks(BATCH)).map(|keys| {
        let put = |batch: Batch, key: &Vec<u8>| batch.put(key.clone(), vec![b'v'; VALUE_BYTES]);
        client.batch(keys.iter().fold(Batch::new(), put))
    });
    stream::iter(batches).buffer_unordered(8).try_collect::<Vec<_>>().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_rows_come_in_order_from_every_node_in_bounded_memory() {
    let mut cluster = Cluster::of(3).await.configured(SMALL_CACHES).start().await;
    let keys = keys();
    assert_eq!(keys.len(), KEYS);
    fill(&cluster.client(), &keys).await;
    let ascending: Vec<&Vec<u8>> = keys.iter().collect();
    let memory = |cluster: &mut Cluster| -> Vec<u64> {
        let nodes = cluster.nodes.iter_mut();
        nodes.map(|node| node.process().peak_memory().expect("it runs")).collect()
    };
    let before = memory(&mut cluster);
    for place in 0..3 {
        let mut gateway = Gateway::of(&cluster.nodes[place].client).await;
        for reverse in [false, true] {
            let mut seen = 0;
            let row = |kv: rangedb_proto::v1::KeyValue| {
                let at = if reverse { KEYS - 1 - seen } else { seen };
                assert_eq!(&kv.key[..], &ascending[at][..], "row {seen} through node {place}");
                assert_eq!(kv.value.len(), VALUE_BYTES);
                seen += 1;
            };
            gateway.range(b"", b"", reverse, row).await.unwrap();
            assert_eq!(seen, KEYS);
        }
    }
    for (before, after) in before.into_iter().zip(memory(&mut cluster)) {
        let grown = after - before;
        assert!(grown < MEMORY_MAX, "scans took {grown} bytes of a node's memory");
    }

    for node in &cluster.nodes {
        let (rows, peak) = print_all(&node.client).await;
        assert_eq!(rows, KEYS);
        assert!(peak < MEMORY_MAX, "the command line took {peak} bytes");
    }
}

/// Runs `rangedb range` from end to end. Returns the number of rows and the peak memory.
async fn print_all(endpoint: &str) -> (usize, u64) {
    let mut command = Command::new(rangedb());
    without_settings(&mut command);
    command.args(["--endpoints", endpoint, "range", "", ""]).stdout(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let pid = child.id().expect("it was not waited for");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let (mut rows, mut peak) = (0, 0);
    while lines.next_line().await.unwrap().is_some() {
        rows += 1;
        if rows % ROWS_PER_LOOK == 0 {
            peak = peak_memory(pid).unwrap_or(0).max(peak);
        }
    }
    assert!(child.wait().await.unwrap().success());
    assert!(peak > 0, "no look at the memory came in time");
    (rows, peak)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_cuts_scans_at_bounds_and_limits_and_says_so() {
    let cluster = Cluster::started(1).await;
    for key in ["a", "b", "c", "/x"] {
        cluster.cli(["put", key, "v"]).await.success();
    }
    let all = cluster.cli(["range", "", "", "--keys-only"]).await;
    assert_eq!(all.success(), "/x\na\nb\nc\n");
    let part = cluster.cli(["range", "/x", "c", "--reverse", "--keys-only"]).await;
    assert_eq!(part.success(), "b\na\n/x\n");
    let cut = cluster.cli(["range", "a", "", "--limit", "2"]).await;
    assert_eq!((&cut.out[..], cut.code), ("a\tv\nb\tv\n", 0));
    assert!(cut.notes.contains("more rows may follow after b"), "{cut:?}");
    let whole = cluster.cli(["range", "a", "", "--limit", "3"]).await;
    assert_eq!((&whole.out[..], &whole.notes[..]), ("a\tv\nb\tv\nc\tv\n", ""));
}
