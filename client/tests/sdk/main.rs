//! The client against a cluster in memory, in virtual time (`fake`).

mod anomalies;
mod async_commit;
mod batches;
mod contention;
mod crashes;
mod delete_ranges;
mod fake;
mod floor;
mod lock_waits;
mod routing;
mod savepoints;
mod scans;
mod slow;
mod suspended;
mod timestamps;
mod too_old;
mod transactions;
mod turns;
