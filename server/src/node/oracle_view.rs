//! The oracle's time as this node knows it, and the confirmation of timestamps that others name.
//!
//! A timestamp is *passed* once every timestamp that the oracle hands out from then on is above it.
//! This node knows that of each timestamp up to the newest that it has seen. What a client names is
//! not believed: above the newest one seen, the oracle is asked. One call serves all that wait at that
//! moment, so that a busy node asks once a round trip, however many commands it takes in.
//!
//! A client's fresh timestamp is mostly above the newest one seen here, by as little as the two differ
//! in age. A *near* timestamp is not above what the oracle's time should be by now: work on it begins
//! at once, and what comes of it is told once the oracle has passed it. That costs no round trip before
//! the work, and a lie costs others no more than a wait of [`NEAR_MS_MAX`].

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

/// A near timestamp is ahead of the oracle's expected time by this at most: about as long as a timestamp
/// is on its way from the oracle. Whoever names one that is ahead makes the next commits of a range
/// wait for so long.
pub(super) const NEAR_MS_MAX: u64 = 10;

/// A look at the oracle is too long ago to go by after this: as long as heartbeats are apart, which
/// bring one. The oracle's time may pass at half the speed of this node's, while the clocks catch up
/// with it; what is taken for near is a quarter of a second ahead then, and waited for half a second.
const EXPECTED_FOR: Duration = Duration::from_millis(500);

type Call = Shared<BoxFuture<'static, Result<Timestamp, rangedb_client::Error>>>;

/// See the module's head.
pub(super) struct OracleView {
    gateway: Client,
    net: SharedNet,
    /// The highest timestamp known to be passed.
    passed: AtomicU64,
    /// The last look at the oracle's time, and when that was.
    looked: Mutex<(Timestamp, Duration)>,
    /// The call that is under way, for others to join.
    call: Mutex<Option<Call>>,
}

impl OracleView {
    pub fn new(gateway: Client, net: SharedNet) -> Arc<Self> {
        let (passed, looked) = (AtomicU64::new(0), Mutex::default());
        Arc::new(OracleView { gateway, net, passed, looked, call: Mutex::default() })
    }

    /// The oracle itself said so: by a timestamp, or on this node.
    pub fn saw(&self, timestamp: u64) {
        if timestamp > self.passed.fetch_max(timestamp, Ordering::Relaxed) {
            let now = self.net.now();
            let mut looked = self.looked.lock().expect("no panic holds it");
            if timestamp > looked.0.0 {
                *looked = (Timestamp(timestamp), now);
            }
        }
    }

    pub fn newest(&self) -> Timestamp {
        Timestamp(self.passed.load(Ordering::Relaxed))
    }

    pub fn has_passed(&self, at: Timestamp) -> bool {
        #[cfg(feature = "planted")]
        if rangedb_planted::Bug::NamedTimestampsBelieved.is_planted() {
            return true;
        }
        at <= self.newest()
    }

    /// True of a timestamp that the oracle has passed, or should have by now.
    pub fn is_near(&self, at: Timestamp) -> bool {
        if self.has_passed(at) {
            return true;
        }
        let (newest, when) = *self.looked.lock().expect("no panic holds it");
        let age = self.net.now().saturating_sub(when);
        let expected_ms = newest.millis() + age.as_millis() as u64;
        age <= EXPECTED_FOR && at.millis() <= expected_ms + NEAR_MS_MAX
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
