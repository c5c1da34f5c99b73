//! Heartbeats that keep a transaction's primary lock alive, and with it the transaction: other
//! clients roll a transaction back after [`LOCK_TTL`] without a heartbeat.
//!
//! The oracle's time decides when a lock expires. The client only estimates that time, for the
//! expiry that it requests. With a wrong estimate the transaction is rolled back too early or
//! waited for too long, and nothing worse.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use rangedb_proto::Timestamp;
use rangedb_proto::v1::{self, RangeDescriptor, command};

use rangedb_proto::limits::LOCK_TTL;

use crate::command as commands;
use crate::net::Net;
use crate::routing::retry::{Retry, RetrySafety};
use crate::routing::sender::Sender;

/// Interval of heartbeats, of which two may get lost.
pub(crate) const HEARTBEAT_EVERY: Duration = Duration::from_millis(LOCK_TTL.as_millis() as u64 / 3);

/// Estimate of the oracle's time: one of its timestamps, and the time that the client's clock has
/// counted since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OracleClock {
    millis: u64,
    at: Duration,
}

impl OracleClock {
    /// Starts from a timestamp that was `received` just now.
    pub fn new(received: Timestamp, net: &dyn Net) -> Self {
        OracleClock { millis: received.millis(), at: net.now() }
    }

    /// Time until the oracle reaches `millis`; 0 if it has.
    pub fn time_until(&self, millis: u64, net: &dyn Net) -> Duration {
        let passed = net.now().saturating_sub(self.at).as_millis() as u64;
        Duration::from_millis(millis.saturating_sub(self.millis.saturating_add(passed)))
    }

    /// Expiry of a lock that is made or refreshed now, in milliseconds of the oracle's time.
    pub fn alive_until_ms(&self, net: &dyn Net) -> u64 {
        let passed = net.now().saturating_sub(self.at) + LOCK_TTL;
        self.millis + passed.as_millis() as u64
    }
}

/// Refreshes the primary lock for as long as the future is polled. If the transaction is over, its
/// own commands find out. Before the primary is locked, there is nothing to refresh.
pub(crate) async fn keep_alive(
    sender: &Sender,
    primary: &Bytes,
    start_ts: u64,
    clock: OracleClock,
) -> Infallible {
    loop {
        sender.net.sleep(HEARTBEAT_EVERY).await;
        beat(sender, primary, start_ts, clock).await;
    }
}

/// Sends one heartbeat. Best effort: the next one comes while the lock still lives.
pub(crate) async fn beat(sender: &Sender, primary: &Bytes, start_ts: u64, clock: OracleClock) {
    let net = &*sender.net;
    let build = |_: &RangeDescriptor| {
        Some(command::Body::HeartbeatLock(v1::HeartbeatLock {
            primary: primary.clone(),
            start_ts,
            alive_until_ms: clock.alive_until_ms(net),
        }))
    };
    let mut retry = Retry::new(net, RetrySafety::Repeatable, net.now() + HEARTBEAT_EVERY);
    if let Err(error) = commands::send(sender, primary, &build, &mut retry).await {
        tracing::debug!(start_ts, %error, "a heartbeat failed");
    }
}
