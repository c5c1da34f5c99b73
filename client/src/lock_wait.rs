//! Waiting for the lock of a living transaction, on the node where it stands.
//!
//! The node holds a request back, in the order of arrival, until the lock in its way is gone or the
//! time is up that the request allows. So a lock that is let go is handed on at once, and who waits
//! longest comes first. In between the client looks after the lock's transaction (`resolve.rs`): its
//! client may be dead, and only the transaction's primary tells.
//!
//! Before a node has answered that there is a lock, it is allowed no more than what an attempt takes
//! anyway: a node that says nothing must not cost more time because it might be waiting. A node that
//! does not hold requests back, because its queue is full, is asked again after growing pauses.

use std::time::Duration;

use rangedb_proto::v1;

use crate::net::Net;
use crate::retry::Retry;
use crate::sender::Sender;
use crate::transaction::heartbeat::OracleClock;

/// Time for which a node may hold a request back at once. The lock's transaction is looked after this
/// often, which costs its range a command for each who waits.
pub(crate) const HOLD_MAX: Duration = Duration::from_secs(1);

/// Left of a request's time for the answer to arrive.
const ANSWER_TIME: Duration = Duration::from_millis(100);

/// Behind the moment at which a lock expires: asked then, its primary finds that it has.
const EXPIRY_MARGIN: Duration = Duration::from_millis(10);

pub(crate) struct Waiting<'a> {
    sender: &'a Sender,
    clock: OracleClock,
    since: Duration,
    asked_at: Duration,
    hold: Duration,
    /// The lock that was met last.
    met: Option<Met>,
}

struct Met {
    start_ts: u64,
    /// Time for which its transaction lives from then on, unless there are heartbeats.
    alive_for: Duration,
    /// The request was held back for it.
    was_held: bool,
}

impl<'a> Waiting<'a> {
    pub fn new(sender: &'a Sender, clock: OracleClock) -> Self {
        let now = sender.net.now();
        Waiting { sender, clock, since: now, asked_at: now, hold: Duration::ZERO, met: None }
    }

    /// Until when the request that is sent now may be held back: for `most` at most.
    pub fn hold_until(&mut self, most: Duration, retry: &mut Retry<'_>) -> Duration {
        self.asked_at = self.sender.net.now();
        retry.set_hold(Duration::ZERO);
        let attempt = retry.attempt_timeout().unwrap_or_default();
        let room = retry.left().saturating_sub(ANSWER_TIME).min(most);
        match &self.met {
            None => self.hold = room.min(attempt / 2),
            Some(met) => {
                let alive_for = Some(met.alive_for).filter(|alive_for| !alive_for.is_zero());
                self.hold = room.min(alive_for.unwrap_or(HOLD_MAX)).min(HOLD_MAX);
                retry.set_hold(self.hold);
            }
        }
        self.asked_at + self.hold
    }

    /// The answer was a lock.
    pub fn meet(&mut self, lock: &v1::KeyLocked) {
        let net = &*self.sender.net;
        if self.met.is_none() {
            self.sender.metrics.lock_waits.add(1);
        }
        let left = self.clock.time_until(lock.alive_until_ms, net);
        let alive_for = if left.is_zero() { left } else { left + EXPIRY_MARGIN };
        let held = net.now().saturating_sub(self.asked_at);
        let was_held = !self.hold.is_zero() && held >= self.hold / 2;
        self.met = Some(Met { start_ts: lock.start_ts, alive_for, was_held });
    }

    /// The lock's transaction lives: after this it is time to ask again.
    pub async fn blocked(&mut self, lock: v1::KeyLocked, retry: &mut Retry<'_>) {
        match &self.met {
            Some(met) if met.was_held => retry.held(lock.into()),
            _ => retry.blocked(lock.into()).await,
        }
    }

    /// Since the request was first made.
    pub fn waited(&self) -> Duration {
        self.sender.net.now().saturating_sub(self.since)
    }

    /// True if the lock that was met last is of a transaction that began after this timestamp.
    pub fn holder_is_younger_than(&self, start_ts: u64) -> bool {
        self.met.as_ref().is_some_and(|met| met.start_ts > start_ts)
    }
}

/// For the wire: how much longer a request that is sent now may be held back.
pub(crate) fn millis_until(until: Duration, net: &dyn Net) -> u32 {
    let left = until.saturating_sub(net.now()).as_millis();
    u32::try_from(left).unwrap_or(u32::MAX)
}
