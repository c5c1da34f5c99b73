//! Holds of the GC floor, so that the cluster does not drop versions that this client still reads.
//!
//! The cluster keeps versions for some minutes anyway, so short transactions need no hold. Once a
//! reader is open for longer than a moment, a task reports the oldest timestamp that is still read
//! to the control plane, and repeats that while it is so. A report expires soon after its client
//! dies. Holds are best effort: a read from below the floor is refused, never wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rangedb_proto::v1::{self, request};

use rangedb_proto::limits::HOLD_TTL;

use crate::error::{Error, Result};
use crate::routing::sender::Sender;

/// Age from which a transaction or scan is no longer short. Also the interval at which the task
/// checks.
const LONG: Duration = Duration::from_secs(1);

/// Interval at which a hold is renewed. Some renewals may get lost before the hold expires.
const RENEW_EVERY: Duration = Duration::from_secs(3);

pub(crate) struct Holds {
    sender: Arc<Sender>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Readers in the order in which they began to read.
    open: BTreeMap<u64, Reader>,
    next: u64,
    /// True while a task holds the floor for the open readers.
    served: bool,
}

struct Reader {
    timestamp: u64,
    since: Duration,
}

/// Holds the floor at or below a timestamp until it is dropped.
pub(crate) struct Hold {
    holds: Arc<Holds>,
    /// Key among the open readers.
    reader: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds.state.lock().open.remove(&self.reader);
    }
}

impl Holds {
    pub fn new(sender: Arc<Sender>) -> Self {
        Holds { sender, state: Mutex::default() }
    }

    pub fn hold(self: &Arc<Self>, timestamp: u64) -> Hold {
        let since = self.sender.net.now();
        let mut state = self.state.lock();
        let reader = state.next;
        state.next += 1;
        state.open.insert(reader, Reader { timestamp, since });
        if !state.served {
            state.served = true;
            let serving =
                Serving { holds: self.clone(), name: None, reported: None, finished: false };
            self.sender.net.spawn(Box::pin(serving.run()));
        }
        Hold { holds: self.clone(), reader }
    }

    /// Oldest timestamp among those that have been read at for long.
    fn oldest(&self) -> Option<u64> {
        let now = self.sender.net.now();
        let state = self.state.lock();
        let long = state.open.values().filter(|reader| now.saturating_sub(reader.since) >= LONG);
        long.map(|reader| reader.timestamp).min()
    }
}

/// The task that holds the floor for the open readers.
struct Serving {
    holds: Arc<Holds>,
    name: Option<Name>,
    /// The timestamp that is held, and the time at which it was reported.
    reported: Option<(u64, Duration)>,
    /// True once the task has noted its end: from then on another task may start.
    finished: bool,
}

/// Name of this client's hold. Under one name the timestamp only rises, and a released name is
/// never reused. So a delayed duplicate of an earlier report cannot release a newer hold.
struct Name {
    text: String,
    highest: u64,
}

impl Name {
    fn made_up(number: u64) -> Self {
        Name { text: format!("client-{number:016x}"), highest: 0 }
    }
}

impl Serving {
    async fn run(mut self) {
        let net = self.holds.sender.net.clone();
        loop {
            net.sleep(LONG).await;
            match (self.holds.oldest(), self.reported) {
                (None, None) => {
                    let mut state = self.holds.state.lock();
                    if state.open.is_empty() {
                        state.served = false;
                        drop(state);
                        self.finished = true;
                        return;
                    }
                }
                (None, Some(_)) => self.report(0).await,
                // Not older than what is held: the report can wait until the hold is due for
                // renewal.
                (Some(oldest), Some((held, at)))
                    if oldest >= held && net.now().saturating_sub(at) < RENEW_EVERY => {}
                (Some(oldest), _) => self.report(oldest).await,
            }
        }
    }

    /// Reports the timestamp to hold; 0: nothing is held any more.
    async fn report(&mut self, timestamp: u64) {
        let now = self.holds.sender.net.now();
        let outlived = self.name.take_if(|name| timestamp < name.highest);
        if timestamp > 0 {
            let net = &self.holds.sender.net;
            let name = self.name.get_or_insert_with(|| Name::made_up(net.random_below(u64::MAX)));
            name.highest = timestamp;
            let text = name.text.clone();
            let result = self.send(text, timestamp).await;
            self.reported = result.is_ok().then_some((timestamp, now));
            self.on_result(result);
        }
        if let Some(name) = outlived {
            let result = self.send(name.text, 0).await;
            self.on_result(result);
        }
        if timestamp == 0 {
            self.reported = None;
        }
    }

    async fn send(&self, name: String, timestamp: u64) -> Result<()> {
        let sender = &self.holds.sender;
        let ttl_ms = HOLD_TTL.as_millis() as u32;
        let body =
            request::Body::HoldFloor(v1::HoldFloor { name, timestamp, ttl_ms, released_ts: 0 });
        // A name is used once, so a release that comes twice releases nothing else.
        sender.to_cluster(sender.net.now() + RENEW_EVERY, &body).await.map(drop)
    }

    fn on_result(&self, result: Result<()>) {
        match result {
            Ok(()) => {}
            Err(Error::TooOld { floor_ts, .. }) => {
                // Too late for these readers, which find out when they read. The others still
                // count.
                let mut state = self.holds.state.lock();
                state.open.retain(|_, reader| reader.timestamp >= floor_ts);
            }
            Err(error) => tracing::debug!(%error, "the floor is not held"),
        }
    }
}

impl Drop for Serving {
    /// Runs early if an executor that stops drops the task: the next reader starts another one.
    fn drop(&mut self) {
        if !self.finished {
            self.holds.state.lock().served = false;
        }
    }
}
