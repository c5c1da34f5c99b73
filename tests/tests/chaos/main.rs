//! Chaos: tests of real processes under faults. Nodes are killed, frozen and restarted. Every link
//! between nodes, and between nodes and clients, may be cut, slowed down or blocked in one
//! direction. Meanwhile clients of all workloads run (`rangedb-workload`). Afterwards all faults
//! end, the cluster must make progress, and checkers judge what the clients saw. See
//! `docs/chaos.md`.
//!
//! `make test` has short rounds. `make chaos` sets `RANGEDB_CHAOS_MINUTES` and runs one round after
//! the other, or sets `RANGEDB_CHAOS_SEED` for one round. `RANGEDB_CHAOS_NODES` gives the number of
//! nodes.

mod faults;
mod link;
mod load;
mod network;
mod round;
mod source;
#[allow(dead_code, reason = "shared with the tests of clusters, which use all of it")]
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::time::{Duration, Instant};

use round::{Round, say};

/// Duration of the faults in a round of `make test` and in one of `make chaos`: long enough for a
/// few elections, short enough that the story of a failure is short.
const SHORT: Duration = Duration::from_secs(8);
const LONG: Duration = Duration::from_secs(40);

/// One cluster at a time: two would take the processor from each other.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn setting(name: &str) -> Option<u64> {
    let text =
        std::env::var(format!("RANGEDB_CHAOS_{name}")).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("RANGEDB_CHAOS_{name} is a number")))
}

async fn short_round(seed: u64, nodes: usize) {
    let _alone = ONE_AT_A_TIME.lock().await;
    let verdict = round::run(seed, nodes, SHORT).await.verdict;
    // A round in which nothing happened shows nothing.
    assert!(verdict.list.committed > 20, "{verdict:?}");
    assert!(verdict.bank.transferred > 20, "{verdict:?}");
    assert!(verdict.registers.known > 20, "{verdict:?}");
    // A history that the checker could not decide shows nothing either. In so short a round the
    // search always finishes.
    assert_eq!(verdict.registers.undecided, 0, "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_under_fire_keep_their_promises() {
    if setting("MINUTES").is_none() && setting("SEED").is_none() {
        short_round(1, 3).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_nodes_under_fire_keep_their_promises() {
    if setting("MINUTES").is_none() && setting("SEED").is_none() {
        short_round(2, 5).await;
    }
}

/// Does nothing unless `RANGEDB_CHAOS_MINUTES` or `RANGEDB_CHAOS_SEED` is set.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_under_fire_for_as_long_as_asked() {
    let (minutes, wanted) = (setting("MINUTES"), setting("SEED"));
    if minutes.is_none() && wanted.is_none() {
        return;
    }
    let _alone = ONE_AT_A_TIME.lock().await;
    let until = Instant::now() + Duration::from_secs(60 * minutes.unwrap_or(0));
    let first = wanted.unwrap_or_else(|| fastrand::u64(..1 << 32));
    for seed in first.. {
        let nodes = setting("NODES").map_or(if seed % 2 == 1 { 3 } else { 5 }, |n| n as usize);
        let began = Instant::now();
        let Round { kinds, episodes, verdict } = round::run(seed, nodes, LONG).await;
        let took = began.elapsed();
        say(&format!(
            "seed {seed}, {nodes} nodes, {took:.0?}, {episodes} times {kinds:?}: {verdict:?}"
        ));
        if Instant::now() >= until {
            return;
        }
    }
}
