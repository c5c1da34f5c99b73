//! Transfers between accounts in four ranges while nodes are killed with -9 and started again.
//! Every total that is read meanwhile is exact, and so is each account at the end.
//!
//! A fifth range takes part without accounts: every transaction asks the control range for its
//! timestamps. The leader of that range is killed as the others are.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rangedb_client::Client;
use rangedb_workload::bank::{Bank, Settings};
use tokio::task::JoinSet;

use crate::support::cluster::Cluster;
use crate::support::wait::{SOON, check, until};

const WORKERS: u64 = 16;

/// Split keys that cut the accounts below each founding range of users in two.
const SPLIT_KEYS: &str = "/bank/2,bank/2";

/// Prefixes of accounts, one for each range.
const PREFIXES: [&str; 4] = ["/bank/1/", "/bank/2/", "bank/1/", "bank/2/"];

/// Number of transfers between a kill and the next step.
const TRANSFERS_BETWEEN: usize = 20;

/// Makes transfers until it is stopped. An error does not end it: the bank records every step.
async fn work(bank: Bank, client: Client, worker: u64, stop: Arc<AtomicBool>) {
    let mut rng = Rng::with_seed(worker);
    while !stop.load(Ordering::Relaxed) {
        bank.step(&client, &mut rng).await;
    }
}

async fn transferred(bank: &Bank, more: usize) {
    let wanted = bank.transferred() + more;
    until("money is moved", SOON, async || {
        let now = bank.transferred();
        check(now >= wanted, format!("{now} of {wanted} transfers"))
    })
    .await;
}

/// Kills one node after the other, at random, until the time is up and every node has been killed.
/// Returns the number of kills.
async fn kill_at_random(cluster: &mut Cluster, bank: &Bank, lasts: Duration) -> usize {
    let begin = Instant::now();
    let mut rng = Rng::with_seed(7);
    let mut spared: BTreeSet<usize> = (0..cluster.nodes.len()).collect();
    let mut kills = 0;
    while begin.elapsed() < lasts || !spared.is_empty() {
        let victim = rng.usize(0..cluster.nodes.len());
        transferred(bank, TRANSFERS_BETWEEN).await;
        cluster.nodes[victim].kill();
        // Half of the killed nodes come back before another leader is elected.
        if rng.bool() {
            transferred(bank, TRANSFERS_BETWEEN).await;
        }
        cluster.nodes[victim].start();
        cluster.nodes[victim].ready().await;
        spared.remove(&victim);
        kills += 1;
    }
    kills
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_over_ranges_is_exact_at_every_moment_while_nodes_die() {
    let lasts = Duration::from_secs(crate::repeats(0, 120) as u64);
    let mut cluster = Cluster::of(3).await.with_flags(["--split-keys", SPLIT_KEYS]).start().await;
    assert_eq!(cluster.ranges_of(&PREFIXES).await.len(), PREFIXES.len());
    let prefixes = PREFIXES.map(str::to_owned).to_vec();
    let bank = Bank::new(Settings { prefixes, accounts: 100, ..Settings::default() });
    let client = cluster.client();
    assert!(bank.open(&client).await);
    let stop = Arc::new(AtomicBool::new(false));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let client = cluster.client_of(worker as usize % 3);
        workers.spawn(work(bank.clone(), client, worker, stop.clone()));
    }
    let kills = kill_at_random(&mut cluster, &bank, lasts).await;
    stop.store(true, Ordering::Relaxed);
    workers.join_all().await;
    assert!(bank.read_end(&client).await, "the end cannot be read");
    assert_eq!(bank.surprises(), [] as [String; 0]);
    let summary = bank.check().unwrap_or_else(|problems| panic!("{}", problems.join("\n")));
    assert!(summary.totals > 0, "nobody read a total");
    // Shown to people who run the long version.
    let _ = writeln!(std::io::stderr(), "{kills} kills, {summary:?}");
}
