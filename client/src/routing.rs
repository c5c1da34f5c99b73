//! Routing of requests to the nodes that can answer them, with all retries.
//!
//! `router.rs` caches the range of a key and the range's leader. `sender.rs` sends a request to
//! that leader, or to any node (`endpoints.rs`), and updates the cache from the response.
//! `retry.rs` decides the next step after a failed attempt. `backoff.rs` and `leader_probe.rs`
//! bound the waits.

pub(crate) mod backoff;
mod endpoints;
mod leader_probe;
pub(crate) mod retry;
pub(crate) mod router;
pub(crate) mod sender;
