//! Transactions over ranges, through real nodes. Keys that begin with `/` and keys that begin with
//! letters lie in different founding ranges.

use std::time::Duration;

use futures::future::join_all;
use rangedb_client::{
    Batch, Client, Condition, Error, Isolation, RangeOptions, Transaction, TransactionOptions,
};

use crate::support::cluster::{Cluster, connect};
use crate::support::wait::{SOON, check, until};

const ACCOUNTS: u64 = 20;
const OPENING: i64 = 100;

/// Returns the key of an account: even accounts lie in one range, odd ones in another.
fn account(number: u64) -> String {
    let range = if number.is_multiple_of(2) { "/account" } else { "account" };
    format!("{range}/{number:04}")
}

fn amount(value: &[u8]) -> i64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

async fn balance(txn: &Transaction, number: u64) -> Result<i64, Error> {
    Ok(txn.get(account(number)).await?.map_or(0, |row| amount(&row.value)))
}

async fn transfer(client: &Client, from: u64, to: u64) -> Result<(), Error> {
    let moved = client.transaction(|txn| async move {
        let (source, target) = (balance(&txn, from).await?, balance(&txn, to).await?);
        txn.put(account(from), (source - 1).to_string()).await?;
        txn.put(account(to), (target + 1).to_string()).await
    });
    moved.await
}

/// Returns the sum of all accounts as of one moment.
async fn total(client: &Client) -> Result<i64, Error> {
    let options = TransactionOptions { read_only: true, ..Default::default() };
    let txn = client.begin(options).await?;
    let mut sum = 0;
    for prefix in ["/account/", "account/"] {
        let mut rows = txn.range(RangeOptions::prefix(prefix));
        while let Some(row) = rows.next().await {
            sum += amount(&row?.value);
        }
    }
    Ok(sum)
}

async fn open_accounts(client: &Client) {
    let mut batch = Batch::new();
    for number in 0..ACCOUNTS {
        batch = batch.put(account(number), OPENING.to_string());
    }
    client.batch(batch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_over_ranges_is_applied_as_a_whole_or_not_at_all() {
    let cluster = Cluster::started(1).await;
    let client = cluster.client();
    cluster.cli(["batch", "put", "/a", "1", "z", "2"]).await.success();
    let rows = [client.get("/a").await.unwrap().unwrap(), client.get("z").await.unwrap().unwrap()];
    assert_eq!(rows[0].mod_ts, rows[1].mod_ts, "both at one timestamp");

    let conditions = Batch::new().when(Condition::absent("z")).put("/a", "3").put("z", "4");
    let refused = client.batch(conditions).await.unwrap_err();
    assert!(matches!(refused, Error::Conflict { .. }), "{refused}");
    assert_eq!(client.get("/a").await.unwrap().unwrap().value, "1");
    assert_eq!(client.get("z").await.unwrap().unwrap().value, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_committed_is_seen_by_nobody_else_and_then_all_at_once() {
    let cluster = Cluster::started(3).await;
    let (writer, reader) = (cluster.client_of(0), cluster.client_of(1));
    let txn = writer.begin(TransactionOptions::default()).await.unwrap();
    txn.put("/order", "1").await.unwrap();
    txn.put("order", "2").await.unwrap();
    assert_eq!(txn.get("order").await.unwrap().unwrap().value, "2", "it sees its own writes");
    assert!(reader.get("/order").await.unwrap().is_none());
    let before = reader.timestamp().await.unwrap();

    let committed = txn.commit().await.unwrap();
    for key in ["/order", "order"] {
        assert_eq!(reader.get(key).await.unwrap().unwrap().mod_ts, committed);
        assert!(reader.get_at(key, before).await.unwrap().is_none(), "{key} as of before");
        assert!(reader.get_at(key, committed).await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolled_back_transaction_leaves_nothing_in_the_way() {
    let cluster = Cluster::started(1).await;
    let client = cluster.client();
    let txn = client.begin(TransactionOptions::default()).await.unwrap();
    txn.get_for_update("/seat").await.unwrap();
    txn.put("/seat", "taken").await.unwrap();
    txn.put("seat", "taken").await.unwrap();
    txn.rollback().await.unwrap();
    client.put("/seat", "free").await.unwrap();
    assert_eq!(client.get("/seat").await.unwrap().unwrap().value, "free");
    assert!(client.get("seat").await.unwrap().is_none());
}

/// Runs two transactions that read both keys, of which each writes another one.
async fn write_skew(client: &Client, isolation: Isolation) -> [Result<(), Error>; 2] {
    let begin = || client.begin(TransactionOptions { isolation, ..Default::default() });
    let (first, second) = (begin().await.unwrap(), begin().await.unwrap());
    for txn in [&first, &second] {
        txn.get("/on-call").await.unwrap();
        txn.get("on-call").await.unwrap();
    }
    first.put("/on-call", "no").await.unwrap();
    second.put("on-call", "no").await.unwrap();
    [first.commit().await.map(drop), second.commit().await.map(drop)]
}

#[tokio::test(flavor = "multi_thread")]
async fn write_skew_over_ranges_is_prevented_unless_it_is_asked_for() {
    let cluster = Cluster::started(1).await;
    let client = cluster.client();
    let [first, second] = write_skew(&client, Isolation::Serializable).await;
    first.unwrap();
    assert!(matches!(second, Err(Error::WriteConflict { .. })), "{second:?}");
    let [first, second] = write_skew(&client, Isolation::Snapshot).await;
    first.unwrap();
    second.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phantom_in_another_range_is_noticed() {
    let cluster = Cluster::started(1).await;
    let client = cluster.client();
    let txn = client.begin(TransactionOptions::default()).await.unwrap();
    assert!(txn.range(RangeOptions::prefix("job/")).next().await.is_none());
    txn.put("/idle", "yes").await.unwrap();
    client.put("job/1", "new").await.unwrap();
    let outcome = txn.commit().await;
    assert!(matches!(outcome, Err(Error::WriteConflict { .. })), "{outcome:?}");
    assert!(client.get("/idle").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_neither_made_nor_lost_while_nodes_die() {
    let mut cluster = Cluster::started(3).await;
    let client = cluster.client().with_timeout(Duration::from_secs(20));
    open_accounts(&client).await;
    let workers: Vec<_> = (0..8u64)
        .map(|worker| {
            let client = client.clone();
            tokio::spawn(async move {
                for step in 0..40 {
                    let from = (worker * 7 + step) % ACCOUNTS;
                    let to = (from + 1 + step % (ACCOUNTS - 1)) % ACCOUNTS;
                    match transfer(&client, from, to).await {
                        // An undetermined transfer may have moved money; the total stays the same.
                        Ok(()) | Err(Error::Undetermined(_)) => {}
                        Err(error) if error.is_retryable() => {}
                        Err(error) => panic!("a transfer ended in {error}"),
                    }
                    assert_eq!(total(&client).await.unwrap(), OPENING * ACCOUNTS as i64);
                }
            })
        })
        .collect();
    for victim in [0, 1, 2] {
        cluster.nodes[victim].kill();
        cluster.nodes[victim].start();
        cluster.nodes[victim].ready().await;
    }
    for worker in join_all(workers).await {
        worker.unwrap();
    }
    assert_eq!(total(&client).await.unwrap(), OPENING * ACCOUNTS as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_of_a_client_that_died_are_cleared_by_whoever_meets_them() {
    let cluster = Cluster::started(1).await;
    let endpoints = cluster.endpoints();
    let holder = tokio::runtime::Runtime::new().unwrap();
    let holding = holder.spawn(async move {
        let txn = connect(&endpoints).begin(TransactionOptions::default()).await.unwrap();
        txn.get_for_update("/lock").await.unwrap();
        // Like the death of the process: no rollback.
        std::mem::forget(txn);
    });
    holding.await.unwrap();
    // Ends the heartbeats of the lock, too.
    holder.shutdown_background();
    let client = cluster.client();
    until("the lock has run out", SOON, async || {
        let put = client.put("/lock", "mine").await;
        check(put.is_ok(), format!("{put:?}"))
    })
    .await;
}
