//! Minimum pace of a snapshot's stream, on either side.
//!
//! Places and turns are few, so a stream that holds one must make progress. A bound on silence is
//! not enough: with a byte every few seconds a stream would keep its place forever. Instead,
//! waiting for the other side is paid from a credit of time, and bytes that move refill the credit.
//! Time that this side needs for its own disk costs no credit.

use std::future::Future;
use std::time::{Duration, Instant};

/// Maximum of the credit, and so the longest silence. The other side may have to wait for a slow
/// disk, and a network may break off for a moment.
pub(super) const CREDIT_MAX: Duration = Duration::from_secs(30);

/// Bytes that pay for a second of waiting: a hundredth of what a gigabit link carries.
const BYTES_PER_SECOND_MIN: u64 = 1 << 20;

const MICROS_PER_SECOND: u64 = 1_000_000;

/// Credit of time that one side has for waiting.
pub(super) struct Pace {
    credit: Duration,
    credit_max: Duration,
}

/// The other side is too slow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TooSlow;

impl Pace {
    pub fn new(credit_max: Duration) -> Self {
        Pace { credit: credit_max, credit_max }
    }

    /// Waits for the other side while there is credit.
    pub async fn wait<T>(&mut self, other: impl Future<Output = T>) -> Result<T, TooSlow> {
        let begun = Instant::now();
        let outcome = tokio::time::timeout(self.credit, other).await;
        self.waited(begun.elapsed());
        outcome.map_err(|_| TooSlow)
    }

    pub fn moved(&mut self, bytes: usize) {
        let micros = (bytes as u64).saturating_mul(MICROS_PER_SECOND) / BYTES_PER_SECOND_MIN;
        self.credit = (self.credit + Duration::from_micros(micros)).min(self.credit_max);
    }

    fn waited(&mut self, time: Duration) {
        self.credit = self.credit.saturating_sub(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_comes_to_an_end_though_it_is_never_silent_for_long() {
        let mut pace = Pace::new(CREDIT_MAX);
        let mut chunks = 0;
        while !pace.credit.is_zero() {
            pace.waited(Duration::from_secs(10));
            pace.moved(1);
            chunks += 1;
            assert!(chunks < 10, "no end of it");
        }
    }

    #[test]
    fn whoever_brings_enough_goes_on_and_saves_up_no_long_silence() {
        let mut pace = Pace::new(CREDIT_MAX);
        for _ in 0..1000 {
            pace.waited(Duration::from_secs(1));
            pace.moved(2 << 20);
        }
        assert_eq!(pace.credit, CREDIT_MAX);
    }
}
