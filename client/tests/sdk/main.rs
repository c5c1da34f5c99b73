//! The client against a cluster in memory, in virtual time (`fake`).

mod anomalies;
mod batches;
mod crashes;
mod fake;
mod routing;
mod scans;
mod suspended;
mod timestamps;
mod transactions;
