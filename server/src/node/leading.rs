//! Actions of a node when one of its replicas begins or ceases to lead.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::MutexGuard;
use rangedb_proto::v1::{RangeOperation, TransferLeader, range_operation::Body};
use rangedb_proto::{RangeDescriptorExt, RangeId};
use rangedb_raftstore::{Event, RoleChange};

use super::Node;
use crate::control::Control;
use crate::system::Role;

/// Pause before the next attempt to get a fence.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Pause between two looks at the ranges that are still led.
const HAND_OVER_PAUSE: Duration = Duration::from_millis(100);

impl Node {
    /// Handles a change of a replica's role. Does not block.
    pub fn on_role_change(self: &Arc<Self>, change: RoleChange) {
        match change {
            RoleChange::NeedFence { range, term } => {
                self.leading().insert(range, term);
                if range == Control::RANGE {
                    self.control.lead(term);
                }
                let node = self.clone();
                self.around.net.spawn(Box::pin(async move {
                    match range {
                        // The control plane is the oracle, and fences itself.
                        Control::RANGE => node.control.take_over(&node.around, term).await,
                        _ => node.fetch_fence(range, term).await,
                    }
                }));
            }
            RoleChange::SteppedDown { range } => {
                self.leading().remove(&range);
                if range == Control::RANGE {
                    self.control.end();
                }
            }
        }
    }

    fn leading(&self) -> MutexGuard<'_, BTreeMap<RangeId, u64>> {
        self.leading.lock()
    }

    fn leads(&self, range: RangeId, term: u64) -> bool {
        self.leading().get(&range) == Some(&term)
    }

    /// Asks the oracle for a fence until it answers or the leadership ends.
    async fn fetch_fence(&self, range: RangeId, term: u64) {
        while self.leads(range, term) {
            if let Ok(timestamp) = self.around.client.timestamp().await {
                self.saw(timestamp.0);
                if self.around.stores.send(range, Event::Fenced { range, term, timestamp }) {
                    return;
                }
            }
            self.around.net.sleep(RETRY_PAUSE).await;
        }
    }

    /// Moves every leadership to another node, as far as one can take it.
    pub async fn hand_over(self: &Arc<Self>, within: Duration) {
        let deadline = self.around.net.now() + within;
        loop {
            let led: Vec<_> = self
                .around
                .board
                .ranges()
                .into_iter()
                .filter(|status| status.leads && status.descriptor.replicas.len() > 1)
                .collect();
            if led.is_empty() || self.around.net.now() >= deadline {
                return;
            }
            for status in led {
                let operation = RangeOperation {
                    range_id: status.descriptor.range_id,
                    epoch: Some(status.descriptor.epoch()),
                    body: Some(Body::TransferLeader(TransferLeader { to_replica_id: 0 })),
                };
                // Refused while no replica can take the leadership. The loop tries again until the
                // deadline.
                let _ = self.around.stores.operate(operation).await;
            }
            self.around.net.sleep(HAND_OVER_PAUSE).await;
        }
    }
}
