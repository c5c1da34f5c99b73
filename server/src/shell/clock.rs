//! The two clocks of a node.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rangedb_raftstore::Monotonic;
use rustix::time::{ClockId, clock_gettime};

use crate::surroundings::WallClock;

/// Returns the microseconds since the first call. Nobody sets this clock, and it goes on while the
/// machine sleeps: a leader that slept must find its leases expired.
pub(crate) fn monotonic() -> Monotonic {
    static START: OnceLock<u64> = OnceLock::new();
    let now = clock_gettime(ClockId::Boottime);
    let micros = now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000;
    Monotonic(micros - *START.get_or_init(|| micros).min(&micros))
}

/// The time of day of the operating system.
pub(crate) struct SystemClock;

impl WallClock for SystemClock {
    fn unix_millis(&self) -> u64 {
        // A time before 1970 counts as 1970: the oracle goes on from its stored bound either way.
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
    }
}
