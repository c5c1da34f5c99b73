//! Timestamps (design D5), as pure arithmetic. Whoever owns an [`Oracle`] commits bounds and checks
//! its lease; nothing here does.
//!
//! Invariants:
//! - every timestamp handed out is above all before it and below a bound that was committed first;
//! - a new oracle begins at the committed bound of the one before it, so the two never hand out the
//!   same, whatever the clock does.
//!
//! While the clock is behind, because it jumped forward and back again or because an earlier oracle's
//! was ahead, time goes on at half its speed until the clock has caught up. If it stood still, so
//! would everything that ends by it, such as the locks of a dead client.
//!
//! The same scheme as TiKV's placement driver, but for that.

use std::time::Duration;

use rangedb_proto::Timestamp;

/// How far ahead of the clock a bound is committed. Long enough that committing one every half of it
/// is no load, short enough that a new oracle, which begins at the bound, is soon at the clock's time.
const WINDOW_MS: u64 = 3_000;

pub struct Oracle {
    /// The newest one handed out, or that may have been handed out before this oracle.
    last: Timestamp,
    /// Exclusive.
    bound: Timestamp,
    /// The time when the clock was last seen not to be behind, and what a monotonic clock showed.
    in_step: Option<(u64, Duration)>,
}

impl Oracle {
    /// Continues behind an earlier oracle's committed bound. Hands out nothing until
    /// [`Oracle::extend`].
    pub fn behind(bound: Timestamp) -> Self {
        Oracle { last: bound, bound, in_step: None }
    }

    /// Milliseconds by which to allocate, given the time of day and a monotonic clock. Never goes
    /// back.
    pub fn time_ms(&mut self, clock_ms: u64, monotonic: Duration) -> u64 {
        let (then_ms, then) = *self.in_step.get_or_insert((self.last.millis(), monotonic));
        let at_half_speed = then_ms + monotonic.saturating_sub(then).as_millis() as u64 / 2;
        if clock_ms >= at_half_speed {
            self.in_step = Some((clock_ms, monotonic));
        }
        clock_ms.max(at_half_speed)
    }

    /// Every timestamp from here on is above this one.
    pub fn newest(&self) -> Timestamp {
        self.last
    }

    /// No timestamp at or above this has been handed out.
    pub fn bound(&self) -> Timestamp {
        self.bound
    }

    /// A bound was committed.
    pub fn extend(&mut self, bound: Timestamp) {
        self.bound = self.bound.max(bound);
    }

    /// The bound to commit now, if half of the window is used up or the clock went past it.
    pub fn wanted_bound(&self, now_ms: u64) -> Option<Timestamp> {
        let at_ms = now_ms.max(self.last.millis());
        let wanted = Timestamp::from_millis(at_ms + WINDOW_MS);
        (self.bound.millis() < at_ms + WINDOW_MS / 2).then_some(wanted)
    }

    /// The last of `count` fresh consecutive timestamps; `None` if the bound is in the way.
    ///
    /// The counter carries into the milliseconds when a clock stands still or goes back.
    pub fn allocate(&mut self, now_ms: u64, count: u32) -> Option<Timestamp> {
        assert!(count > 0, "nobody asks for no timestamps");
        let first = self.last.next().max(Timestamp::from_millis(now_ms));
        let last = Timestamp(first.0 + u64::from(count) - 1);
        if last >= self.bound {
            return None;
        }
        self.last = last;
        Some(last)
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
        let mut oracle = Oracle::behind(Timestamp::ZERO);
        assert_eq!(oracle.allocate(1000, 1), None);
        assert_eq!(oracle.wanted_bound(1000), Some(ms(4000)));
        oracle.extend(ms(4000));
        assert_eq!(oracle.allocate(1000, 1), Some(ms(1000)));
        assert_eq!(oracle.wanted_bound(1000), None);
        assert_eq!(oracle.wanted_bound(2501), Some(ms(5501)));
    }

    #[test]
    fn a_clock_that_jumps_back_repeats_nothing() {
        let mut oracle = Oracle::behind(Timestamp::ZERO);
        oracle.extend(ms(10_000));
        let before = oracle.allocate(5000, 10).unwrap();
        let after = oracle.allocate(10, 10).unwrap();
        assert_eq!(after.0, before.0 + 10);
    }

    #[test]
    fn while_the_clock_is_behind_time_goes_on_at_half_speed() {
        let mut oracle = Oracle::behind(ms(1000));
        let mut time =
            |clock_ms, monotonic| oracle.time_ms(clock_ms, Duration::from_millis(monotonic));
        assert_eq!(time(900, 50_000), 1000);
        assert_eq!(time(1000, 50_100), 1050);
        assert_eq!(time(1100, 50_200), 1100);
        assert_eq!(time(61_000, 50_300), 61_000);
        assert_eq!(time(1300, 50_400), 61_050);
        assert_eq!(time(2300, 51_400), 61_550);
        assert_eq!(time(121_300, 170_400), 121_300);
        assert_eq!(time(121_400, 170_500), 121_400);
    }

    #[test]
    fn a_successor_begins_above_everything_that_was_handed_out() {
        let mut old = Oracle::behind(Timestamp::ZERO);
        old.extend(ms(4000));
        let mut highest = Timestamp::ZERO;
        while let Some(last) = old.allocate(3999, 100_000) {
            highest = last;
        }
        let mut new = Oracle::behind(ms(4000));
        new.extend(ms(7000));
        assert!(new.allocate(1, 1).unwrap() > highest);
    }
}
