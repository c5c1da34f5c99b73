//! The oracle's time, as pure arithmetic: the time of day, as far as there is reason to believe it.
//!
//! Timestamps never go back, so one wrong reading of a clock would have a lasting effect: every
//! lock would count as expired, and every snapshot as too old. So time goes on by the monotonic
//! clock, and follows a clock of the day only
//!
//! - alone, as far as that clock gained little since it was last believed ([`LEAP_MAX`]);
//! - further, once a majority of the nodes shows the same. Time then passes at up to twice its
//!   speed;
//! - not at all where the majority shows another time. Time then follows the majority.
//!
//! The clock may be behind the oracle's time: it jumped forward and back again, or an earlier
//! oracle's clock was ahead. Time then passes at half its speed until the clock has caught up. If
//! time stood still, everything that ends by it would stand still too, such as the locks of a dead
//! client.

use std::time::Duration;

use rangedb_proto::Timestamp;

use super::clocks::DIFFERENCE_MAX;
use crate::planted::planted;
use crate::surroundings::SeenTimestamp;

/// Gain of a clock over the monotonic clock, at once, up to which it is believed without a
/// majority: a correction by NTP that does not step. Small against the life of a lock.
const LEAP_MAX: Duration = Duration::from_millis(500);

/// Divisor of the time that passes: the quotient may be gained besides. That is twenty times the
/// rate at which NTP corrects clocks.
const GAIN_SHARE: u32 = 100;

/// Part of a millisecond that may have passed unseen, as a clock shows whole milliseconds.
const WITHIN_A_MILLISECOND: Duration = Duration::from_nanos(999_999);

/// Reason why time does not follow the clock of the oracle's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// A new oracle has not yet heard from a majority of the nodes.
    Unheard,
    /// The clock leapt, and too few other nodes reported their clocks.
    Alone,
    /// A majority of the nodes shows another time. Time follows the majority.
    Outvoted,
    /// The clock leapt, and so did a majority's: time catches up at twice its speed.
    CatchingUp,
}

/// The oracle's time.
pub struct Time {
    /// Since 1970.
    now: Duration,
    /// The monotonic clock's reading at `now`. `None` before the first reading.
    at: Option<Duration>,
    /// The last timestamp seen of the earlier oracle.
    seen: Option<SeenTimestamp>,
    /// Gain up to which the clock may still be believed without a majority.
    gain: Duration,
    /// True while nothing in this process shows how much time has passed since the earlier oracle.
    /// The first time that a majority agrees on is then taken as it is.
    unsettled: bool,
    doubt: Option<Doubt>,
}

impl Time {
    /// Continues from an earlier oracle's bound, or from the later time that `seen` implies.
    pub fn behind(bound: Timestamp, seen: Option<SeenTimestamp>) -> Self {
        let now = Duration::from_millis(bound.millis());
        Time { now, at: None, seen, gain: LEAP_MAX, unsettled: seen.is_none(), doubt: None }
    }

    /// Reason why time does not follow the clock, as of the last reading.
    pub fn doubt(&self) -> Option<Doubt> {
        self.doubt
    }

    /// The oracle's time in milliseconds since 1970, never less than before. `clock_ms` is the
    /// reading of this node's clock. `agreed` is the time that a majority of the nodes' clocks
    /// shows or has passed, if that is known.
    pub fn read(&mut self, clock_ms: u64, monotonic: Duration, agreed: Option<Duration>) -> u64 {
        let clock = Duration::from_millis(clock_ms.min(Timestamp::MILLIS_MAX));
        let elapsed = self.pass(monotonic);
        self.gain = (self.gain + elapsed / GAIN_SHARE).min(LEAP_MAX);
        let outvoted = agreed.filter(|agreed| agreed.abs_diff(clock) > DIFFERENCE_MAX);
        let wanted = outvoted.unwrap_or(clock);
        let is_first = self.now.is_zero();
        if planted!(OracleBelievesItsClock) {
            self.now = self.now.max(clock);
            return self.now.as_millis() as u64;
        }
        let settles = self.unsettled && agreed.is_some();
        // Without a time of founding, the first oracle of all takes its clock's, which counts as
        // settled.
        self.unsettled &= !settles && !is_first;
        let even = self.now + elapsed;
        let lead = wanted.saturating_sub(even);
        self.doubt = outvoted.map(|_| Doubt::Outvoted);
        self.now = if lead.is_zero() {
            even.min(wanted + WITHIN_A_MILLISECOND).max(self.now + elapsed / 2)
        } else if is_first || settles {
            wanted
        } else if lead <= self.gain {
            self.gain -= lead;
            wanted
        } else if agreed.is_some() {
            self.doubt.get_or_insert(Doubt::CatchingUp);
            wanted.min(even + elapsed)
        } else {
            self.doubt = Some(if self.unsettled { Doubt::Unheard } else { Doubt::Alone });
            even
        };
        self.now.as_millis() as u64
    }

    /// Returns the time since the last reading.
    fn pass(&mut self, monotonic: Duration) -> Duration {
        if self.at.is_none()
            && let Some(SeenTimestamp { timestamp, at }) = self.seen
        {
            let then = Duration::from_millis(timestamp.millis());
            self.now = self.now.max(then + monotonic.saturating_sub(at));
        }
        let before = self.at.unwrap_or(monotonic);
        self.at = Some(monotonic.max(before));
        monotonic.saturating_sub(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;
    const NOON_MS: u64 = 1_780_000_000_000;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A time in step with a clock that shows noon when the monotonic clock shows 0.
    fn in_step() -> Time {
        let timestamp = Timestamp::from_millis(NOON_MS);
        let mut time = Time::behind(timestamp, Some(SeenTimestamp { timestamp, at: ms(0) }));
        assert_eq!(time.read(NOON_MS, ms(0), Some(ms(NOON_MS))), NOON_MS);
        time
    }

    #[test]
    fn a_clock_that_is_right_is_followed_to_the_millisecond() {
        let mut time = in_step();
        // The clock is read far more often than it changes, at moments within a millisecond.
        for micros in (0..5_000_000).step_by(37) {
            let clock_ms = NOON_MS + (micros + 300) / 1000;
            assert_eq!(time.read(clock_ms, Duration::from_micros(micros), None), clock_ms);
        }
        assert_eq!(time.doubt(), None);
    }

    #[test]
    fn a_leap_of_one_clock_alone_is_not_followed_and_leaves_nothing_behind() {
        let mut time = in_step();
        for after in 1..2000 {
            let clock_ms = NOON_MS + 2 * DAY_MS + after;
            assert_eq!(time.read(clock_ms, ms(after), None), NOON_MS + after);
        }
        assert_eq!(time.doubt(), Some(Doubt::Alone));
        assert_eq!(time.read(NOON_MS + 2000, ms(2000), None), NOON_MS + 2000);
        assert_eq!(time.doubt(), None);
    }

    #[test]
    fn against_a_majority_a_clock_counts_for_nothing_wherever_it_is() {
        for clock_ms in [NOON_MS + 2 * DAY_MS, NOON_MS - 2 * DAY_MS, NOON_MS + 2_000, 0, u64::MAX] {
            let mut time = in_step();
            for after in 1..1000 {
                let agreed = Some(ms(NOON_MS + after));
                assert_eq!(time.read(clock_ms, ms(after), agreed), NOON_MS + after);
                assert_eq!(time.doubt(), Some(Doubt::Outvoted));
            }
        }
    }

    #[test]
    fn a_leap_of_the_majority_is_caught_up_with_at_twice_the_speed_of_time() {
        let mut time = in_step();
        let leapt = |after| NOON_MS + 10_000 + after;
        for after in (100..9_600).step_by(100) {
            let now_ms = time.read(leapt(after), ms(after), Some(ms(leapt(after))));
            assert_eq!(now_ms, NOON_MS + 2 * after);
            assert_eq!(time.doubt(), Some(Doubt::CatchingUp));
        }
        // The rest is within the gain for which one clock is believed without a majority.
        assert_eq!(time.read(leapt(9_600), ms(9_600), None), leapt(9_600));
        assert_eq!(time.doubt(), None);
    }

    #[test]
    fn small_leaps_are_followed_as_far_as_they_are_few() {
        let mut time = in_step();
        assert_eq!(time.read(NOON_MS + 400, ms(0), None), NOON_MS + 400);
        // Time follows by the rest of the gain, and a hundredth of the second that passed.
        assert_eq!(time.read(NOON_MS + 1_511, ms(1_000), None), NOON_MS + 1_400);
        assert_eq!(time.read(NOON_MS + 1_510, ms(1_000), None), NOON_MS + 1_510);
        // A clock that runs fast gets no further ahead than that.
        let mut fast = in_step();
        let now_ms = (0..100_000).map(|after| fast.read(NOON_MS + 3 * after, ms(after), None));
        assert!(now_ms.last().unwrap() <= NOON_MS + 99_999 + 500 + 1_000);
    }

    #[test]
    fn while_the_clock_is_behind_time_goes_on_at_half_speed() {
        let timestamp = Timestamp::from_millis(1000);
        let mut time = Time::behind(timestamp, Some(SeenTimestamp { timestamp, at: ms(50_000) }));
        let mut read = |clock_ms, monotonic| time.read(clock_ms, ms(monotonic), None);
        assert_eq!(read(900, 50_000), 1000);
        assert_eq!(read(1000, 50_100), 1050);
        assert_eq!(read(1100, 50_200), 1100);
        assert_eq!(read(1200, 50_300), 1200);
        assert_eq!(read(100, 51_300), 1700);
        assert_eq!(read(1100, 52_300), 2200);
        // The clock has caught up with time, and is then ahead of it.
        assert_eq!(read(2700, 53_300), 2700);
        assert_eq!(read(3700, 54_300), 3700);
    }

    #[test]
    fn an_oracle_that_nobody_has_seen_waits_for_a_majority_and_takes_its_word_once() {
        // All nodes were down for two days.
        let mut time = Time::behind(Timestamp::from_millis(NOON_MS), None);
        let now_ms = NOON_MS + 2 * DAY_MS;
        assert_eq!(time.read(now_ms, ms(0), None), NOON_MS);
        assert_eq!(time.read(now_ms + 100, ms(100), None), NOON_MS + 100);
        assert_eq!(time.doubt(), Some(Doubt::Unheard));
        let agreed = |ms| Some(Duration::from_millis(ms));
        assert_eq!(time.read(now_ms + 200, ms(200), agreed(now_ms + 190)), now_ms + 200);
        assert_eq!(time.doubt(), None);
        let leapt = now_ms + DAY_MS;
        assert_eq!(time.read(leapt + 300, ms(300), agreed(leapt + 300)), now_ms + 400);
    }

    #[test]
    fn an_oracle_that_was_seen_goes_on_by_the_monotonic_clock() {
        let timestamp = Timestamp::from_millis(NOON_MS);
        let seen = Some(SeenTimestamp { timestamp, at: ms(10_000) });
        // The new oracle's own clock leapt before it took over.
        let mut time = Time::behind(Timestamp::from_millis(NOON_MS + 1_500), seen);
        assert_eq!(time.read(NOON_MS + DAY_MS, ms(12_000), None), NOON_MS + 2_000);
        assert_eq!(time.doubt(), Some(Doubt::Alone));
        let mut time = Time::behind(Timestamp::from_millis(NOON_MS + 2_500), seen);
        assert_eq!(time.read(NOON_MS + DAY_MS, ms(12_000), None), NOON_MS + 2_500);
        // The clock is outvoted: time follows the majority, at half speed until it has caught up.
        let agreed = Some(ms(NOON_MS + 2_100));
        assert_eq!(time.read(NOON_MS + DAY_MS, ms(12_100), agreed), NOON_MS + 2_550);
    }

    #[test]
    fn the_first_oracle_of_all_begins_at_its_clock() {
        let mut time = Time::behind(Timestamp::ZERO, None);
        assert_eq!(time.read(NOON_MS, ms(7), None), NOON_MS);
        assert_eq!(time.doubt(), None);
        let leapt = NOON_MS + DAY_MS;
        assert_eq!(time.read(leapt, ms(107), Some(ms(leapt))), NOON_MS + 200);
    }
}
