//! Heartbeats to the control plane, and the work that its replies ask for.

use std::sync::Arc;
use std::time::Duration;

use rangedb_proto::v1::{
    Heartbeat, HeartbeatReply, NodeStats, RangeOperation, RangeReport, error::Kind, request,
    response,
};
use rangedb_proto::{RangeId, Timestamp};
use rangedb_raftstore::Event;

use super::Node;
use crate::surroundings::SeenTimestamp;

/// Pause between two heartbeats. Every step of the scheduler takes at least one heartbeat, so
/// growing a cluster takes a few times this.
const INTERVAL: Duration = Duration::from_millis(500);

/// Time for one heartbeat, after which the next one is tried.
const TIMEOUT: Duration = Duration::from_secs(2);

impl Node {
    pub(super) fn start_heartbeats(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        let net = self.around.net.clone();
        let beating = async move {
            while let Some(node) = weak.upgrade() {
                node.beat().await;
                drop(node);
                net.sleep(INTERVAL).await;
            }
        };
        self.around.net.spawn(Box::pin(beating));
    }

    async fn beat(self: &Arc<Self>) {
        let beat = Heartbeat {
            node: Some(self.descriptor.clone()),
            cluster_id: self.around.cluster_id,
            ranges: self.reports(),
            stats: Some(self.stats()),
            clock_unix_ms: Some(self.around.clock.unix_millis()),
        };
        match self.to_control(request::Body::Heartbeat(beat), TIMEOUT).await {
            Ok(response::Body::Heartbeat(reply)) => self.on_reply(reply),
            Ok(response::Body::Error(error)) => {
                if matches!(error.kind, Some(Kind::FailedPrecondition(_))) {
                    let mut stopped = self.stopped.lock();
                    stopped.get_or_insert(error.message);
                }
            }
            // No answer. The next heartbeat tries again.
            _ => {}
        }
    }

    fn on_reply(self: &Arc<Self>, reply: HeartbeatReply) {
        self.saw(reply.timestamp);
        let (timestamp, at) = (Timestamp(reply.timestamp), self.around.net.now());
        let seen = Some(SeenTimestamp { timestamp, at });
        *self.around.oracle_seen.lock() = seen;
        *self.clock_offset_ms.lock() = reply.clock_offset_ms;
        self.learn_garbage_bounds(reply.floor_ts, reply.collect_below_ts);
        self.book().learn(reply.nodes);
        let now = self.around.net.now();
        self.readiness().answered(now, reply.missing_ranges, reply.awaited_ranges);
        for descriptor in reply.elsewhere {
            // A store that cannot take the event now gets it again with a later reply.
            self.around
                .stores
                .send(RangeId(descriptor.range_id), Event::DescriptorHint(descriptor));
        }
        self.skip_entries(reply.skipped_entries);
        for operation in reply.operations {
            let node = self.clone();
            self.around.net.spawn(Box::pin(async move { node.operate(operation).await }));
        }
    }

    /// Carries out a step of the scheduler. A step that is refused is decided anew from the next
    /// report.
    async fn operate(&self, operation: RangeOperation) {
        let _ = self.around.stores.operate(operation).await;
    }

    fn reports(&self) -> Vec<RangeReport> {
        let mut reports = self.around.board.reports();
        for report in &mut reports {
            let range = report.descriptor.as_ref().map_or(0, |descriptor| descriptor.range_id);
            report.unlocked_below_ts = self.unlocked_below(RangeId(range));
        }
        reports
    }

    fn stats(&self) -> NodeStats {
        let ranges = self.around.board.ranges();
        let disk = *self.disk.lock();
        NodeStats {
            disk_total_bytes: disk.total_bytes,
            disk_available_bytes: disk.available_bytes,
            replicas: ranges.len() as u32,
            leaders: ranges.iter().filter(|status| status.leads).count() as u32,
            uptime_ms: self.around.net.now().saturating_sub(self.started).as_millis() as u64,
            replica_ranges: ranges.iter().map(|status| status.descriptor.range_id).collect(),
            replica_ids: ranges.iter().map(|status| status.replica.replica_id).collect(),
            unfit_to_lead: self.readiness().unfit_to_lead,
            quarantined: self.quarantined(),
        }
    }
}
