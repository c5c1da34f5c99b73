//! Timestamps (design D5), as pure arithmetic. Whoever owns an [`Oracle`] commits bounds and checks
//! its lease; nothing here does.
//!
//! Invariants:
//! - every timestamp handed out is above all before it and below a bound that was committed first;
//! - a new oracle begins at the committed bound of the one before it, so the two never hand out the
//!   same, whatever the clock does.
//!
//! The same scheme as TiKV's placement driver.

use rangedb_proto::Timestamp;

/// How far ahead of the clock a bound is committed. Long enough that committing one every half of it
/// is no load, short enough that a new oracle, which begins at the bound, is soon at the clock's time.
const WINDOW_MS: u64 = 3_000;

pub struct Oracle {
    /// The newest one handed out, or that may have been handed out before this oracle.
    last: Timestamp,
    /// Exclusive.
    bound: Timestamp,
}

impl Oracle {
    /// Continues behind an earlier oracle's committed bound. Hands out nothing until
    /// [`Oracle::extend`].
    pub fn behind(bound: Timestamp) -> Self {
        Oracle { last: bound, bound }
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
