//! Transactions: reads, writes, commits and rollbacks, and locks of others in their way.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use crate::fake::{Cluster, Mode, Mortal, Range};
use futures::future::{join, join_all, select};
use futures::{StreamExt, TryStreamExt};
use rangedb_client::net::Net;
use rangedb_client::{
    Client, Error, Isolation, KeyValue, RangeOptions, TRANSACTION_ATTEMPTS_MAX, Transaction,
    TransactionOptions, v1,
};

const SECOND: Duration = Duration::from_secs(1);

async fn begin(client: &Client) -> Transaction {
    client.begin(TransactionOptions::default()).await.unwrap()
}

async fn value(client: &Client, key: &'static str) -> Option<String> {
    let row = client.get(key).await.unwrap();
    row.map(|row| String::from_utf8(row.value.to_vec()).unwrap())
}

async fn keys(txn: &Transaction, options: RangeOptions) -> Vec<String> {
    let rows: Vec<_> = txn.range(options).collect().await;
    let key = |row: Result<rangedb_client::KeyValue, Error>| {
        String::from_utf8(row.unwrap().key.to_vec()).unwrap()
    };
    rows.into_iter().map(key).collect()
}

fn locks(cluster: &Cluster) -> usize {
    cluster.state.lock().store.locks.len()
}

#[test]
fn writes_show_to_others_all_at_once_and_only_after_the_commit() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let txn = begin(&client).await;
        txn.put("a", "1").await.unwrap();
        txn.put("z", "1").await.unwrap();
        assert_eq!(value(&client, "a").await, None);
        let commit_ts = txn.commit().await.unwrap();
        for key in ["a", "z"] {
            assert_eq!(client.get(key).await.unwrap().unwrap().mod_ts, commit_ts);
        }
    });
}

#[test]
fn keys_of_one_range_commit_in_one_command() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let txn = begin(&client).await;
        txn.get("c").await.unwrap();
        txn.put("a", "1").await.unwrap();
        txn.delete("b").await.unwrap();
        cluster.take_log("");
        txn.commit().await.unwrap();
    });
    let log = std::mem::take(&mut cluster.state.lock().log);
    let kinds: Vec<&str> = log.into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, ["timestamps", "write"]);
}

#[test]
fn a_transaction_reads_its_own_writes_in_ranges_both_ways() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.fill(["b", "d", "f", "n", "p"].map(str::to_owned));
    cluster.run(async {
        let txn = begin(&client).await;
        for key in ["a", "d", "e", "o", "q"] {
            txn.put(key, "own").await.unwrap();
        }
        txn.delete("b").await.unwrap();
        txn.delete("p").await.unwrap();
        txn.delete("absent").await.unwrap();
        let all = || RangeOptions::new("a", "");
        assert_eq!(keys(&txn, all()).await, ["a", "d", "e", "f", "n", "o", "q"]);
        assert_eq!(keys(&txn, all().reverse()).await, ["q", "o", "n", "f", "e", "d", "a"]);
        assert_eq!(keys(&txn, all().limit(2)).await, ["a", "d"]);
        assert_eq!(keys(&txn, all().reverse().limit(3)).await, ["q", "o", "n"]);
        assert_eq!(keys(&txn, RangeOptions::new("b", "e")).await, ["d"]);
        assert_eq!(keys(&txn, RangeOptions::new("", "").limit(1)).await, ["a"]);
        assert_eq!(&txn.get("d").await.unwrap().unwrap().value[..], b"own");
        assert_eq!(txn.get("b").await.unwrap(), None);
        assert!(txn.exists("f").await.unwrap());
        let many = txn.get_many(["a", "b", "f"]).await.unwrap();
        let found: Vec<bool> = many.iter().map(Option::is_some).collect();
        assert_eq!(found, [true, false, true]);
        assert_eq!(txn.delete_range("c", "g").await.unwrap(), 3);
        assert_eq!(keys(&txn, all().keys_only()).await, ["a", "n", "o", "q"]);
    });
}

#[test]
fn reads_see_the_moment_of_the_beginning_whatever_is_committed_since() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        client.put("a", "old").await.unwrap();
        let options = TransactionOptions { read_only: true, ..Default::default() };
        let txn = client.begin(options).await.unwrap();
        client.put("a", "new").await.unwrap();
        client.put("z", "new").await.unwrap();
        assert_eq!(&txn.get("a").await.unwrap().unwrap().value[..], b"old");
        assert_eq!(keys(&txn, RangeOptions::new("a", "")).await, ["a"]);
        let error = txn.put("a", "mine").await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
        let at = txn.start_ts();
        cluster.take_log("");
        assert_eq!(txn.commit().await.unwrap(), at);
        assert!(cluster.state.lock().log.is_empty(), "nothing to commit");
        let past = TransactionOptions { at: Some(at), ..Default::default() };
        let txn = client.begin(past).await.unwrap();
        assert_eq!(&txn.get("a").await.unwrap().unwrap().value[..], b"old");
    });
}

#[test]
fn a_reader_passes_the_locks_of_a_living_transaction_and_pushes_its_commit() {
    let cluster = Cluster::with_seed(1);
    let (writer, reader) = (cluster.client(), cluster.client());
    cluster.run(async {
        writer.put("a", "old").await.unwrap();
        writer.put("z", "old").await.unwrap();
        cluster.take_log("");
        // Its validation gets no answer until the reader has read at a later timestamp.
        let txn = begin(&writer).await;
        txn.get("n").await.unwrap();
        txn.put("a", "new").await.unwrap();
        txn.put("z", "new").await.unwrap();
        cluster.lose("validate");
        let read = async {
            while locks(&cluster) < 2 {
                cluster.sleep(Duration::from_micros(100)).await;
            }
            assert_eq!(value(&reader, "z").await.unwrap(), "old");
            // The commit timestamp must be taken before this transaction's start timestamp.
            cluster.sleep(Duration::from_millis(20)).await;
            let options = TransactionOptions { read_only: true, ..Default::default() };
            let at = reader.begin(options).await.unwrap();
            assert_eq!(&at.get("z").await.unwrap().unwrap().value[..], b"old");
            cluster.change(|state| state.kinds_lost.clear());
            at
        };
        let (committed, reading) = join(txn.commit(), read).await;
        assert!(committed.unwrap() > reading.start_ts());
        assert_eq!(&reading.get("a").await.unwrap().unwrap().value[..], b"old");
        assert_eq!(value(&reader, "a").await.unwrap(), "new");
    });
    // The pushed transaction took and validated a second commit timestamp.
    assert!(cluster.take_log("commit").len() >= 3);
}

/// The page's lock was uncommitted when the reader asked for its fate. Another client may learn of
/// its commit and then write, so the page must not show that write without the committed one.
#[test]
fn a_page_does_not_show_a_later_write_without_the_one_before_it() {
    for reverse in [false, true] {
        let cluster = Cluster::with_seed(1);
        cluster.change(|state| state.async_commits = false);
        let (writer, reader) = (cluster.client(), cluster.client());
        cluster.run(async {
            writer.put("n1", "old").await.unwrap();
            writer.put("n2", "old").await.unwrap();
            let txn = begin(&writer).await;
            for key in ["a", "n1"] {
                txn.put(key, "new").await.unwrap();
            }
            let start_ts = txn.start_ts().0;
            // Its validation gets no answer, so it lives until another client commits it.
            txn.get("b").await.unwrap();
            cluster.lose("validate");
            let commit = async { drop(txn.commit().await) };
            let read = async {
                while locks(&cluster) < 2 {
                    cluster.sleep(Duration::from_micros(100)).await;
                }
                cluster.after("check", move |state| {
                    let keys = vec!["a".into()];
                    let commit_ts = state.oracle + 1;
                    let commit = v1::CommitKeys { start_ts, commit_ts, keys };
                    state.store.apply(v1::command::Body::CommitKeys(commit), 0);
                    let later = (commit_ts + 1, commit_ts + 2);
                    state.store.write(&"n2".into(), Some("later".into()), later);
                    state.oracle += 3;
                });
                let options = RangeOptions::prefix("n");
                let options = if reverse { options.reverse() } else { options };
                let rows: Vec<KeyValue> = reader.range(options).try_collect().await.unwrap();
                let values: BTreeSet<&[u8]> = rows.iter().map(|row| &row.value[..]).collect();
                assert_eq!(values, [&b"later"[..], b"new"].into());
            };
            join(commit, read).await;
        });
    }
}

#[test]
fn a_writer_waits_for_a_living_transaction_and_not_for_a_dead_one() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client().with_timeout(30 * SECOND);
    cluster.run(async {
        let txn = begin(&client).await;
        txn.get_for_update("a").await.unwrap();
        let commit = async {
            cluster.sleep(25 * SECOND).await;
            txn.put("a", "1").await.unwrap();
            txn.commit().await.unwrap();
        };
        let (written, ()) = join(client.put("a", "2"), commit).await;
        written.unwrap();
        assert!(cluster.clock.now() >= 25 * SECOND, "the heartbeats kept it alive");
        assert_eq!(value(&client, "a").await.unwrap(), "2");
    });
    assert!(!cluster.take_log("heartbeat").is_empty());
}

#[test]
fn a_key_locked_for_update_is_read_as_it_is_and_cannot_change() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        client.put("a", "1").await.unwrap();
        let txn = begin(&client).await;
        client.put("a", "2").await.unwrap();
        let newest = txn.get_for_update("a").await.unwrap().unwrap();
        assert_eq!(&newest.value[..], b"2");
        assert_eq!(txn.get_for_update("z").await.unwrap(), None);
        let error = client.with_timeout(SECOND).put("a", "3").await.unwrap_err();
        assert!(matches!(&error, Error::Locked { start_ts, .. } if *start_ts == txn.start_ts().0));
        assert_eq!(value(&client, "a").await.unwrap(), "2", "readers are not held up");
        txn.put("a", "4").await.unwrap();
        assert_eq!(&txn.get_for_update("a").await.unwrap().unwrap().value[..], b"4");
        txn.commit().await.unwrap();
        assert_eq!(value(&client, "a").await.unwrap(), "4");
        client.put("z", "free").await.unwrap();
        assert_eq!(locks(&cluster), 0);
    });
}

#[test]
fn waiting_for_a_lock_ends_with_who_holds_it() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let holder = begin(&client).await;
        holder.get_for_update("a").await.unwrap();
        let options = TransactionOptions { lock_wait: Some(SECOND), ..Default::default() };
        let txn = client.begin(options).await.unwrap();
        let before = cluster.clock.now();
        match txn.get_for_update("a").await.unwrap_err() {
            Error::Locked { key, start_ts, .. } => {
                assert_eq!((&key[..], start_ts), (&b"a"[..], holder.start_ts().0));
            }
            other => panic!("{other}"),
        }
        let waited = cluster.clock.now() - before;
        assert!(waited >= SECOND && waited < SECOND + SECOND / 10, "{waited:?}");
        // The transaction may lock something else, and go on.
        txn.get_for_update("b").await.unwrap();
        txn.put("b", "1").await.unwrap();
        txn.commit().await.unwrap();
        holder.rollback().await.unwrap();
        assert_eq!(locks(&cluster), 0);
    });
}

#[test]
fn a_transaction_that_only_locked_commits_and_lets_go() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let options = TransactionOptions { pessimistic: true, ..Default::default() };
        let txn = client.begin(options).await.unwrap();
        txn.get_for_update("b").await.unwrap();
        txn.put("a", "1").await.unwrap();
        txn.put("z", "1").await.unwrap();
        assert_eq!(locks(&cluster), 3);
        txn.commit().await.unwrap();
        let txn = begin(&client).await;
        txn.get_for_update("a").await.unwrap();
        txn.get_for_update("z").await.unwrap();
        txn.commit().await.unwrap();
        cluster.sleep(SECOND).await;
        assert_eq!(locks(&cluster), 0);
        assert_eq!(value(&client, "z").await.unwrap(), "1");
    });
}

#[test]
fn a_dropped_transaction_lets_go_of_its_locks() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let txn = begin(&client).await;
        txn.get_for_update("a").await.unwrap();
        txn.get_for_update("z").await.unwrap();
        drop(txn);
        cluster.sleep(SECOND).await;
        assert_eq!(locks(&cluster), 0);
        assert_eq!(value(&client, "a").await, None);
    });
}

#[test]
fn the_closure_begins_again_until_nobody_is_in_the_way() {
    for seed in 0..10 {
        let cluster = Cluster::with_seed(seed);
        let clients: Vec<Client> = (0..4).map(|_| cluster.client()).collect();
        let count = |client: Client| async move {
            for _ in 0..3 {
                let add = |txn: Transaction| async move {
                    for key in ["a", "z"] {
                        let before = txn.get(key).await?.map_or(0, |row| row.value.len());
                        txn.put(key, vec![b'+'; before + 1]).await?;
                    }
                    Ok(())
                };
                client.transaction(add).await.unwrap();
            }
        };
        cluster.run(join_all(clients.iter().cloned().map(count)));
        let totals = cluster.run(clients[0].get_many(["a", "z"])).unwrap();
        for row in totals {
            assert_eq!(row.unwrap().value.len(), 12, "seed {seed}");
        }
    }
}

#[test]
fn the_closure_is_not_run_for_ever() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    let attempts = std::cell::Cell::new(0);
    let error = cluster.run(client.transaction(|txn| {
        attempts.set(attempts.get() + 1);
        let other = cluster.client();
        async move {
            txn.get("a").await?;
            other.put("a", "always faster").await?;
            txn.put("a", "never").await
        }
    }));
    assert!(matches!(error, Err(Error::WriteConflict { .. })), "{error:?}");
    assert_eq!(attempts.get(), TRANSACTION_ATTEMPTS_MAX);
}

#[test]
fn the_closure_stops_at_an_unknown_outcome() {
    for lost in ["write", "commit"] {
        let cluster = Cluster::with_seed(1);
        cluster.change(|state| state.async_commits = false);
        let client = cluster.client();
        cluster.lose(lost);
        let attempts = std::cell::Cell::new(0);
        let second = if lost == "write" { "b" } else { "z" };
        let error = cluster.run(client.transaction(|txn| {
            attempts.set(attempts.get() + 1);
            async move {
                txn.put("a", "1").await?;
                txn.put(second, "1").await
            }
        }));
        assert!(matches!(error, Err(Error::Undetermined(_))), "{error:?}");
        assert_eq!(attempts.get(), 1);
        cluster.change(|state| state.kinds_lost.clear());
        assert_eq!(cluster.run(value(&client, second)).as_deref(), Some("1"));
    }
}

#[test]
fn a_lost_answer_of_the_decision_is_asked_for_again() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let txn = begin(&client).await;
        txn.put("a", "1").await.unwrap();
        txn.put("z", "1").await.unwrap();
        cluster.lose("commit");
        let recover = async {
            cluster.sleep(2 * SECOND).await;
            cluster.change(|state| state.kinds_lost.clear());
        };
        let (outcome, ()) = join(txn.commit(), recover).await;
        let commit_ts = outcome.unwrap();
        assert_eq!(client.get("z").await.unwrap().unwrap().mod_ts, commit_ts);
    });
}

#[test]
fn an_error_in_the_closure_rolls_back_and_is_returned() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let refused = client.transaction(|txn| async move {
            txn.get_for_update("a").await?;
            txn.put("a", "1").await?;
            txn.compare_and_swap("z", Some("absent".into()), "1").await
        });
        assert!(matches!(refused.await, Err(Error::Conflict { .. })));
        assert_eq!(locks(&cluster), 0);
        assert_eq!(value(&client, "a").await, None);
        let by_hand = client.transaction(|txn| async move { txn.commit().await });
        assert!(matches!(by_hand.await, Err(Error::Invalid { .. })));
    });
}

#[test]
fn what_ends_in_vain_leaves_no_lock() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let txn = begin(&client).await;
        txn.put("a", "1").await.unwrap();
        txn.put("z", "1").await.unwrap();
        client.put("z", "faster").await.unwrap();
        match txn.commit().await.unwrap_err() {
            Error::WriteConflict { key, winner_commit_ts, .. } => {
                let winner = client.get("z").await.unwrap().unwrap().mod_ts;
                assert_eq!((&key[..], winner_commit_ts), (&b"z"[..], winner.0));
            }
            other => panic!("{other}"),
        }
        assert_eq!(locks(&cluster), 0);
        assert_eq!(value(&client, "a").await, None);
    });
}

#[test]
fn ranges_that_split_and_leaders_that_move_midway_are_followed() {
    for at in 0..40 {
        let cluster = Cluster::with_seed(at);
        let client = cluster.client();
        cluster.run(async {
            let txn = begin(&client).await;
            for key in ["a", "k", "n", "t", "z"] {
                txn.get(key).await.unwrap();
                txn.put(key, "1").await.unwrap();
            }
            let change = async {
                cluster.sleep(Duration::from_micros(at * 500)).await;
                cluster.change(|state| {
                    state.ranges[2].leader = 2;
                    state.ranges[3] = Range::new(4, "m", "p", 2, &[1, 2, 3], 3);
                    state.ranges.push(Range::new(9, "p", "", 2, &[1, 2, 3], 2));
                });
            };
            let (outcome, ()) = join(txn.commit(), change).await;
            outcome.unwrap();
            cluster.sleep(SECOND).await;
            assert_eq!(locks(&cluster), 0);
            for row in client.get_many(["a", "k", "n", "t", "z"]).await.unwrap() {
                assert_eq!(&row.unwrap().value[..], b"1");
            }
        });
    }
}

#[test]
fn a_large_transaction_goes_in_chunks() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client().with_timeout(60 * SECOND);
    cluster.run(async {
        let txn = begin(&client).await;
        for at in 0..20_000 {
            let key = if at % 2 == 0 { format!("b{at}") } else { format!("y{at}") };
            txn.put(key, vec![b'v'; 300]).await.unwrap();
        }
        txn.commit().await.unwrap();
        cluster.sleep(SECOND).await;
        assert_eq!(locks(&cluster), 0);
    });
    assert!(cluster.take_log("prewrite").len() >= 6);
    assert_eq!(cluster.state.lock().store.rows.len(), 20_000);
}

#[test]
fn a_cluster_that_is_down_is_an_error_and_not_an_unknown_outcome() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let txn = begin(&client).await;
        txn.put("a", "1").await.unwrap();
        txn.put("z", "1").await.unwrap();
        (1..=5).for_each(|node| cluster.set_mode(node, Mode::Down));
        let error = txn.commit().await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error}");
    });
}

#[test]
fn snapshot_isolation_does_not_remember_reads() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        let isolation = Isolation::Snapshot;
        let options = TransactionOptions { isolation, ..Default::default() };
        let txn = client.begin(options).await.unwrap();
        txn.get("n").await.unwrap();
        client.put("n", "changed").await.unwrap();
        txn.put("a", "1").await.unwrap();
        txn.put("z", "1").await.unwrap();
        txn.commit().await.unwrap();
    });
    assert_eq!(cluster.take_log("validate"), []);
}

/// Leaves the locks of a client that dies before or after the decision, on a thousand keys in each
/// of two ranges.
fn leave_locks(cluster: &Cluster, decided: bool) {
    let last = if decided { "commit" } else { "prewrite" };
    for call in 1.. {
        cluster.change(|state| state.store = Default::default());
        cluster.take_log("");
        let mortal = Mortal::new(cluster, call, true);
        cluster.run(async {
            let client = mortal.client();
            let write = pin!(async {
                let txn = begin(&client).await;
                for at in 0..1000 {
                    txn.put(format!("b{at:04}"), "1").await.unwrap();
                    txn.put(format!("y{at:04}"), "1").await.unwrap();
                }
                txn.commit().await.unwrap();
            });
            select(write, pin!(mortal.death())).await;
        });
        let log = std::mem::take(&mut cluster.state.lock().log);
        if log.last().is_some_and(|(_, kind)| *kind == last) && locks(cluster) >= 1000 {
            return;
        }
    }
}

#[test]
fn locks_that_a_client_left_are_cleared_by_the_chunk() {
    for decided in [false, true] {
        let cluster = Cluster::with_seed(1);
        leave_locks(&cluster, decided);
        let client = cluster.client().with_timeout(20 * SECOND);
        cluster.take_log("");
        cluster.run(async {
            // Wait until the locks have expired.
            cluster.sleep(11 * SECOND).await;
            let txn = begin(&client).await;
            for at in 0..1000 {
                txn.delete(format!("b{at:04}")).await.unwrap();
                txn.delete(format!("y{at:04}")).await.unwrap();
            }
            txn.commit().await.unwrap();
            client.finish().await;
        });
        assert!(cluster.take_log("resolve").len() <= 4);
        assert_eq!(locks(&cluster), 0);
    }
}

#[test]
fn a_client_that_finishes_leaves_no_lock_of_what_it_committed() {
    for (async_commits, left) in [(false, 1), (true, 2)] {
        let cluster = Cluster::with_seed(1);
        cluster.change(|state| state.async_commits = async_commits);
        let client = cluster.client();
        cluster.run(async {
            let txn = begin(&client).await;
            txn.put("a", "1").await.unwrap();
            txn.put("z", "1").await.unwrap();
            txn.commit().await.unwrap();
            assert_eq!(locks(&cluster), left, "the decision was answered before the rest");
            client.finish().await;
            assert_eq!(locks(&cluster), 0);
        });
    }
}

#[test]
fn what_was_read_is_still_so_below_the_commit_of_whoever_has_locked_it() {
    let cluster = Cluster::with_seed(1);
    let client = cluster.client();
    cluster.run(async {
        client.put("n", "old").await.unwrap();
        let older = begin(&client).await;
        let txn = begin(&client).await;
        txn.get("n").await.unwrap();
        txn.put("a", "1").await.unwrap();
        // The locks of `older` stand, and its client is silent for a while.
        older.get("a").await.unwrap();
        for key in ["n", "z", "A"] {
            older.put(key, "new").await.unwrap();
        }
        cluster.lose("validate");
        let recover = async {
            cluster.sleep(SECOND / 10).await;
            cluster.change(|state| state.kinds_lost.clear());
            let before = cluster.clock.now();
            let commit_ts = txn.commit().await.unwrap();
            assert!(cluster.clock.now() - before < SECOND / 10);
            commit_ts
        };
        let (outcome, commit_ts) = join(older.commit(), recover).await;
        // `older` read a key that `txn` wrote, but must commit after `txn`, which read a key that
        // `older` writes.
        assert!(matches!(outcome, Err(Error::WriteConflict { .. })), "{outcome:?}");
        assert_eq!(client.get("a").await.unwrap().unwrap().mod_ts, commit_ts);
    });
}

#[test]
fn locks_that_a_client_left_behind_a_decision_are_cleared_by_the_range() {
    let cluster = Cluster::with_seed(1);
    leave_locks(&cluster, true);
    let client = cluster.client().with_timeout(20 * SECOND);
    cluster.take_log("");
    cluster.run(async {
        for at in 0..1000 {
            let row = client.get(format!("y{at:04}")).await.unwrap();
            assert_eq!(&row.unwrap().value[..], b"1");
        }
    });
    assert!(cluster.take_log("resolve").len() <= 5);
    assert_eq!(locks(&cluster), 0);
    assert_eq!(client.metrics().resolved_locks, 1000);
}

/// A range reads a bounded number of records for one request, and says where to go on.
#[test]
fn what_was_read_is_validated_step_by_step_to_its_end() {
    for key in ["b", "d", "f", "x"] {
        let cluster = Cluster::with_seed(1);
        let client = cluster.client();
        cluster.fill(["b", "d", "f", "x"].map(str::to_owned));
        cluster.change(|state| state.bounded = true);
        let commit = |disturbed: bool| {
            let (cluster, client) = (cluster.clone(), client.clone());
            cluster.clone().run(async move {
                let txn = client.begin(TransactionOptions::default()).await.unwrap();
                for read in ["b", "d", "f", "x"] {
                    txn.get(read).await.unwrap();
                }
                for write in ["c", "z"] {
                    txn.put(write, "1").await.unwrap();
                }
                if disturbed {
                    client.put(key, "changed").await.unwrap();
                }
                txn.commit().await
            })
        };
        cluster.take_log("");
        commit(false).unwrap();
        assert_eq!(
            cluster.take_log("validate").len(),
            4,
            "three keys in one range, one in another"
        );
        let error = commit(true).unwrap_err();
        assert!(matches!(error, Error::WriteConflict { .. }), "{key}: {error}");
    }
}
