//! Timestamps of the oracle: 46 bits of milliseconds since 1970, 18 bits of counter, so that they
//! order by time, fit a positive i64 until the year 4199, and 262,144 exist in each millisecond.
//! The same split as TiKV's.

use std::fmt;

/// Bits of the counter within a millisecond.
const LOGICAL_BITS: u32 = 18;

/// A point in the order of all commits. 0 is before every commit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    pub const ZERO: Timestamp = Timestamp(0);
    /// Fits an i64, which is what other systems keep revisions in.
    pub const MAX: Timestamp = Timestamp(i64::MAX as u64);

    /// The first timestamp of a millisecond since 1970.
    pub fn from_millis(millis: u64) -> Self {
        Timestamp(millis << LOGICAL_BITS)
    }

    /// Milliseconds since 1970.
    pub fn millis(self) -> u64 {
        self.0 >> LOGICAL_BITS
    }

    /// Place within the millisecond.
    pub fn logical(self) -> u64 {
        self.0 & ((1 << LOGICAL_BITS) - 1)
    }

    /// The next timestamp; carries into the milliseconds.
    pub fn next(self) -> Self {
        Timestamp(self.0 + 1)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
