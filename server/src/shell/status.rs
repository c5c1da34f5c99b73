//! The status address: metrics, health and readiness by plain HTTP, never any data.

use std::fmt::Write;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use rangedb_raftstore::RangeStatus;

use crate::node::Node;
use crate::shell::bootstrap::Bootstrap;
use crate::shell::driver::Liveness;
use crate::shell::log_writer::Backlog;
use crate::shell::metrics::Metrics;
use crate::shell::service::ServiceState;
use crate::status_board::StatusBoard;

/// Time without a sign of life after which a store's thread counts as stuck, in a slow disk most
/// likely.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// Maximum number of ranges that a reason names.
const RANGES_NAMED_MAX: usize = 8;

/// Sources of the status pages.
pub(crate) struct Status {
    pub bootstrap: Arc<Bootstrap>,
    pub front: Arc<ServiceState>,
    pub metrics: Arc<Metrics>,
    pub stores: OnceLock<Stores>,
}

/// Parts of the node that the pages show, set once it is part of a cluster.
pub(crate) struct Stores {
    pub node: Arc<Node>,
    pub board: Arc<StatusBoard>,
    pub pulses: Vec<Arc<Liveness>>,
    pub log_backlog: Backlog,
    pub cluster_id: u64,
    pub node_id: u64,
}

impl Status {
    /// Returns the reason why the node should get no requests now: it does not answer, or it lacks
    /// replicas that it should hold.
    pub fn not_ready(&self) -> Option<String> {
        if self.front.is_stopping() {
            return Some("the node is stopping".to_owned());
        }
        let Some(stores) = self.stores.get() else {
            return Some(format!("not part of a cluster: {}", self.bootstrap.progress()));
        };
        let reason = stores.stuck().or_else(|| without_leader(&stores.board.ranges()));
        reason.or_else(|| stores.node.not_ready())
    }
}

impl Stores {
    /// Returns the reason why the stores make no progress.
    pub fn stuck(&self) -> Option<String> {
        if let Some(shard) = self.pulses.iter().position(|pulse| pulse.age() > STUCK_AFTER) {
            return Some(format!("store {shard} has stood still for {STUCK_AFTER:?}"));
        }
        let stalled_for = self.log_backlog.is_stalled().then(|| self.log_backlog.stalled_for())?;
        Some(format!("log writes have not completed for {stalled_for:.1?}"))
    }
}

/// Names the ranges without a leader. A leader that loses its quorum steps down. So a replica that
/// knows no leader has no quorum, or is in an election. A quarantined replica is left out: it may
/// have no leader until an operator acts, and the node serves its other ranges meanwhile.
fn without_leader(ranges: &[RangeStatus]) -> Option<String> {
    let alone: Vec<u64> = ranges
        .iter()
        .filter(|status| status.leader_replica_id == 0 && status.quarantine.is_none())
        .map(|status| status.descriptor.range_id)
        .collect();
    if alone.is_empty() {
        return None;
    }
    let named: Vec<String> = alone.iter().take(RANGES_NAMED_MAX).map(u64::to_string).collect();
    let more = if alone.len() > named.len() { " and others" } else { "" };
    let (count, total) = (alone.len(), ranges.len());
    Some(format!("no leader for {count} of {total} ranges: {}{more}", named.join(", ")))
}

pub(crate) fn router(status: Arc<Status>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(status)
}

async fn index(State(status): State<Arc<Status>>) -> String {
    let mut page = format!("rangedb {}\n", env!("CARGO_PKG_VERSION"));
    if let Some(stores) = status.stores.get() {
        let (cluster_id, node_id) = (stores.cluster_id, stores.node_id);
        // Writing to a string cannot fail.
        let _ = writeln!(page, "cluster {cluster_id:016x}, node {node_id}");
    }
    let ready = status.not_ready().unwrap_or_else(|| "ready".to_owned());
    let _ = writeln!(page, "{ready}\n\n/metrics\n/healthz\n/readyz");
    page
}

async fn readyz(State(status): State<Arc<Status>>) -> (StatusCode, String) {
    match status.not_ready() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn metrics(State(status): State<Arc<Status>>) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, status.metrics.render())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rangedb_proto::v1::{RangeDescriptor, Replica};
    use rangedb_raftstore::{Quarantine, QuarantineCause};

    use super::*;

    fn range(range_id: u64, leader_replica_id: u64) -> RangeStatus {
        RangeStatus {
            replica: Replica::default(),
            descriptor: Arc::new(RangeDescriptor { range_id, ..Default::default() }),
            term: 1,
            leader_replica_id,
            leads: false,
            fenced: false,
            applied_index: 0,
            applied_term: 0,
            size: Default::default(),
            commit_index: 0,
            last_index: 0,
            truncated_index: 0,
            log_entries: 0,
            sends_snapshot: false,
            quarantine: None,
        }
    }

    #[test]
    fn a_replica_without_a_leader_makes_the_node_unready_and_is_named() {
        assert_eq!(without_leader(&[range(1, 2), range(2, 1)]), None);
        let reason = without_leader(&[range(1, 2), range(2, 0)]).unwrap();
        assert_eq!(reason, "no leader for 1 of 2 ranges: 2");
        let (index, reason) = (7, "unknown".to_owned());
        let standing = Quarantine { cause: QuarantineCause::Entry, index, reason };
        let standing = RangeStatus { quarantine: Some(standing), ..range(2, 0) };
        assert_eq!(without_leader(&[range(1, 2), standing]), None);
    }
}
