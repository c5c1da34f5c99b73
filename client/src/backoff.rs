//! Backoff between two attempts at the same thing.

use std::time::Duration;

use crate::net::Net;

/// The first wait: about a network round trip, since much of what fails is a leader that just moved.
const WAIT_MIN: Duration = Duration::from_millis(5);

/// The longest wait: a cluster that came back is noticed soon, and a thousand clients that wait for
/// it send a few thousand requests a second, not more.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// Doubles from [`WAIT_MIN`] to [`WAIT_MAX`]. Each wait is drawn from its upper half, so that clients
/// that failed together do not come back together.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub fn new() -> Self {
        Backoff { next: WAIT_MIN }
    }

    pub fn wait(&mut self, net: &dyn Net) -> Duration {
        let half = self.next / 2;
        self.next = (self.next * 2).min(WAIT_MAX);
        half + Duration::from_micros(net.random_below(half.as_micros() as u64 + 1))
    }
}
