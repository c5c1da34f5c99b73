//! Clocks of a machine: a monotonic clock that runs a little fast or slow, and a time of day that
//! is wrong and jumps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rangedb_raftstore::Monotonic;
use rangedb_server::surroundings::WallClock;

use crate::schedule::{Micros, Schedule};

/// True time of day when the world begins, in milliseconds since 1970: some day in 2026.
const BEGINNING_UNIX_MILLIS: i64 = 1_780_000_000_000;

const MILLION: u128 = 1_000_000;

/// A monotonic clock: `offset + time * rate`.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset: Micros,
    /// Microseconds of this clock in a million true ones.
    rate: u32,
}

impl Clock {
    /// Draws a clock that is at most `drift` microseconds off in a million.
    pub fn draw(rng: &mut fastrand::Rng, drift: u32) -> Self {
        let rate = rng.u32(1_000_000 - drift..=1_000_000 + drift);
        Clock { offset: rng.u64(0..1_000_000_000), rate }
    }

    pub fn read(self, now: Micros) -> Monotonic {
        let ran = u128::from(now) * u128::from(self.rate) / MILLION;
        Monotonic(self.offset + ran as u64)
    }

    /// Returns the true time until the clock has advanced by `own`, or a little more.
    pub fn until(self, own: Micros) -> Micros {
        (u128::from(own) * MILLION).div_ceil(u128::from(self.rate)) as u64 + 1
    }

    pub fn duration(self, now: Micros) -> Duration {
        Duration::from_micros(self.read(now).0)
    }
}

/// The true time of day, in milliseconds since 1970.
pub fn true_millis(schedule: &Schedule) -> u64 {
    BEGINNING_UNIX_MILLIS as u64 + schedule.now() / 1000
}

/// Time of day of a machine. All clones of a clock see its jumps.
#[derive(Clone)]
pub struct TimeOfDay {
    schedule: Schedule,
    wrong_by_millis: Arc<AtomicI64>,
}

impl TimeOfDay {
    pub fn new(schedule: Schedule, wrong_by_millis: i64) -> Self {
        TimeOfDay { schedule, wrong_by_millis: Arc::new(wrong_by_millis.into()) }
    }

    pub fn set_wrong_by(&self, millis: i64) {
        self.wrong_by_millis.store(millis, Ordering::Relaxed);
    }

    pub fn step_by(&self, millis: i64) {
        self.wrong_by_millis.fetch_add(millis, Ordering::Relaxed);
    }
}

impl WallClock for TimeOfDay {
    fn unix_millis(&self) -> u64 {
        let wrong_by = self.wrong_by_millis.load(Ordering::Relaxed);
        let millis = true_millis(&self.schedule) as i64 + wrong_by;
        millis.max(0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_on_a_drifting_clock_is_never_too_short() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..1000 {
            let clock = Clock::draw(&mut rng, 50_000);
            let (now, own) = (rng.u64(0..1 << 40), rng.u64(0..1 << 30));
            let passed = clock.read(now + clock.until(own)).0 - clock.read(now).0;
            assert!(passed >= own && passed <= own + 3, "{clock:?} {now} {own} {passed}");
        }
    }
}
