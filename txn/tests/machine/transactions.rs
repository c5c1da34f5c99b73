//! Transactions over two ranges, by naive coordinators whose steps interleave at random. Requests
//! and replies get lost, come twice, or come late; machines restart and crash; garbage is
//! collected.
//!
//! At the end all locks are resolved, and the transactions must explain what is stored:
//!
//! - each transaction is stored whole or not at all, as its client was told;
//! - each read at a timestamp saw what was committed up to it;
//! - no update was lost;
//! - each serializable transaction read what it would have read alone at its commit timestamp.

mod cluster;
mod coordinator;
mod history;
mod plan;
mod resolver;

use cluster::Cluster;
use coordinator::Coordinator;
use history::History;

/// Transactions in flight at once.
const CLIENTS: usize = 5;

#[test]
fn transactions_over_two_ranges_are_atomic_and_serializable() {
    let mut seen = history::Counts::default();
    for seed in 0..200 {
        seen += run(seed);
    }
    // A run in which nothing happens proves nothing.
    seen.assert_each_at_least(100);
}

fn run(seed: u64) -> history::Counts {
    let mut cluster = Cluster::new(seed);
    let mut clients: Vec<Coordinator> = Vec::new();
    let mut done = Vec::new();
    for _ in 0..1500 {
        cluster.pass_time();
        while clients.len() < CLIENTS {
            clients.push(Coordinator::begin(&mut cluster));
        }
        let place = cluster.rng.usize(0..CLIENTS);
        if clients[place].step(&mut cluster) {
            done.push(clients.swap_remove(place).into_record());
        }
    }
    done.extend(clients.into_iter().map(Coordinator::into_record));
    cluster.settle();
    cluster.check_replicas();
    History::new(seed, cluster, done).check()
}
