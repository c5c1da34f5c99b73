//! Garbage collection on real nodes: old versions exist as long as somebody may read them, and not
//! much longer.
//!
//! The tests look for dropped versions in the files of stopped nodes. Reads cannot show the
//! difference, because dropped versions were invisible before.

use std::path::Path;
use std::time::Duration;

use futures::TryStreamExt;
use rangedb_client::{Batch, Client, Error, RangeOptions, Timestamp, TransactionOptions};
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{GarbageStatus, LockInfo};
use rangedb_storage::{ColumnFamily, Direction, Reader, RocksState, StateOptions, keys};

use super::dead_clients;
use crate::support::cli;
use crate::support::cluster::Cluster;
use crate::support::node::Node;
use crate::support::wait::{SOON, check, until};

/// The shortest retention that can be set.
const RETENTION: Duration = Duration::from_secs(5);

/// Smallest step of the floor. The floor may stand this far below a hold.
const STEP: Duration = Duration::from_secs(1);

/// Time for which a new control plane does not raise the floor.
const TAKEOVER: Duration = Duration::from_secs(10);

/// Timeout for a change of the control plane and some retentions, on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(90);

async fn forget_soon(cluster: &Cluster) {
    cluster.cli(["admin", "config", "set", "gc_retention", "5s"]).await.success();
}

async fn status(cluster: &Cluster) -> Result<GarbageStatus, String> {
    cluster.client().admin().garbage_status().await.map_err(|error| error.to_string())
}

/// Waits until the cluster's time is `time` after `since`.
async fn time_passes(cluster: &Cluster, since: Timestamp, time: Duration) {
    let wanted = since.millis() + time.as_millis() as u64;
    until(&format!("the cluster's time is {time:?} later"), PATIENCE, async || {
        let now = Timestamp(status(cluster).await?.now_ts).millis();
        check(now > wanted, format!("{} ms to go", wanted.saturating_sub(now)))
    })
    .await;
}

/// Waits until the floor is just below this hold, and returns the floor.
async fn floor_comes_to(cluster: &Cluster, hold: Timestamp) -> Timestamp {
    until(&format!("the floor comes to {hold}"), PATIENCE, async || {
        let floor = Timestamp(status(cluster).await?.floor_ts);
        let near = floor.millis() + STEP.as_millis() as u64 > hold.millis();
        check(near, format!("it is {floor}")).map(|()| floor)
    })
    .await
}

/// Waits until the range of a key has dropped, on all nodes, the versions that ended below a
/// timestamp.
async fn dropped_below(cluster: &Cluster, key: &str, below: Timestamp) {
    let partitions = cluster.partitions().await.expect("the control plane answers");
    let mut descriptors =
        partitions.into_iter().filter_map(|partition| partition.report?.descriptor);
    let range = descriptors.find(|descriptor| descriptor.contains(key.as_bytes()));
    let label = format!("{{range_id=\"{}\"}}", range.expect("a range holds the key").range_id);
    until(&format!("range {label} has dropped all below {below}"), PATIENCE, async || {
        let (mut collected, mut applied) = (0.0_f64, Vec::new());
        for node in &cluster.nodes {
            applied.push(node.sample(&format!("rangedb_range_applied_index{label}")).await?);
            // Only the range's leader has this metric.
            let known = node.sample(&format!("rangedb_gc_collected_below_seconds{label}")).await;
            collected = collected.max(known.unwrap_or(0.0));
        }
        check(collected > below.millis() as f64 / 1e3, format!("below {collected} as yet"))?;
        check(applied.iter().all(|index| *index == applied[0]), format!("applied: {applied:?}"))
    })
    .await;
}

/// Counts a stopped node's records under a prefix: superseded versions, and newest versions.
fn records(node: &Node, prefix: &str) -> [usize; 2] {
    let options = StateOptions { compaction: false, ..StateOptions::default() };
    let state = RocksState::open(Path::new(&node.data), options).expect("the node has stopped");
    let end = rangedb_proto::prefix_end(prefix.as_bytes());
    let span = keys::data_span(prefix.as_bytes(), &end);
    [ColumnFamily::History, ColumnFamily::Current].map(|cf| {
        let mut records = state.scan(cf, &span.start, &span.end, Direction::Forward).unwrap();
        // Beside a superseded version, history has a record that finds it by its command.
        let is_version =
            |key: &[u8]| cf == ColumnFamily::Current || keys::parse_history(key).is_ok();
        std::iter::from_fn(|| records.next().unwrap().map(|(key, _)| usize::from(is_version(key))))
            .sum()
    })
}

async fn stop_all(cluster: &mut Cluster) {
    for node in &mut cluster.nodes {
        assert!(node.stop().await.success());
    }
}

async fn restart_all(cluster: &mut Cluster) {
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster.ready().await;
}

async fn value(client: &Client, key: &str) -> Option<String> {
    let row = client.get(key.to_owned()).await.unwrap();
    row.map(|row| String::from_utf8(row.value.to_vec()).unwrap())
}

async fn value_at(client: &Client, key: &str, at: Timestamp) -> Result<String, Error> {
    let row = client.get_at(key.to_owned(), at).await?;
    Ok(String::from_utf8(row.expect("the key had a value").value.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_keeps_what_it_sees_and_nothing_else() {
    let mut cluster = Cluster::started(3).await;
    forget_soon(&cluster).await;
    let client = cluster.client();
    for number in 0..20 {
        client.put("/gc/often", number.to_string()).await.unwrap();
    }
    client.put("/gc/kept", "first").await.unwrap();
    client.put("/gc/deleted", "x").await.unwrap();
    client.delete("/gc/deleted").await.unwrap();
    // Everything so far must lie below the place where the floor comes to stand.
    time_passes(&cluster, client.timestamp().await.unwrap(), STEP).await;

    let options = TransactionOptions { read_only: true, ..Default::default() };
    let reader = client.begin(options).await.unwrap();
    let seen = reader.start_ts();
    client.put("/gc/often", "last").await.unwrap();
    client.put("/gc/kept", "second").await.unwrap();
    let end = client.timestamp().await.unwrap();
    until("several retentions have passed", PATIENCE, async || {
        let found = value_at(&client, "/gc/kept", seen).await;
        assert_eq!(found.expect("it is held"), "first");
        let now = Timestamp(status(&cluster).await?.now_ts).millis();
        check(now > seen.millis() + 4 * RETENTION.as_millis() as u64, now)
    })
    .await;
    let floor = floor_comes_to(&cluster, seen).await;
    assert!(floor <= seen, "the floor {floor} is above the transaction at {seen}");
    dropped_below(&cluster, "/gc/", Timestamp::from_millis(floor.millis() - 1)).await;

    // The files of a node that is not the control plane's.
    let control = cluster.status().await.unwrap().control_leader_node_id;
    let other = (cluster.place_of(control).await.unwrap() + 1) % 3;
    assert!(cluster.nodes[other].stop().await.success());
    assert_eq!(records(&cluster.nodes[other], "/gc/often"), [1, 1], "what the transaction sees");
    assert_eq!(records(&cluster.nodes[other], "/gc/kept"), [1, 1], "what the transaction sees");
    assert_eq!(records(&cluster.nodes[other], "/gc/deleted"), [0, 0]);
    cluster.nodes[other].start();
    cluster.ready().await;

    let rows = reader.get_many(["/gc/kept", "/gc/often", "/gc/deleted"]).await.unwrap();
    let values: Vec<_> = rows.into_iter().map(|row| row.map(|row| row.value)).collect();
    assert_eq!(values, [Some("first".into()), Some("19".into()), None]);
    reader.rollback().await.unwrap();
    dropped_below(&cluster, "/gc/", end).await;
    let too_old = value_at(&client, "/gc/kept", seen).await.unwrap_err();
    assert!(matches!(too_old, Error::TooOld { floor_ts, .. } if floor_ts > seen.0), "{too_old:?}");
    stop_all(&mut cluster).await;
    for node in &cluster.nodes {
        assert_eq!(records(node, "/gc/"), [0, 2], "{}", node.name);
    }
    restart_all(&mut cluster).await;
    assert_eq!(value(&client, "/gc/often").await.as_deref(), Some("last"));
    assert_eq!(value(&client, "/gc/kept").await.as_deref(), Some("second"));
    assert_eq!(value(&client, "/gc/deleted").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_by_name_keeps_the_floor_down_through_the_death_of_all_nodes_until_it_is_released() {
    let mut cluster = Cluster::started(3).await;
    forget_soon(&cluster).await;
    let client = cluster.client();
    client.put("/k", "1").await.unwrap();
    let held = client.timestamp().await.unwrap();
    client.put("/k", "2").await.unwrap();
    let later = client.timestamp().await.unwrap();
    let words = ["admin", "gc", "hold", "backup", &held.to_string()];
    cluster.cli(words).await.success();
    let name = |status: &GarbageStatus| {
        let hold = status.holds.iter().find(|hold| hold.name == "backup");
        hold.map(|hold| (hold.timestamp, hold.remaining_ms))
    };

    let floor = floor_comes_to(&cluster, held).await;
    time_passes(&cluster, held, 4 * RETENTION).await;
    let stands = status(&cluster).await.unwrap();
    assert_eq!((Timestamp(stands.floor_ts), name(&stands)), (floor, Some((held.0, None))));
    assert!(floor <= held, "the floor {floor} is above the hold at {held}");
    let below = Timestamp(floor.0 - 1);
    refused_as_too_old(&cluster, below).await;
    assert_eq!(value_at(&client, "/k", held).await.unwrap(), "1");
    let ending = client.admin().hold_floor("backup", later, Some(STEP)).await;
    assert!(matches!(&ending, Err(Error::FailedPrecondition(why)) if why.contains("durably")));

    for node in &mut cluster.nodes {
        node.kill();
    }
    restart_all(&mut cluster).await;
    let started = client.timestamp().await.unwrap();
    refused_as_too_old(&cluster, below).await;
    time_passes(&cluster, started, TAKEOVER + RETENTION).await;
    let stands = status(&cluster).await.unwrap();
    assert_eq!((Timestamp(stands.floor_ts), name(&stands)), (floor, Some((held.0, None))));
    assert_eq!(value_at(&client, "/k", held).await.unwrap(), "1");

    cluster.cli(["admin", "gc", "release", "backup"]).await.success();
    let again = cluster.cli(["admin", "gc", "release", "backup"]).await;
    again.failure(1, "nothing holds the floor as `backup`");
    dropped_below(&cluster, "/k", later).await;
    let too_old = value_at(&client, "/k", held).await;
    assert!(matches!(too_old, Err(Error::TooOld { .. })), "{too_old:?}");
    refused_as_too_old(&cluster, later).await;
    assert_eq!(value(&client, "/k").await.as_deref(), Some("2"));
    assert_eq!(value_at(&client, "/k", client.timestamp().await.unwrap()).await.unwrap(), "2");
}

/// Asserts that a read and a hold below the floor are refused as too old.
async fn refused_as_too_old(cluster: &Cluster, below: Timestamp) {
    let read = value_at(&cluster.client(), "/k", below).await.unwrap_err();
    let Error::TooOld { floor_ts, .. } = read else { panic!("not too old: {read:?}") };
    assert!(floor_ts > below.0, "{floor_ts} is not above {below}");
    let at = below.to_string();
    let hold = cluster.cli(["admin", "gc", "hold", "late", &at]).await;
    hold.failure(1, "error: OUT_OF_RANGE: what was there below the floor");
    let (endpoints, file) = (cluster.endpoints(), cluster.path().join("old").display().to_string());
    let txn = async |words: &[&str]| {
        cli::run(&endpoints, [&["txn", "--txn-file", &file], words].concat()).await
    };
    txn(&["begin", "--at", &at]).await.success();
    let notes = txn(&["get", "/k"]).await;
    let notes = notes.failure(1, "error: OUT_OF_RANGE: what was there below the floor");
    assert!(notes.contains("is gone: begin anew, or read at a later timestamp"), "{notes}");
    txn(&["rollback"]).await.success();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dead_clients_left_is_settled_before_anything_is_dropped_that_tells_its_fate() {
    const UNDECIDED: [&str; 2] = ["/undecided", "undecided"];
    const DECIDED: [&str; 2] = ["/decided", "decided"];
    let cluster = Cluster::started(3).await;
    let client = cluster.client();
    for key in [UNDECIDED, DECIDED].concat() {
        client.put(key, "old").await.unwrap();
    }
    for (point, keys) in [("half-prewritten", UNDECIDED), ("half-committed", DECIDED)] {
        let (mut dead, _) = dead_clients::stopped(&cluster, point, keys).await;
        dead.kill();
    }
    let locks = async || -> Result<Vec<LockInfo>, String> {
        let locks = client.admin().locks(b"").try_collect().await;
        locks.map_err(|error: Error| error.to_string())
    };
    let left = locks().await.unwrap();
    assert_eq!(left.len(), 2, "one lock of each: {left:?}");
    forget_soon(&cluster).await;
    // From here on, only the nodes themselves touch these keys.
    until("nobody's locks are left", PATIENCE, async || {
        let collect_below_ts = status(&cluster).await?.collect_below_ts;
        let locks = locks().await?;
        let passed = locks.iter().find(|lock| lock.start_ts < collect_below_ts);
        assert!(passed.is_none(), "dropped below {collect_below_ts} in spite of {passed:?}");
        check(locks.is_empty(), format!("{locks:?}"))
    })
    .await;
    until("the nodes count what they settled", SOON, async || {
        let mut settled = 0.0;
        for node in &cluster.nodes {
            settled += node.metric("rangedb_gc_locks_settled_total").await?;
        }
        check(settled > 0.0, "none of them has settled anything")
    })
    .await;
    let newest = left.iter().map(|lock| Timestamp(lock.start_ts)).max().unwrap();
    for (keys, expected) in [(UNDECIDED, "old"), (DECIDED, "new")] {
        for key in keys {
            dropped_below(&cluster, key, newest).await;
            assert_eq!(value(&client, key).await.as_deref(), Some(expected), "{key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_dies_while_it_drops_many_versions_takes_no_newest_one_along() {
    /// Number of keys. Each round writes all of them in one batch.
    const KEYS: usize = 16_000;
    /// Number of rounds: so many versions that nodes drop them for several seconds.
    const ROUNDS: usize = 12;
    let key = |number: usize| format!("/many/{number:05}");
    let mut cluster = Cluster::started(3).await;
    let client = cluster.client().with_timeout(PATIENCE);
    for round in 1..=ROUNDS {
        let put = |batch: Batch, number| batch.put(key(number), format!("{number} in {round}"));
        client.batch((0..KEYS).fold(Batch::new(), put)).await.unwrap();
    }
    let end = client.timestamp().await.unwrap();
    forget_soon(&cluster).await;
    let leader = cluster.leader_of(b"/many/").await;
    let dropped = until("versions are being dropped", PATIENCE, async || {
        let dropped = cluster.nodes[leader].metric("rangedb_gc_records_dropped_total").await?;
        check(dropped >= KEYS as f64 / 2.0, dropped).map(|()| dropped)
    })
    .await;
    cluster.nodes[leader].kill();
    let all = (KEYS * (ROUNDS - 1)) as f64;
    assert!(dropped < all, "the leader had dropped all {dropped} before it died");
    until("another node leads", SOON, async || client.get(key(0)).await).await;
    assert_newest(&client, KEYS, ROUNDS).await;

    cluster.nodes[leader].start();
    cluster.ready().await;
    dropped_below(&cluster, "/many/", end).await;
    assert_newest(&client, KEYS, ROUNDS).await;
    stop_all(&mut cluster).await;
    for node in &cluster.nodes {
        assert_eq!(records(node, "/many/"), [0, KEYS], "{}", node.name);
    }
}

/// Asserts that every key has the value of the last round.
async fn assert_newest(client: &Client, keys: usize, round: usize) {
    let mut rows = client.range(RangeOptions::prefix("/many/"));
    let mut found = 0;
    while let Some(row) = rows.next().await {
        assert_eq!(row.unwrap().value, format!("{found} in {round}"));
        found += 1;
    }
    assert_eq!(found, keys);
}
