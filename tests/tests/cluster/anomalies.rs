//! Isolation anomalies between concurrent transactions, in the manner of
//! [Hermitage](https://github.com/ept/hermitage). For each named anomaly, a story tries to provoke
//! it: two or three transactions take their steps in one fixed order, through three real nodes.
//!
//! Each story runs in four ways: at two levels of isolation, with and without locks taken ahead.
//! Each way runs twice: with keys in two ranges, so that the commit has two phases, and with keys
//! in one range, so that the commit is one command. The test reads the table in
//! docs/transactions.md. Over two ranges, every outcome must be exactly the one in the table. In
//! one range, the same anomalies must be possible.
//!
//! `stage.rs` has the transactions and their keys, `stories.rs` the stories.

mod stage;
mod stories;

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use rangedb_client::Isolation;

use crate::support::cluster::Cluster;
use stage::{Outcome, Placement, Stage, Way};
use stories::STORIES;

/// The columns of the table, from the second one on.
const WAYS: [Way; 4] = [
    Way { isolation: Isolation::Serializable, locking: false },
    Way { isolation: Isolation::Snapshot, locking: false },
    Way { isolation: Isolation::Serializable, locking: true },
    Way { isolation: Isolation::Snapshot, locking: true },
];

/// Number of stories that run at the same time. They share nothing but the nodes, and most of them
/// wait for a lock at some time.
const AT_ONCE: usize = 16;

const DOCUMENT: &str = include_str!("../../../docs/transactions.md");

/// Head of the table.
const TABLE_HEAD: &str =
    "| anomaly | serializable | snapshot | serializable, locking | snapshot, locking |";

/// Returns the documented outcomes of each anomaly, in the order of [`WAYS`].
fn documented() -> BTreeMap<&'static str, Vec<&'static str>> {
    let (_, below) = DOCUMENT.split_once(TABLE_HEAD).expect("the document has the table");
    let rows = below.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect());
    cells.map(|cells: Vec<_>| (cells[0], cells[1..].to_vec())).collect()
}

/// Runs every story. Returns each outcome, with the story's name and the index of its way.
async fn told(cluster: &Cluster, placement: Placement) -> Vec<(&'static str, usize, Outcome)> {
    let clients = [cluster.client_of(0), cluster.client_of(1), cluster.client_of(2)];
    let telling = STORIES.iter().enumerate().flat_map(|(number, (name, tell))| {
        let clients = clients.clone();
        WAYS.into_iter().enumerate().map(move |(column, way)| {
            let table = format!("{placement:?}-{number}-{column}");
            let stage = Stage::new(clients.clone(), way, placement, &table);
            async move {
                stage.prepare().await;
                let seen = tell(&stage).await;
                (*name, column, stage.outcome(seen))
            }
        })
    });
    let telling: Vec<_> = telling.collect();
    stream::iter(telling).buffered(AT_ONCE).collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn anomalies_over_ranges_happen_where_the_documents_say_so_and_nowhere_else() {
    let cluster = Cluster::started(3).await;
    let documented = documented();
    let mut wrong = Vec::new();
    for (name, column, outcome) in told(&cluster, Placement::TwoRanges).await {
        let said = documented.get(name).and_then(|row| row.get(column)).copied();
        if said != Some(&outcome.to_string()) {
            wrong.push(format!("{name}, {}: {outcome}, documented as {said:?}", WAYS[column]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn anomalies_in_one_range_are_possible_where_they_are_over_ranges() {
    let cluster = Cluster::started(3).await;
    let documented = documented();
    let mut wrong = Vec::new();
    for (name, column, outcome) in told(&cluster, Placement::OneRange).await {
        // The error that prevents an anomaly may differ. Example: a blind write of a key that
        // another transaction wrote meanwhile has no reason to fail if the commit is one command.
        let said = documented[name][column];
        if (said == Outcome::Possible.to_string()) != (outcome == Outcome::Possible) {
            wrong.push(format!("{name}, {}: {outcome}, documented as {said}", WAYS[column]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_write_skew_is_possible_and_only_under_snapshot() {
    let possible = Outcome::Possible.to_string();
    for (name, row) in documented() {
        let is_skew = name.starts_with("G2");
        assert_eq!(row.len(), WAYS.len(), "{name}");
        for (said, way) in row.iter().zip(WAYS) {
            let may = is_skew && way.isolation == Isolation::Snapshot;
            assert!(may || *said != possible, "{name} is possible under {way}");
        }
        assert!(!is_skew || row[1] == possible, "{name} is what snapshot is weaker by");
    }
}

#[test]
fn every_story_has_its_row_in_the_document_and_every_row_its_story() {
    let told: Vec<&str> = STORIES.iter().map(|(name, _)| *name).collect();
    let mut sorted = told.clone();
    sorted.sort_unstable();
    assert_eq!(documented().into_keys().collect::<Vec<_>>(), sorted);
}
