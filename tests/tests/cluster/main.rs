//! Real processes on loopback. Nodes are started, killed with -9, stopped in the middle of their
//! work, damaged and started again. They must keep what they acknowledged. One file for each topic.
//!
//! `RANGEDB_LONG=1` gives more repetitions to tests that depend on timing.

mod anomalies;
mod bad_directories;
mod bad_night;
mod bad_requests;
mod bad_settings;
mod balance;
mod bank;
mod catching_up;
mod cli_transactions;
mod connections;
mod dead_clients;
mod delete_ranges;
mod durability;
mod failover;
mod formation;
mod full_disk;
mod garbage;
mod heavy_reads;
mod hostile_requests;
mod hung_disk;
mod joining;
mod large_transactions;
mod listeners;
mod lock_waits;
mod lost_logs;
mod membership;
mod memory_limit;
mod moving;
mod named_timestamps;
mod observing;
mod quarantine;
mod quickstart;
mod readme;
mod repl;
mod replacing;
mod reused_timestamps;
mod scans;
mod stale_reads;
mod stopping;
mod strangers;
#[path = "../support/mod.rs"]
mod support;
mod transactions;
mod wrong_clocks;

/// Returns the number of repetitions of a test that depends on timing.
fn repeats(usually: usize, long: usize) -> usize {
    match std::env::var_os("RANGEDB_LONG") {
        Some(_) => long,
        None => usually,
    }
}
