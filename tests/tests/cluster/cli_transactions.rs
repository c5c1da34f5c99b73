//! `rangedb txn` over separate processes on real nodes: what others see of a transaction, and what
//! it leaves. Keys that begin with `/` and keys that begin with letters lie in different founding
//! ranges.

use std::path::PathBuf;
use std::time::Duration;

use futures::future::join_all;
use serde_json::Value;

use crate::support::cli::{self, Ran};
use crate::support::cluster::Cluster;

/// Timeout below the lifetime of a lock without a heartbeat. A request that succeeds within it met
/// no lock.
const BEFORE_LOCKS_EXPIRE: Duration = Duration::from_secs(3);

/// The command line of one person.
struct Person<'c> {
    cluster: &'c Cluster,
    file: PathBuf,
}

impl<'c> Person<'c> {
    fn new(cluster: &'c Cluster, name: &str) -> Person<'c> {
        Person { cluster, file: cluster.path().join(name).join("transaction") }
    }

    async fn txn<const N: usize>(&self, words: [&str; N]) -> Ran {
        let file = self.file.display().to_string();
        let line = ["txn", "--txn-file", &file].into_iter().chain(words);
        cli::run(&self.cluster.endpoints(), line).await
    }

    async fn get(&self, key: &str) -> Value {
        let printed = self.cluster.cli(["get", key, "--output", "json"]).await.success();
        serde_json::from_str(&printed).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_a_home_has_transactions_too() {
    let cluster = Cluster::started(1).await;
    let temporary = cluster.path().join("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let txn = async |words: &[&str]| {
        let mut command = std::process::Command::new(crate::support::binary::rangedb());
        crate::support::process::without_settings(&mut command);
        command.env_remove("XDG_STATE_HOME").env_remove("XDG_RUNTIME_DIR");
        command.env("HOME", "/dev/null/nowhere").env("TMPDIR", &temporary);
        command.env("RANGEDB_ENDPOINTS", cluster.endpoints()).arg("txn").args(words);
        let output = tokio::process::Command::from(command).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    txn(&["begin"]).await;
    txn(&["put", "/homeless", "1"]).await;
    txn(&["commit"]).await;
    assert_eq!(cluster.cli(["get", "/homeless"]).await.success(), "1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_share_a_transaction_that_nobody_else_sees_before_its_commit() {
    let cluster = Cluster::started(3).await;
    let ada = Person::new(&cluster, "ada");
    ada.txn(["begin"]).await.success();
    ada.txn(["put", "/order/1", r#"{"name": "John"}"#]).await.success();
    ada.txn(["put", "order/1", "y"]).await.success();
    assert_eq!(ada.txn(["get", "/order/1"]).await.success(), "{\"name\": \"John\"}\n");
    for key in ["/order/1", "order/1"] {
        cluster.cli(["get", key]).await.failure(3, "key not found");
        Person::new(&cluster, "eve").txn(["get", key]).await.failure(1, "no transaction is open");
    }
    let committed = ada.txn(["commit", "--output", "json"]).await.success();
    let committed: Value = serde_json::from_str(&committed).unwrap();
    let (first, second) = (ada.get("/order/1").await, ada.get("order/1").await);
    assert_eq!(first["mod_ts"], committed["commit_ts"]);
    assert_eq!(second["mod_ts"], committed["commit_ts"]);
    assert_eq!(first["value"], "{\"name\": \"John\"}");
    ada.txn(["commit"]).await.failure(1, "no transaction is open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_leaves_neither_a_write_nor_a_lock() {
    let cluster = Cluster::started(1).await;
    let ada = Person::new(&cluster, "ada");
    ada.txn(["begin", "--pessimistic"]).await.success();
    ada.txn(["put", "/lock", "1"]).await.success();
    ada.txn(["get", "lock", "--for-update"]).await.failure(3, "key not found: lock");
    let refused = cluster.cli(["put", "lock", "2", "--timeout", "500ms"]).await;
    refused.failure(1, "is locked by the transaction that began at");
    let locks = ["admin", "debug", "locks", "--output", "json"];
    let held = cluster.cli(locks).await.success();
    let held: Vec<Value> = held.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys: Vec<&Value> = held.iter().map(|lock| &lock["key"]).collect();
    assert_eq!(keys, ["/lock", "lock"]);
    assert!(held.iter().all(|lock| lock["primary"] == "/lock" && lock["kind"] == "for update"));
    let one = cluster.cli(["admin", "debug", "locks", "/lo"]).await.success();
    assert_eq!(one.lines().count(), 2, "a head and a lock: {one}");
    ada.txn(["rollback"]).await.success();
    assert_eq!(cluster.cli(locks).await.success(), "");
    let client = cluster.client().with_timeout(BEFORE_LOCKS_EXPIRE);
    for key in ["/lock", "lock"] {
        cluster.cli(["get", key]).await.failure(3, "key not found");
        client.put(key, "free").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_transactions_that_change_what_both_read_the_second_is_told_to_begin_anew() {
    let cluster = Cluster::started(1).await;
    cluster.cli(["batch", "put", "/count", "1", "count", "1"]).await.success();
    let (ada, bob) = (Person::new(&cluster, "ada"), Person::new(&cluster, "bob"));
    for person in [&ada, &bob] {
        person.txn(["begin"]).await.success();
        assert_eq!(person.txn(["get", "/count"]).await.success(), "1\n");
    }
    ada.txn(["put", "/count", "2"]).await.success();
    bob.txn(["put", "count", "3"]).await.success();
    ada.txn(["commit"]).await.success();
    let refused = bob.txn(["commit"]).await.failure(1, "ABORTED: key `/count` was written at");
    assert!(refused.contains("begin anew"), "{refused}");
    assert_eq!(bob.get("count").await["value"], "1");
    bob.txn(["begin"]).await.success();
    assert_eq!(bob.txn(["get", "/count"]).await.success(), "2\n");
    bob.txn(["put", "count", "3"]).await.success();
    bob.txn(["commit"]).await.success();
    assert_eq!(bob.get("count").await["value"], "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_run_at_once_all_take_part() {
    let cluster = Cluster::started(1).await;
    let ada = Person::new(&cluster, "ada");
    ada.txn(["begin"]).await.success();
    let keys: Vec<String> = (0..8).map(|number| format!("/part/{number}")).collect();
    let puts = keys.iter().map(|key| async { ada.txn(["put", key, "x"]).await.success() });
    join_all(puts).await;
    ada.txn(["commit"]).await.success();
    let listed = cluster.cli(["range", "/part/", "/part0", "--keys-only"]).await.success();
    assert_eq!(listed.lines().collect::<Vec<_>>(), keys);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_reads_as_of_its_begin_or_of_any_time_that_is_asked_for() {
    let cluster = Cluster::started(1).await;
    let written = cluster.cli(["put", "/a", "old", "--output", "json"]).await.success();
    let written: Value = serde_json::from_str(&written).unwrap();
    let (ada, bob) = (Person::new(&cluster, "ada"), Person::new(&cluster, "bob"));
    ada.txn(["begin", "--read-only"]).await.success();
    cluster.cli(["put", "/a", "new"]).await.success();
    assert_eq!(ada.txn(["get", "/a"]).await.success(), "old\n");
    ada.txn(["put", "/a", "x"]).await.failure(2, "it is read-only");
    bob.txn(["begin", "--at", &written["commit_ts"].to_string()]).await.success();
    assert_eq!(bob.txn(["range", "/", "0"]).await.success(), "/a\told\n");
    assert_eq!(bob.txn(["commit"]).await.success(), "OK (nothing was written)\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hold_keeps_is_told_by_the_status_until_it_is_released() {
    let cluster = Cluster::started(1).await;
    let written = cluster.cli(["put", "/a", "1", "--output", "json"]).await.success();
    let written: Value = serde_json::from_str(&written).unwrap();
    let commit_ts = written["commit_ts"].to_string();
    cluster.cli(["admin", "gc", "hold", "nightly", &commit_ts]).await.success();
    let status = ["admin", "gc", "status", "--output", "json"];
    let told: Value = serde_json::from_str(&cluster.cli(status).await.success()).unwrap();
    let holds = told["holds"].as_array().unwrap();
    let nightly = holds.iter().find(|hold| hold["name"] == "nightly").expect("it is held");
    assert_eq!(nightly["timestamp"], written["commit_ts"]);
    assert!(told["floor_ts"].as_u64() <= written["commit_ts"].as_u64(), "{told}");
    cluster.cli(["admin", "gc", "release", "nightly"]).await.success();
    let told = cluster.cli(status).await.success();
    assert!(!told.contains("nightly"), "{told}");
    cluster.cli(["admin", "gc", "release", "nightly"]).await.failure(1, "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_asks_of_whom_is_told_to_those_who_want_to_know() {
    let cluster = Cluster::started(1).await;
    let quiet = cluster.cli(["put", "/a", "1"]).await;
    assert_eq!((&quiet.notes[..], &quiet.out[..]), ("", "OK\n"));
    let traced = cluster.cli(["put", "/a", "1", "--trace"]).await;
    assert_eq!(traced.out, "OK\n");
    for said in ["rangedb_client", "trace_id", "time.busy"] {
        assert!(traced.notes.contains(said), "{said} is not in {}", traced.notes);
    }
}
