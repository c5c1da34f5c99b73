//! Actions of a node when one of its replicas begins or ceases to lead.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use futures::future::{self, Either};
use rangedb_proto::v1::{RangeOperation, TransferLeader, range_operation::Body};
use rangedb_proto::{RangeDescriptorExt, RangeId};
use rangedb_raftstore::{Event, RoleChange};

use super::Node;
use crate::control::{CONTROL, take_over};

/// Pause before the next attempt to get a fence or to take over.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Time for one attempt to take over.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between two looks at the ranges that are still led.
const HAND_OVER_PAUSE: Duration = Duration::from_millis(100);

impl Node {
    /// Handles a change of a replica's role. Does not block.
    pub fn on_role_change(self: &Arc<Self>, change: RoleChange) {
        match change {
            RoleChange::NeedFence { range, term } => {
                self.leading().insert(range, term);
                let node = self.clone();
                self.net.spawn(Box::pin(async move {
                    match range {
                        CONTROL => node.become_control_plane(term).await,
                        _ => node.fetch_fence(range, term).await,
                    }
                }));
            }
            RoleChange::SteppedDown { range } => {
                self.leading().remove(&range);
                if range == CONTROL {
                    *self.control.lock().expect("no panic holds it") = None;
                }
            }
        }
    }

    fn leading(&self) -> MutexGuard<'_, BTreeMap<RangeId, u64>> {
        self.leading.lock().expect("no panic holds it")
    }

    fn leads(&self, range: RangeId, term: u64) -> bool {
        self.leading().get(&range) == Some(&term)
    }

    /// Asks the oracle for a fence until it answers or the leadership ends.
    async fn fetch_fence(&self, range: RangeId, term: u64) {
        while self.leads(range, term) {
            if let Ok(timestamp) = self.own_client.timestamp().await {
                self.saw(timestamp.0);
                if self.stores.send(range, Event::Fenced { range, term, timestamp }) {
                    return;
                }
            }
            self.net.sleep(RETRY_PAUSE).await;
        }
    }

    async fn become_control_plane(&self, term: u64) {
        while self.leads(CONTROL, term) {
            let attempt = Box::pin(take_over(self.around.clone(), term, self.oracle_seen()));
            // An attempt can hang in a range that has lost its quorum.
            let first = future::select(attempt, self.net.sleep(TAKE_OVER_TIMEOUT)).await;
            if let Either::Left((Ok(control), _)) = first {
                // Checked and set under the slot's lock: if the leadership ends meanwhile, the slot
                // is cleared afterwards.
                let mut slot = self.control.lock().expect("no panic holds it");
                if self.leads(CONTROL, term) {
                    control.watch();
                    *slot = Some(control);
                }
                return;
            }
            self.net.sleep(RETRY_PAUSE).await;
        }
    }

    /// Moves every leadership to another node, as far as one can take it.
    pub async fn hand_over(self: &Arc<Self>, within: Duration) {
        let deadline = self.net.now() + within;
        loop {
            let led: Vec<_> = self
                .board
                .ranges()
                .into_iter()
                .filter(|status| status.leads && status.descriptor.replicas.len() > 1)
                .collect();
            if led.is_empty() || self.net.now() >= deadline {
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
                let _ = self.stores.operate(operation).await;
            }
            self.net.sleep(HAND_OVER_PAUSE).await;
        }
    }
}
