//! The oracle's time as this node knows it, and confirmation of timestamps that callers name.
//!
//! A timestamp is *passed* once every timestamp that the oracle hands out from then on is above it.
//! This node knows that of each timestamp up to the newest that it has seen. A timestamp above that
//! is not believed: the node asks the oracle. One call serves all requests that wait at that
//! moment. So a busy node makes one call for each round trip, however many commands it receives.
//!
//! A client's fresh timestamp is mostly above the newest one seen here, by no more than the two
//! differ in age. A *near* timestamp is at most [`NEAR_MS_MAX`] milliseconds above the oracle's
//! expected present time. Work on it begins at once, and the results are returned once the oracle
//! has passed it. That costs no round trip before the work, and a false timestamp costs others no
//! more than a wait of that length.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::Shared;
use parking_lot::Mutex;
use rangedb_client::Client;
use rangedb_client::net::{BoxFuture, SharedNet};
use rangedb_proto::Timestamp;
use rangedb_proto::v1;

use crate::planted::planted;

/// Pause between two calls to an oracle that has not reached a committed timestamp.
pub(super) const ORACLE_BEHIND_WAIT: Duration = Duration::from_millis(1);

/// Lead of a near timestamp over the oracle's expected time at most, in milliseconds: about as long
/// as a timestamp takes from the oracle to here. A client that names one so far ahead makes the
/// next commits of a range wait for so long.
pub(super) const NEAR_MS_MAX: u64 = 10;

/// Age beyond which the last look at the oracle is no basis for its expected time: the interval of
/// heartbeats, each of which brings a look. The oracle's time may pass at half the speed of this
/// node's clock, while the clocks catch up with it. At this age a near timestamp is then a quarter
/// of a second ahead, and the wait for it takes half a second.
const EXPECTED_FOR: Duration = Duration::from_millis(500);

type Call = Shared<BoxFuture<'static, Result<Timestamp, rangedb_client::Error>>>;

/// The oracle's time as this node knows it.
pub(super) struct OracleView {
    gateway: Client,
    net: SharedNet,
    /// The highest timestamp known to be passed.
    passed: AtomicU64,
    /// The last timestamp seen from the oracle, and the time at which it was seen.
    looked: Mutex<(Timestamp, Duration)>,
    /// The call in flight, which other requests may join.
    call: Mutex<Option<Call>>,
}

impl OracleView {
    pub fn new(gateway: Client, net: SharedNet) -> Arc<Self> {
        let (passed, looked) = (AtomicU64::new(0), Mutex::default());
        Arc::new(OracleView { gateway, net, passed, looked, call: Mutex::default() })
    }

    /// Takes note of a timestamp that comes from the oracle, either directly or because it runs on
    /// this node.
    pub fn saw(&self, timestamp: u64) {
        if timestamp > self.passed.fetch_max(timestamp, Ordering::Relaxed) {
            let now = self.net.now();
            let mut looked = self.looked.lock();
            if timestamp > looked.0.0 {
                *looked = (Timestamp(timestamp), now);
            }
        }
    }

    pub fn newest(&self) -> Timestamp {
        Timestamp(self.passed.load(Ordering::Relaxed))
    }

    pub fn has_passed(&self, at: Timestamp) -> bool {
        if planted!(NamedTimestampsBelieved) {
            return true;
        }
        at <= self.newest()
    }

    /// True if the oracle has passed the timestamp, or should have by now.
    pub fn is_near(&self, at: Timestamp) -> bool {
        if self.has_passed(at) {
            return true;
        }
        let (newest, when) = *self.looked.lock();
        let age = self.net.now().saturating_sub(when);
        let expected_ms = newest.millis() + age.as_millis() as u64;
        age <= EXPECTED_FOR && at.millis() <= expected_ms + NEAR_MS_MAX
    }

    /// Refuses a timestamp that the oracle has not passed: the caller did not get it from there.
    pub async fn confirm(self: &Arc<Self>, at: Timestamp, named: &str) -> Result<(), v1::Error> {
        let newest = self.look(at).await?;
        if at <= newest {
            return Ok(());
        }
        let message = format!("timestamp {at} is ahead of the cluster's newest, {newest}");
        Err(v1::Error::invalid(named, message))
    }

    /// Waits until the oracle has passed the timestamp of a commit that has taken place.
    pub async fn wait_for(self: &Arc<Self>, at: Timestamp) -> Result<(), v1::Error> {
        while self.look(at).await? < at {
            self.net.sleep(ORACLE_BEHIND_WAIT).await;
        }
        Ok(())
    }

    /// Returns the newest known timestamp. It is at or above `enough`, or the oracle handed it out
    /// after this call began.
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
        // The first call may have begun too early. The one in flight now began after the first had
        // ended.
        Ok(self.call().0.await?)
    }

    /// Returns the call in flight or a new one, and true if it is new.
    fn call(self: &Arc<Self>) -> (Call, bool) {
        let mut slot = self.call.lock();
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
                *view.call.lock() = None;
            }
            fresh
        });
        let call = asking.shared();
        *slot = Some(call.clone());
        (call, true)
    }
}
