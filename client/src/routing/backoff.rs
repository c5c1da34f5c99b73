//! Exponential backoff between two attempts of the same request or transaction.

use std::time::Duration;

use crate::net::Net;

/// Shortest wait: about a network round trip, since many failures are a leader that just moved.
const WAIT_MIN: Duration = Duration::from_millis(5);

/// Longest wait: clients notice a recovered cluster soon, and a thousand waiting clients send a few
/// thousand requests a second at most.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// Backoff that doubles from [`WAIT_MIN`] to [`WAIT_MAX`]. Each wait is drawn from the upper half
/// of its interval, so that clients that failed together do not come back together.
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
