//! Pace of the floor: it rises no faster than real time passes, which only the monotonic clock
//! tells. The oracle's time may leap if the clocks of all nodes leap. Versions that must be
//! readable for the whole retention must not be lost over that.
//!
//! Two timestamps are known to be old enough, and the later one is the bound:
//!
//! - the floor that this control plane found when it took over, plus the time that has passed
//!   since;
//! - the oracle's time of one retention ago, if this control plane existed then.

use std::collections::VecDeque;
use std::time::Duration;

use rangedb_proto::Timestamp;

use super::{STEP_MIN, STEPS_IN_RETENTION};

/// Readings of the oracle's time that are kept: several in a retention, and a few more for a longer
/// retention that has just been shortened.
const SAMPLES_MAX: usize = 4 * STEPS_IN_RETENTION as usize;

/// Upper bound of the floor by real time.
#[derive(Default)]
pub struct Pace {
    /// The stored floor at the takeover, and the monotonic time then.
    found: (Timestamp, Duration),
    /// Readings of the oracle's time with those of the monotonic clock, oldest first.
    samples: VecDeque<(Timestamp, Duration)>,
}

impl Pace {
    pub fn from(floor: Timestamp, now: Duration) -> Self {
        Pace { found: (floor, now), samples: VecDeque::new() }
    }

    /// Takes note of the oracle's time. To be called often.
    pub fn note(&mut self, time: Timestamp, retention: Duration, now: Duration) {
        let every = (retention / STEPS_IN_RETENTION).max(STEP_MIN);
        if self.samples.back().is_some_and(|(_, at)| now < *at + every) {
            return;
        }
        self.samples.push_back((time, now));
        // Of the readings that are a retention old, only the newest is needed.
        while self.samples.len() > SAMPLES_MAX
            || self.samples.get(1).is_some_and(|(_, at)| *at + retention <= now)
        {
            self.samples.pop_front();
        }
    }

    /// Highest floor that drops no version before its retention is over.
    pub fn most(&self, retention: Duration, now: Duration) -> Timestamp {
        let (floor, found_at) = self.found;
        let passed_ms = now.saturating_sub(found_at).as_millis() as u64;
        let since_found = Timestamp::from_millis(floor.millis() + passed_ms);
        let old = self.samples.iter().rev().find(|(_, at)| *at + retention <= now);
        old.map_or(since_found, |(time, _)| since_found.max(*time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETENTION: Duration = Duration::from_secs(600);
    const NOON_MS: u64 = 1_780_000_000_000;
    const DAY_MS: u64 = 86_400_000;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_leap_of_the_oracle_takes_nothing_away_for_a_whole_retention() {
        let mut pace = Pace::from(at(NOON_MS - 600_000), Duration::ZERO);
        for second in 0..2_000 {
            let leapt_ms = if second < 1_000 { 0 } else { 2 * DAY_MS };
            let now = Duration::from_secs(second);
            pace.note(at(NOON_MS + 1_000 * second + leapt_ms), RETENTION, now);
            let most = pace.most(RETENTION, now);
            // The clocks leap at 1000 s. For 600 s after that, no version younger than 600 s may be
            // dropped.
            if second < 1_600 {
                assert!(most <= at(NOON_MS + 1_000 * second - 600_000), "second {second}");
            }
        }
        assert!(pace.most(RETENTION, Duration::from_secs(2_000)) > at(NOON_MS + 2 * DAY_MS));
    }

    #[test]
    fn a_new_control_plane_lets_the_floor_rise_with_time() {
        let pace = Pace::from(at(NOON_MS), Duration::from_secs(7));
        assert_eq!(pace.most(RETENTION, Duration::from_secs(7)), at(NOON_MS));
        assert_eq!(pace.most(RETENTION, Duration::from_secs(67)), at(NOON_MS + 60_000));
    }

    #[test]
    fn a_retention_after_it_began_it_has_caught_up_with_what_was_missed() {
        // All nodes were down for two days.
        let mut pace = Pace::from(at(NOON_MS - 2 * DAY_MS), Duration::ZERO);
        for second in 0..=660 {
            pace.note(at(NOON_MS + 1_000 * second), RETENTION, Duration::from_secs(second));
        }
        let most = pace.most(RETENTION, Duration::from_secs(660));
        assert_eq!(most, at(NOON_MS + 60_000));
    }

    #[test]
    fn samples_are_bounded_whatever_becomes_of_the_retention() {
        let mut pace = Pace::default();
        for second in 0..10_000 {
            let retention = Duration::from_secs([5, 86_400][second / 5 % 2]);
            pace.note(at(NOON_MS), retention, Duration::from_secs(second as u64));
            assert!(pace.samples.len() <= SAMPLES_MAX);
        }
    }
}
