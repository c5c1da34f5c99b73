//! Real processes on loopback: nodes are started, killed with -9, stopped in the middle of what they
//! do, damaged and started again, and must keep what they acknowledged. One file for each topic.
//!
//! `RANGEDB_LONG=1` repeats what depends on timing more often.

mod anomalies;
mod bad_directories;
mod bad_requests;
mod bad_settings;
mod bank;
mod catching_up;
mod cli_transactions;
mod connections;
mod dead_clients;
mod durability;
mod failover;
mod formation;
mod full_disk;
mod garbage;
mod heavy_reads;
mod large_transactions;
mod lock_waits;
mod membership;
mod memory_limit;
mod named_timestamps;
mod observing;
mod quickstart;
mod readme;
mod repl;
mod scans;
mod stale_reads;
mod stopping;
mod strangers;
#[path = "../support/mod.rs"]
mod support;
mod transactions;

/// How often to repeat what depends on timing.
fn repeats(usually: usize, long: usize) -> usize {
    match std::env::var_os("RANGEDB_LONG") {
        Some(_) => long,
        None => usually,
    }
}
