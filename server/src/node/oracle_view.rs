//! The oracle's time as this node knows it, and the confirmation of timestamps that others name.
//!
//! A timestamp is *passed* once every timestamp that the oracle hands out from then on is above it.
//! This node knows that of each timestamp up to the newest that it has seen. What a client names is
//! not believed: above the newest one seen, the oracle is asked. One call serves all that wait at that
//! moment, so that a busy node asks once a round trip, however many commands it takes in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::Shared;
use rangedb_client::Client;
use rangedb_client::net::{BoxFuture, SharedNet};
use rangedb_proto::Timestamp;
use rangedb_proto::v1;

/// Between two looks at an oracle that is behind what was committed.
pub(super) const ORACLE_BEHIND_WAIT: Duration = Duration::from_millis(1);

type Call = Shared<BoxFuture<'static, Result<Timestamp, rangedb_client::Error>>>;

/// See the module's head.
pub(super) struct OracleView {
    gateway: Client,
    net: SharedNet,
    /// The highest timestamp known to be passed.
    passed: AtomicU64,
    /// The call that is under way, for others to join.
    call: Mutex<Option<Call>>,
}

impl OracleView {
    pub fn new(gateway: Client, net: SharedNet) -> Arc<Self> {
        Arc::new(OracleView { gateway, net, passed: AtomicU64::new(0), call: Mutex::default() })
    }

    /// The oracle itself said so: by a timestamp, or on this node.
    pub fn saw(&self, timestamp: u64) {
        self.passed.fetch_max(timestamp, Ordering::Relaxed);
    }

    pub fn newest(&self) -> Timestamp {
        Timestamp(self.passed.load(Ordering::Relaxed))
    }

    pub fn has_passed(&self, at: Timestamp) -> bool {
        at <= self.newest()
    }

    /// Refuses a timestamp that the oracle has not passed: whoever named it did not get it there.
    pub async fn confirm(self: &Arc<Self>, at: Timestamp, named: &str) -> Result<(), v1::Error> {
        let newest = self.look(at).await?;
        if at <= newest {
            return Ok(());
        }
        let message = format!("timestamp {at} is ahead of the cluster's newest, {newest}");
        Err(v1::Error::invalid(named, message))
    }

    /// Waits until the oracle has passed the timestamp, of a commit that is true already.
    pub async fn wait_for(self: &Arc<Self>, at: Timestamp) -> Result<(), v1::Error> {
        while self.look(at).await? < at {
            self.net.sleep(ORACLE_BEHIND_WAIT).await;
        }
        Ok(())
    }

    /// The newest timestamp known: at or above `enough`, or else one that the oracle handed out after
    /// this was asked.
    pub async fn look(self: &Arc<Self>, enough: Timestamp) -> Result<Timestamp, v1::Error> {
        if self.has_passed(enough) {
            return Ok(self.newest());
        }
        let (call, is_new) = self.call();
        let first = call.await;
        if self.has_passed(enough) {
            return Ok(self.newest());
        }
        if is_new {
            return Ok(first?);
        }
        // The first one may have begun too early. Whatever is under way now began after it ended.
        Ok(self.call().0.await?)
    }

    /// The call that is under way, or a new one.
    fn call(self: &Arc<Self>) -> (Call, bool) {
        let mut slot = self.call.lock().expect("no panic holds it");
        if let Some(call) = &*slot {
            return (call.clone(), false);
        }
        let (weak, gateway) = (Arc::downgrade(self), self.gateway.clone());
        let asking: BoxFuture<'static, _> = Box::pin(async move {
            let fresh = gateway.timestamp().await;
            if let Some(view) = weak.upgrade() {
                if let Ok(fresh) = &fresh {
                    view.saw(fresh.0);
                }
                *view.call.lock().expect("no panic holds it") = None;
            }
            fresh
        });
        let call = asking.shared();
        *slot = Some(call.clone());
        (call, true)
    }
}
