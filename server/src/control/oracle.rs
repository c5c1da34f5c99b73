//! Timestamp oracle (design D5), as pure arithmetic. The owner of an [`Oracle`] commits its bounds
//! and checks the lease.
//!
//! Invariants:
//! - Every timestamp handed out is above all before it, and below a bound that was committed first.
//! - A new oracle begins at the committed bound of the one before it. So the two never hand out the
//!   same timestamp, whatever the clock does.
//! - Timestamps run ahead of the oracle's time (`time.rs`) by [`AHEAD_MS_MAX`] at most, or by twice
//!   that for small requests, however many are requested.
//!
//! The scheme is that of TiKV's placement driver, except for the notion of time.

use std::time::Duration;

use rangedb_proto::Timestamp;

use super::clocks::{AGE_MAX, difference_ms};
use super::time::{Doubt, Time};
use crate::surroundings::SeenTimestamp;

/// Milliseconds by which a committed bound is ahead of the clock. Long enough that a commit every
/// half window is no load. Short enough that a new oracle, which begins at the bound, is soon at
/// the clock's time.
const WINDOW_MS: u64 = 3_000;

/// Lead of timestamps over time at most, in milliseconds, when more are requested than a
/// millisecond has. That is twenty-six million timestamps at once, and little against the life of a
/// lock, which ends by timestamps.
pub const AHEAD_MS_MAX: u64 = 100;

/// Count up to which a request may use twice that lead, so that large requests do not starve small
/// ones.
const FEW: u32 = 256;

/// Reason why no timestamps can be handed out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoneNow {
    /// A higher bound must be committed first.
    BoundReached,
    /// The request exceeds the allowed lead over time. It can succeed after so many milliseconds.
    TooMany { for_ms: u32 },
}

pub struct Oracle {
    /// The newest timestamp that was handed out, or that an earlier oracle may have handed out.
    last: Timestamp,
    /// Exclusive upper bound, committed.
    bound: Timestamp,
    time: Time,
    /// Time that a majority of the nodes' clocks showed, since 1970, and the monotonic clock's
    /// reading then.
    agreed: Option<(Duration, Duration)>,
}

impl Oracle {
    /// Continues from the committed bound of an earlier oracle. `seen` is the last timestamp that
    /// this node saw of it. Hands out nothing until [`Oracle::extend`].
    pub fn behind(bound: Timestamp, seen: Option<SeenTimestamp>) -> Self {
        Oracle { last: bound, bound, time: Time::behind(bound, seen), agreed: None }
    }

    /// The oracle's time in milliseconds, given the time of day and a monotonic clock. Never goes
    /// back.
    pub fn time_ms(&mut self, clock_ms: u64, monotonic: Duration) -> u64 {
        let agreed = self.agreed(monotonic);
        self.time.read(clock_ms, monotonic, agreed)
    }

    /// Takes note of the time that a majority of the nodes' clocks shows or has passed.
    pub fn agree(&mut self, shown: Duration, monotonic: Duration) {
        self.agreed = Some((shown, monotonic));
    }

    /// Reason why time does not follow this node's clock, as of the last reading.
    pub fn doubt(&self) -> Option<Doubt> {
        self.time.doubt()
    }

    /// Lead of the next timestamp over the time that a majority of the nodes' clocks shows, in
    /// milliseconds. `None` if that time is not known.
    pub fn ahead_ms(&self, now_ms: u64, monotonic: Duration) -> Option<i64> {
        let next = Duration::from_millis(now_ms.max(self.last.millis()));
        Some(difference_ms(next, self.agreed(monotonic)?))
    }

    fn agreed(&self, monotonic: Duration) -> Option<Duration> {
        let (shown, at) = self.agreed?;
        let age = monotonic.saturating_sub(at);
        (age <= AGE_MAX).then_some(shown + age)
    }

    /// The newest timestamp that may have been handed out. All later ones are above it.
    pub fn newest(&self) -> Timestamp {
        self.last
    }

    /// The committed bound: no timestamp at or above it has been handed out.
    pub fn bound(&self) -> Timestamp {
        self.bound
    }

    /// Takes note of a committed bound.
    pub fn extend(&mut self, bound: Timestamp) {
        self.bound = self.bound.max(bound);
    }

    /// Returns the bound to commit now, if half of the window is used up or the clock has passed
    /// the bound.
    pub fn wanted_bound(&self, now_ms: u64) -> Option<Timestamp> {
        let at_ms = now_ms.max(self.last.millis());
        let wanted = Timestamp::from_millis(at_ms + WINDOW_MS);
        (self.bound.millis() < at_ms + WINDOW_MS / 2).then_some(wanted)
    }

    /// Hands out `count` consecutive fresh timestamps. Returns the last.
    ///
    /// If the clock stands still or goes back, the counter carries into the milliseconds.
    pub fn allocate(&mut self, now_ms: u64, count: u32) -> Result<Timestamp, NoneNow> {
        assert!(count > 0, "nobody asks for no timestamps");
        let first = self.last.next().max(Timestamp::from_millis(now_ms));
        let last = Timestamp(first.0.saturating_add(u64::from(count) - 1));
        let ahead_ms = if count > FEW { AHEAD_MS_MAX } else { 2 * AHEAD_MS_MAX };
        let newest_ms = now_ms.saturating_add(ahead_ms);
        if last.millis() > newest_ms {
            let for_ms = u32::try_from(last.millis() - newest_ms).unwrap_or(u32::MAX);
            return Err(NoneNow::TooMany { for_ms });
        }
        if last >= self.bound {
            return Err(NoneNow::BoundReached);
        }
        self.last = last;
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn hands_out_nothing_before_a_bound_is_committed() {
        let mut oracle = Oracle::behind(Timestamp::ZERO, None);
        assert_eq!(oracle.allocate(1000, 1), Err(NoneNow::BoundReached));
        assert_eq!(oracle.wanted_bound(1000), Some(ms(4000)));
        oracle.extend(ms(4000));
        assert_eq!(oracle.allocate(1000, 1), Ok(ms(1000)));
        assert_eq!(oracle.wanted_bound(1000), None);
        assert_eq!(oracle.wanted_bound(2501), Some(ms(5501)));
    }

    #[test]
    fn a_clock_that_jumps_back_repeats_nothing() {
        let mut oracle = Oracle::behind(Timestamp::ZERO, None);
        oracle.extend(ms(10_000));
        let before = oracle.allocate(5000, 10).unwrap();
        let after = oracle.allocate(4950, 10).unwrap();
        assert_eq!(after.0, before.0 + 10);
    }

    #[test]
    fn asking_for_very_many_does_not_drive_timestamps_ahead_of_time() {
        let mut oracle = Oracle::behind(Timestamp::ZERO, None);
        oracle.extend(ms(10_000));
        let mut had = 0;
        let refused = loop {
            match oracle.allocate(1000, 1 << 16) {
                Ok(last) => had = last.millis(),
                Err(refused) => break refused,
            }
        };
        assert_eq!((had, refused), (1000 + AHEAD_MS_MAX, NoneNow::TooMany { for_ms: 1 }));
        // Small requests are still served, also up to a bound.
        assert_eq!(oracle.allocate(1000, FEW).unwrap().millis(), 1001 + AHEAD_MS_MAX);
        while oracle.allocate(1000, FEW).is_ok() {}
        assert_eq!(oracle.last.millis(), 1000 + 2 * AHEAD_MS_MAX);
        // As time passes, more timestamps become available.
        assert!(oracle.allocate(1001 + AHEAD_MS_MAX, 1 << 16).is_ok());
    }

    #[test]
    fn what_the_nodes_agreed_on_counts_for_some_seconds() {
        let mut oracle = Oracle::behind(ms(1_000_000), None);
        assert_eq!(oracle.ahead_ms(1_000_000, AGE_MAX), None);
        oracle.agree(Duration::from_millis(400_000), AGE_MAX);
        assert_eq!(oracle.ahead_ms(1_000_000, AGE_MAX), Some(600_000));
        assert_eq!(oracle.ahead_ms(1_000_000, 2 * AGE_MAX), Some(595_000));
        assert_eq!(oracle.ahead_ms(1_000_000, 3 * AGE_MAX), None);
    }

    #[test]
    fn a_successor_begins_above_everything_that_was_handed_out() {
        let mut old = Oracle::behind(Timestamp::ZERO, None);
        old.extend(ms(4000));
        let mut highest = Timestamp::ZERO;
        while let Ok(last) = old.allocate(3999, 100_000) {
            highest = last;
        }
        let mut new = Oracle::behind(ms(4000), None);
        new.extend(ms(7000));
        assert!(new.allocate(4000, 1).unwrap() > highest);
    }
}
