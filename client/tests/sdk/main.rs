//! The client against a cluster in memory, in virtual time (`fake`).

mod batches;
mod fake;
mod routing;
mod scans;
mod timestamps;
