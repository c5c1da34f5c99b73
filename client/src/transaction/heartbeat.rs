//! Keeps a transaction's primary alive, and with it the transaction: others roll back what has not
//! been heard of for [`LOCK_TTL`].
//!
//! When a lock expires is decided by the oracle's time. The client only estimates that time, to say
//! until when it wants to be believed alive: wrong, it is rolled back too early or waited for too
//! long, and nothing worse.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use rangedb_proto::Timestamp;
use rangedb_proto::v1::{self, RangeDescriptor, command};

use crate::command as commands;
use crate::net::Net;
use crate::retry::{Effect, Retry};
use crate::sender::Sender;

/// Time for which a lock lives without a heartbeat: how long others wait for a client that died.
/// Several elections fit, so that a living client's heartbeat gets through.
pub(crate) const LOCK_TTL: Duration = Duration::from_secs(10);

/// Two heartbeats may get lost.
pub(crate) const HEARTBEAT_EVERY: Duration = Duration::from_millis(LOCK_TTL.as_millis() as u64 / 3);

/// The oracle's time, by a timestamp of it and what the client's clock counted since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OracleClock {
    millis: u64,
    at: Duration,
}

impl OracleClock {
    /// `received` just now.
    pub fn new(received: Timestamp, net: &dyn Net) -> Self {
        OracleClock { millis: received.millis(), at: net.now() }
    }

    /// Time until the oracle is there; 0 if it is.
    pub fn time_until(&self, millis: u64, net: &dyn Net) -> Duration {
        let passed = net.now().saturating_sub(self.at).as_millis() as u64;
        Duration::from_millis(millis.saturating_sub(self.millis.saturating_add(passed)))
    }

    /// Until when a lock that is made or refreshed now lives.
    pub fn alive_until_ms(&self, net: &dyn Net) -> u64 {
        let passed = net.now().saturating_sub(self.at) + LOCK_TTL;
        self.millis + passed.as_millis() as u64
    }
}

/// Refreshes the primary's lock for as long as it is polled. If the transaction is over, its own
/// commands find out; before the primary is locked, there is nothing to refresh yet.
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

/// One heartbeat. Best effort: the next one comes while the lock still lives.
pub(crate) async fn beat(sender: &Sender, primary: &Bytes, start_ts: u64, clock: OracleClock) {
    let net = &*sender.net;
    let build = |_: &RangeDescriptor| {
        Some(command::Body::HeartbeatLock(v1::HeartbeatLock {
            primary: primary.clone(),
            start_ts,
            alive_until_ms: clock.alive_until_ms(net),
        }))
    };
    let mut retry = Retry::new(net, Effect::Read, net.now() + HEARTBEAT_EVERY);
    if let Err(error) = commands::send(sender, primary, &build, &mut retry).await {
        tracing::debug!(start_ts, %error, "a heartbeat failed");
    }
}
