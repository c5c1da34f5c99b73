//! Client processes that are killed with -9 in the middle of a commit over ranges. The locks of a
//! dead client block others for no longer than a lock lives. Its transaction is visible as a whole
//! or not at all.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rangedb_client::{Client, Error, TransactionOptions};

use crate::support::cluster::Cluster;
use crate::support::process::Process;
use crate::support::wait::{SOON, check, until};

/// Keys in two ranges.
const KEYS: [&str; 2] = ["/dead", "dead"];

/// Lifetime of a lock without a heartbeat.
const LOCK_TTL: Duration = Duration::from_secs(10);

/// Timeout of clients that meet the locks of a dead client. The time above the lifetime of a lock
/// is for a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts a client that puts "new" at keys of two ranges, and waits until it has stopped at the
/// point. Returns the process and its output.
pub async fn stopped(cluster: &Cluster, point: &str, keys: [&str; 2]) -> (Process, String) {
    let said = cluster.path().join(format!("{point}.out"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_stopping-client"));
    command.args([&cluster.endpoints(), point, "new"]).args(keys);
    command.stdout(File::create(&said).expect("a test can write a file"));
    let process = Process::start(&mut command);
    until(&format!("the client is {point}"), SOON, async || {
        let text = read(&said);
        check(text.contains("stopped"), text)
    })
    .await;
    (process, read(&said))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a file that is there can be read")
}

async fn values(client: &Client) -> [String; 2] {
    let options = TransactionOptions { read_only: true, ..TransactionOptions::default() };
    let txn = client.begin(options).await.unwrap();
    let rows = txn.get_many(KEYS).await.unwrap();
    let value = |place: usize| {
        let row = rows[place].as_ref().expect("both keys have a value");
        String::from_utf8(row.value.to_vec()).unwrap()
    };
    [value(0), value(1)]
}

/// Appends `+` to both keys in one transaction, and returns the values that it found.
async fn append(client: &Client) -> Result<[String; 2], Error> {
    client
        .transaction(|txn| async move {
            let mut found = [String::new(), String::new()];
            for (found, key) in found.iter_mut().zip(KEYS) {
                let row = txn.get(key).await?.expect("both keys have a value");
                *found = String::from_utf8(row.value.to_vec()).unwrap();
                txn.put(key, format!("{found}+")).await?;
            }
            Ok(found)
        })
        .await
}

/// Kills a client at this point of its commit. Returns the value that both keys have afterwards.
async fn killed(point: &str) -> (String, Client, Cluster) {
    let cluster = Cluster::started(3).await;
    let client = cluster.client_of(1).with_timeout(PATIENCE);
    for key in KEYS {
        client.put(key, "old").await.unwrap();
    }
    let (mut dead, said) = stopped(&cluster, point, KEYS).await;
    dead.kill();
    let killed = Instant::now();
    let seen = values(&client).await;
    assert_eq!(seen[0], seen[1], "all or nothing");
    let found = append(&client).await.expect("a dead client is in nobody's way");
    assert_eq!(found[0], found[1], "all or nothing");
    let waited = killed.elapsed();
    assert!(waited < PATIENCE, "the locks of a dead client were in the way for {waited:?}");
    assert_eq!(values(&client).await, [format!("{}+", found[0]), format!("{}+", found[0])]);
    if said.contains("committed") {
        assert_eq!(found[0], "new", "it was told that it had committed");
    }
    let [found, _] = found;
    (found, client, cluster)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_before_all_ranges_have_its_locks_leaves_nothing() {
    let (found, client, _cluster) = killed("half-prewritten").await;
    assert_eq!(found, "old");
    append(&client.with_timeout(LOCK_TTL / 2)).await.expect("nothing is in the way any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_when_all_ranges_have_its_locks_leaves_all_or_nothing() {
    let (found, client, _cluster) = killed("prewritten").await;
    assert!(found == "old" || found == "new", "{found}");
    append(&client.with_timeout(LOCK_TTL / 2)).await.expect("nothing is in the way any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_after_its_decision_leaves_everything() {
    let (found, client, _cluster) = killed("half-committed").await;
    assert_eq!(found, "new");
    append(&client.with_timeout(LOCK_TTL / 2)).await.expect("nothing is in the way any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_slow_but_alive_keeps_its_locks_for_longer_than_they_live() {
    let cluster = Cluster::started(1).await;
    let client = cluster.client().with_timeout(LOCK_TTL + LOCK_TTL / 4);
    for key in KEYS {
        client.put(key, "old").await.unwrap();
    }
    let (mut slow, _) = stopped(&cluster, "half-prewritten", KEYS).await;
    // One of the keys is locked, whichever range was the first.
    let puts = KEYS.map(|key| client.put(key, "other"));
    let ends = futures::future::join_all(puts).await;
    // A write that waits at the node for the lock may get its answer too late.
    let in_vain =
        |end: &&Result<_, Error>| matches!(end, Err(Error::Locked { .. } | Error::Undetermined(_)));
    assert_eq!(ends.iter().filter(in_vain).count(), 1, "{ends:?}");
    slow.kill();
    append(&client).await.expect("now it is dead");
}
