//! Keeps the cluster from dropping versions that this client still reads.
//!
//! Versions are kept for some minutes anyway, so short transactions need nothing of this. Once one is
//! open for longer than a moment, a task tells the control plane the oldest timestamp that is still
//! read at, again and again while that is so. What it says is forgotten soon after the client is.
//! Everything here is best effort: a read from below the floor is refused, never wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rangedb_proto::v1::{self, request};

use crate::error::{Error, Result};
use crate::retry::Effect;
use crate::sender::Sender;

/// Open for so long, a transaction or scan is no longer short. Also how often the task looks.
const LONG: Duration = Duration::from_secs(1);

/// Time that a hold outlives its client: as long as a lock does, because for this long a new control
/// plane leaves the floor where it is. An election of the control range fits.
const HOLD_TTL: Duration = Duration::from_secs(10);

/// Between two times that the same is told. Some may get lost before the hold expires.
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
    /// A task looks after them until there are none.
    served: bool,
}

struct Reader {
    timestamp: u64,
    since: Duration,
}

/// Reads at a timestamp until it is dropped.
pub(crate) struct Hold {
    holds: Arc<Holds>,
    place: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds.state.lock().unwrap().open.remove(&self.place);
    }
}

impl Holds {
    pub fn new(sender: Arc<Sender>) -> Self {
        Holds { sender, state: Mutex::default() }
    }

    pub fn hold(self: &Arc<Self>, timestamp: u64) -> Hold {
        let since = self.sender.net.now();
        let mut state = self.state.lock().unwrap();
        let place = state.next;
        state.next += 1;
        state.open.insert(place, Reader { timestamp, since });
        if !state.served {
            state.served = true;
            let serving = Serving { holds: self.clone(), name: None, told: None };
            self.sender.net.spawn(Box::pin(serving.run()));
        }
        Hold { holds: self.clone(), place }
    }

    /// The oldest timestamp of those that have been read at for long.
    fn oldest(&self) -> Option<u64> {
        let now = self.sender.net.now();
        let state = self.state.lock().unwrap();
        let long = state.open.values().filter(|reader| now.saturating_sub(reader.since) >= LONG);
        long.map(|reader| reader.timestamp).min()
    }
}

/// The task.
struct Serving {
    holds: Arc<Holds>,
    name: Option<Name>,
    /// The timestamp that is held, and when that was said.
    told: Option<(u64, Duration)>,
}

/// Ours among all who hold. A late copy of what was told before must not let go what is held by then:
/// so under one name the timestamp only rises, and once let go, a name is not taken up again.
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
            match (self.holds.oldest(), self.told) {
                (None, None) => {
                    let mut state = self.holds.state.lock().unwrap();
                    if state.open.is_empty() {
                        state.served = false;
                        return;
                    }
                }
                (None, Some(_)) => self.tell(0).await,
                // Later than what is held: that can wait.
                (Some(oldest), Some((told, at)))
                    if oldest >= told && net.now().saturating_sub(at) < RENEW_EVERY => {}
                (Some(oldest), _) => self.tell(oldest).await,
            }
        }
    }

    /// Tells the timestamp to hold, or at 0 that nothing is held any more.
    async fn tell(&mut self, timestamp: u64) {
        let now = self.holds.sender.net.now();
        let outlived = self.name.take_if(|name| timestamp < name.highest);
        if timestamp > 0 {
            let net = &self.holds.sender.net;
            let name = self.name.get_or_insert_with(|| Name::made_up(net.random_below(u64::MAX)));
            name.highest = timestamp;
            let text = name.text.clone();
            let told = self.ask(text, timestamp).await;
            self.told = told.is_ok().then_some((timestamp, now));
            self.note(told);
        }
        if let Some(name) = outlived {
            let told = self.ask(name.text, 0).await;
            self.note(told);
        }
        if timestamp == 0 {
            self.told = None;
        }
    }

    async fn ask(&self, name: String, timestamp: u64) -> Result<()> {
        let sender = &self.holds.sender;
        let ttl_ms = HOLD_TTL.as_millis() as u32;
        let body = request::Body::HoldFloor(v1::HoldFloor { name, timestamp, ttl_ms });
        sender.to_cluster(Effect::Read, sender.net.now() + RENEW_EVERY, &body).await.map(drop)
    }

    fn note(&self, told: Result<()>) {
        match told {
            Ok(()) => {}
            Err(Error::TooOld { floor_ts, .. }) => {
                // Too late for these, who find out when they read. The others still count.
                let mut state = self.holds.state.lock().unwrap();
                state.open.retain(|_, reader| reader.timestamp >= floor_ts);
            }
            Err(error) => tracing::debug!(%error, "the floor is not held"),
        }
    }
}

impl Drop for Serving {
    /// Dropped in the middle, by an executor that stops: the next reader starts another.
    fn drop(&mut self) {
        self.holds.state.lock().unwrap().served = false;
    }
}
