//! Lock waits: a request waits for the lock of a live transaction, on the node where the lock
//! stands.
//!
//! The node holds requests back in order of arrival, until the lock in the way is gone or the time
//! that the request allows is up. So a released lock passes on at once, to the longest waiter.
//! Between two such waits the client checks the lock's transaction (`resolve.rs`): that
//! transaction's client may be dead, and only its primary knows.
//!
//! Until a node has reported a lock, the request allows it no more time than an ordinary attempt: a
//! silent node must not cost more time because it might be waiting. A node whose queue is full does
//! not hold requests back. The request is sent again after growing pauses.

use std::time::Duration;

use rangedb_proto::v1;

use crate::net::Net;
use crate::routing::retry::Retry;
use crate::routing::sender::Sender;
use crate::transaction::heartbeat::OracleClock;

/// Time for which a node may hold a request back in one attempt. The client checks the lock's
/// transaction this often, which costs the primary's range one command for each waiter.
pub(crate) const HOLD_MAX: Duration = Duration::from_secs(1);

/// Part of a request's time that is kept for the response to arrive.
const RESPONSE_TIME: Duration = Duration::from_millis(100);

/// Wait beyond the expiry of a lock, so that its primary then finds it expired.
const EXPIRY_MARGIN: Duration = Duration::from_millis(10);

/// A request that may have to wait for locks of other transactions.
pub(crate) struct LockWaiter<'a> {
    sender: &'a Sender,
    clock: OracleClock,
    /// Time at which the request was first made.
    since: Duration,
    /// Time at which the attempt in flight was sent.
    sent_at: Duration,
    /// Time for which the node may hold that attempt back.
    hold: Duration,
    /// The lock that was met last.
    met: Option<Met>,
}

struct Met {
    start_ts: u64,
    /// Remaining lifetime of its transaction without heartbeats, with the margin; 0: expired.
    alive_for: Duration,
    /// True if the node held the request back for this lock.
    was_held: bool,
}

impl<'a> LockWaiter<'a> {
    pub fn new(sender: &'a Sender, clock: OracleClock) -> Self {
        let now = sender.net.now();
        LockWaiter { sender, clock, since: now, sent_at: now, hold: Duration::ZERO, met: None }
    }

    /// Returns the time until which the node may hold back the request that is sent now: `most` at
    /// most.
    pub fn hold_until(&mut self, most: Duration, retry: &mut Retry<'_>) -> Duration {
        self.sent_at = self.sender.net.now();
        retry.set_hold(Duration::ZERO);
        let attempt = retry.attempt_timeout().unwrap_or_default();
        let room = retry.left().saturating_sub(RESPONSE_TIME).min(most);
        match &self.met {
            None => self.hold = room.min(attempt / 2),
            Some(met) => {
                let alive_for = Some(met.alive_for).filter(|alive_for| !alive_for.is_zero());
                self.hold = room.min(alive_for.unwrap_or(HOLD_MAX)).min(HOLD_MAX);
                retry.set_hold(self.hold);
            }
        }
        self.sent_at + self.hold
    }

    /// Notes that the response was a lock.
    pub fn meet(&mut self, lock: &v1::KeyLocked) {
        let net = &*self.sender.net;
        if self.met.is_none() {
            self.sender.metrics.lock_waits.add(1);
        }
        let left = self.clock.time_until(lock.alive_until_ms, net);
        let alive_for = if left.is_zero() { left } else { left + EXPIRY_MARGIN };
        let held = net.now().saturating_sub(self.sent_at);
        let was_held = !self.hold.is_zero() && held >= self.hold / 2;
        self.met = Some(Met { start_ts: lock.start_ts, alive_for, was_held });
    }

    /// Waits until the next attempt is due: the lock's transaction is alive.
    pub async fn blocked(&mut self, lock: v1::KeyLocked, retry: &mut Retry<'_>) {
        match &self.met {
            Some(met) if met.was_held => retry.held(lock.into()),
            _ => retry.blocked(lock.into()).await,
        }
    }

    /// Time since the request was first made.
    pub fn waited(&self) -> Duration {
        self.sender.net.now().saturating_sub(self.since)
    }

    /// True if the lock that was met last is of a transaction that began after this timestamp.
    pub fn holder_is_younger_than(&self, start_ts: u64) -> bool {
        self.met.as_ref().is_some_and(|met| met.start_ts > start_ts)
    }
}

/// Remaining time in milliseconds, for the wire, for which a request that is sent now may be held
/// back.
pub(crate) fn millis_until(until: Duration, net: &dyn Net) -> u32 {
    let left = until.saturating_sub(net.now()).as_millis();
    u32::try_from(left).unwrap_or(u32::MAX)
}
