//! The stories. Each returns true if its anomaly showed, and asserts what must hold under every
//! level.
//!
//! Where locks are taken ahead, a story repeats a refused step after the transaction that held the
//! lock has ended. The repeated step succeeds, unless the level forbids writing over the commit of
//! that transaction.
//!
//! If the transaction that commits last reads nothing, it must begin first. Otherwise the first
//! commit may get a timestamp below the start of the last transaction, as long as that one has read
//! nothing. The two would then not conflict.

use futures::FutureExt;
use futures::future::LocalBoxFuture;

use super::stage::Key::{self, Fourth, Third, X, Y};
use super::stage::Stage;

type Tell = for<'a> fn(&'a Stage) -> LocalBoxFuture<'a, bool>;

/// The stories, with their names in the document.
pub const STORIES: &[(&str, Tell)] = &[
    ("G0, dirty write", |stage| dirty_write(stage).boxed_local()),
    ("G1a, aborted read", |stage| aborted_read(stage).boxed_local()),
    ("G1b, intermediate read", |stage| intermediate_read(stage).boxed_local()),
    ("G1c, circular information flow", |stage| circular_flow(stage).boxed_local()),
    ("OTV, observed transaction vanishes", |stage| observed_vanishes(stage).boxed_local()),
    ("PMP, predicate with many preceders", |stage| many_preceders(stage).boxed_local()),
    ("PMP of a write", |stage| many_preceders_of_a_write(stage).boxed_local()),
    ("P4, lost update", |stage| lost_update(stage).boxed_local()),
    ("P4 after a plain read", |stage| lost_update_after_a_plain_read(stage).boxed_local()),
    ("G-single, read skew", |stage| read_skew(stage).boxed_local()),
    ("G-single of a predicate", |stage| predicate_read_skew(stage).boxed_local()),
    ("G-single of a write", |stage| write_after_read_skew(stage).boxed_local()),
    ("G-single of a write that is undone", |stage| undone_write(stage).boxed_local()),
    ("G2-item, write skew", |stage| write_skew(stage).boxed_local()),
    ("G2, write skew of a predicate", |stage| predicate_write_skew(stage).boxed_local()),
    ("G2 with two edges", |stage| two_edges(stage).boxed_local()),
];

/// Two transactions write the same two keys in turn. Seen: one key from each.
async fn dirty_write(stage: &Stage) -> bool {
    let (two, one) = (stage.begin(1).await, stage.begin(0).await);
    assert!(one.put(X, 11).await);
    let waits = !two.put(X, 12).await;
    assert!(one.put(Y, 21).await);
    assert!(one.commit().await);
    let both = (!waits || two.put(X, 12).await) && two.put(Y, 22).await && two.commit().await;
    stage.values().await[..2] != if both { [Some(12), Some(22)] } else { [Some(11), Some(21)] }
}

/// One transaction reads what another wrote and rolled back.
async fn aborted_read(stage: &Stage) -> bool {
    let (one, two) = (stage.begin(0).await, stage.begin(1).await);
    assert!(one.put(X, 101).await);
    assert!(one.put(Y, 102).await);
    let before = two.rows(|_| true).await;
    one.rollback().await;
    let after = two.rows(|_| true).await;
    assert!(two.commit().await);
    before != [(X, 10), (Y, 20)] || after != before || stage.values().await[0] != Some(10)
}

/// One transaction reads what another wrote and then overwrote.
async fn intermediate_read(stage: &Stage) -> bool {
    let (one, two) = (stage.begin(0).await, stage.begin(1).await);
    assert!(one.put(X, 101).await);
    let during = two.get(X).await;
    assert!(one.put(X, 11).await);
    assert!(one.put(Y, 21).await);
    assert!(one.commit().await);
    let after = two.get(X).await;
    assert!(two.commit().await);
    assert_eq!(stage.values().await[..2], [Some(11), Some(21)]);
    during != Some(10) || after != Some(10)
}

/// Each transaction reads what the other has written and not committed.
async fn circular_flow(stage: &Stage) -> bool {
    let (one, two) = (stage.begin(0).await, stage.begin(1).await);
    assert!(one.put(X, 11).await);
    assert!(two.put(Y, 22).await);
    let read_by_one = one.get(Y).await;
    let read_by_two = two.get(X).await;
    assert!(one.commit().await);
    two.commit().await;
    read_by_one != Some(20) || read_by_two != Some(10)
}

/// A third transaction sees what the first wrote, and then the second's overwrite of it.
async fn observed_vanishes(stage: &Stage) -> bool {
    let (two, one) = (stage.begin(1).await, stage.begin(0).await);
    assert!(one.put(X, 11).await);
    assert!(one.put(Y, 19).await);
    let waits = !two.put(X, 12).await;
    assert!(one.commit().await);
    let three = stage.begin(2).await;
    let mut seen = vec![three.get(X).await];
    let goes_on = (!waits || two.put(X, 12).await) && two.put(Y, 18).await;
    seen.push(three.get(Y).await);
    if goes_on {
        two.commit().await;
    }
    seen.extend([three.get(Y).await, three.get(X).await]);
    assert!(three.commit().await);
    seen != [Some(11), Some(19), Some(19), Some(11)]
}

/// A predicate that matched no row matches a row that another transaction has added since.
async fn many_preceders(stage: &Stage) -> bool {
    let (one, two) = (stage.begin(0).await, stage.begin(1).await);
    assert_eq!(one.rows(|value| value == 30).await, []);
    assert!(two.put(Third, 30).await);
    assert!(two.put(Fourth, 60).await);
    assert!(two.commit().await);
    let found = one.rows(|value| value % 3 == 0).await;
    assert!(one.commit().await);
    !found.is_empty()
}

/// One adds 10 to all rows, another deletes the rows that had 20. Seen: rows at the end that differ
/// from those of the first.
async fn many_preceders_of_a_write(stage: &Stage) -> bool {
    let (one, two) = (stage.begin(0).await, stage.begin(1).await);
    for (key, value) in one.rows(|_| true).await {
        assert_eq!(one.get_to_write(key).await, Some(value));
        assert!(one.put(key, value + 10).await);
    }
    let mut found = two.rows(|value| value == 20).await;
    assert_eq!(found, [(Y, 20)]);
    if two.get_to_write(Y).await.is_none() {
        assert!(one.commit().await);
        // A read with the lock sees the newest value.
        found = two
            .get_to_write(Y)
            .await
            .filter(|value| *value == 20)
            .map(|v| (Y, v))
            .into_iter()
            .collect();
        assert_eq!(found, []);
    } else {
        assert!(one.commit().await);
    }
    for (key, _) in found {
        assert!(two.delete(key).await);
    }
    two.commit().await;
    stage.values().await[..2] != [Some(20), Some(30)]
}

/// Two transactions read a key, and each writes a value that it computes from the read.
async fn lost_update(stage: &Stage) -> bool {
    let (one, two) = (stage.begin(0).await, stage.begin(1).await);
    let read_by_one = one.get_to_write(X).await.expect("nobody else has it");
    let read_by_two = two.get_to_write(X).await;
    assert!(one.put(X, read_by_one + 1).await);
    assert!(one.put(Y, 21).await);
    assert!(one.commit().await);
    // If the second had to wait, it now reads the value that the first wrote.
    let read_by_two = match read_by_two {
        Some(value) => value,
        None => two.get_to_write(X).await.expect("it is free"),
    };
    assert!(two.put(X, read_by_two + 1).await);
    assert!(two.put(Fourth, 22).await);
    let added = if two.commit().await { 2 } else { 1 };
    stage.values().await[0] != Some(10 + added)
}

/// As before, but the written value comes from a read without a lock.
async fn lost_update_after_a_plain_read(stage: &Stage) -> bool {
    let (one, two) = (stage.begin(0).await, stage.begin(1).await);
    for txn in [&one, &two] {
        assert_eq!(txn.get(X).await, Some(10));
    }
    assert!(one.put(X, 11).await);
    assert!(one.put(Y, 21).await);
    assert!(one.commit().await);
    if !two.put(X, 11).await || !two.put(Y, 22).await {
        two.rollback().await;
        return stage.values().await[..2] != [Some(11), Some(21)];
    }
    two.commit().await
}

/// One reads a key before and another key after a second transaction's commit of both.
async fn read_skew(stage: &Stage) -> bool {
    let (one, two) = (stage.begin(0).await, stage.begin(1).await);
    let x = one.get(X).await;
    assert_eq!(two.rows(|_| true).await, [(X, 10), (Y, 20)]);
    assert!(two.put(X, 12).await);
    assert!(two.put(Y, 18).await);
    assert!(two.commit().await);
    let y = one.get(Y).await;
    assert!(one.commit().await);
    (x, y) != (Some(10), Some(20))
}

/// As before, and the second read is of a predicate.
async fn predicate_read_skew(stage: &Stage) -> bool {
    let (one, two) = (stage.begin(0).await, stage.begin(1).await);
    assert_eq!(one.rows(|value| value % 5 == 0).await, [(X, 10), (Y, 20)]);
    assert_eq!(two.get_to_write(X).await, Some(10));
    assert!(two.put(X, 12).await);
    assert!(two.put(Third, 33).await);
    assert!(two.commit().await);
    let found = one.rows(|value| value % 3 == 0).await;
    assert!(one.commit().await);
    !found.is_empty()
}

/// One reads a key, another changes two keys, and the first deletes rows by their old values.
async fn write_after_read_skew(stage: &Stage) -> bool {
    let (one, two) = (stage.begin(0).await, stage.begin(1).await);
    assert_eq!(one.get(X).await, Some(10));
    assert_eq!(two.rows(|_| true).await, [(X, 10), (Y, 20)]);
    assert!(two.put(X, 12).await);
    assert!(two.put(Y, 18).await);
    assert!(two.commit().await);
    for (key, _) in one.rows(|value| value == 20).await {
        if one.get_to_write(key).await == Some(20) {
            assert!(one.delete(key).await);
        }
    }
    one.commit().await;
    stage.values().await[..2] != [Some(12), Some(18)]
}

/// One deletes a row that another changes, and rolls back. The other may then go on.
async fn undone_write(stage: &Stage) -> bool {
    let (one, two) = (stage.begin(0).await, stage.begin(1).await);
    assert_eq!(one.get(X).await, Some(10));
    assert_eq!(two.rows(|_| true).await, [(X, 10), (Y, 20)]);
    assert!(two.put(X, 12).await);
    assert_eq!(one.rows(|value| value == 20).await, [(Y, 20)]);
    assert!(one.delete(Y).await);
    let waits = !two.put(Y, 18).await;
    one.rollback().await;
    if waits {
        assert!(two.put(Y, 18).await);
    }
    assert!(two.commit().await);
    stage.values().await[..2] != [Some(12), Some(18)]
}

/// Both read two keys, and each writes a different one of them.
async fn write_skew(stage: &Stage) -> bool {
    let (one, two) = (stage.begin(0).await, stage.begin(1).await);
    for key in [X, Y] {
        assert!(one.get_to_write(key).await.is_some());
    }
    let mut waits = false;
    for key in [X, Y] {
        waits |= two.get_to_write(key).await.is_none();
    }
    assert!(one.put(X, 11).await);
    assert!(one.commit().await);
    if waits {
        assert_eq!(two.get_to_write(X).await, Some(11));
        two.rollback().await;
        return false;
    }
    assert!(two.put(Y, 21).await);
    two.commit().await
}

/// Both read a predicate that matches no row, and each adds a row that matches. There is no lock on
/// a span.
async fn predicate_write_skew(stage: &Stage) -> bool {
    let (one, two) = (stage.begin(0).await, stage.begin(1).await);
    for txn in [&one, &two] {
        assert_eq!(txn.rows(|value| value % 3 == 0).await, []);
    }
    assert!(one.put(Third, 30).await);
    assert!(two.put(Fourth, 42).await);
    assert!(one.commit().await);
    two.commit().await && count(stage, [Third, Fourth]).await == 2
}

/// The first reads all rows, and the second commits a write after that. A third sees the second's
/// write but not the first's, which commits afterwards.
async fn two_edges(stage: &Stage) -> bool {
    let (one, two) = (stage.begin(0).await, stage.begin(1).await);
    assert_eq!(one.rows(|_| true).await, [(X, 10), (Y, 20)]);
    assert_eq!(two.get_to_write(Y).await, Some(20));
    assert!(two.put(Y, 25).await);
    assert!(two.put(Fourth, 1).await);
    assert!(two.commit().await);
    let three = stage.begin(2).await;
    assert_eq!(three.rows(|_| true).await, [(X, 10), (Y, 25), (Fourth, 1)]);
    assert!(three.commit().await);
    assert!(one.put(X, 0).await);
    one.commit().await && stage.values().await[..2] == [Some(0), Some(25)]
}

/// Returns the number of these keys that have a value.
async fn count(stage: &Stage, keys: [Key; 2]) -> usize {
    let values = stage.values().await;
    keys.into_iter().filter(|key| values[*key as usize].is_some()).count()
}
