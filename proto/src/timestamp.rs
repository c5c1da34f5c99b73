//! Timestamps of the oracle: 46 bits of milliseconds since 1970 and 18 bits of counter. So they
//! order by time, fit a positive i64 until the year 3084, and there are 262,144 in each
//! millisecond. TiKV's timestamps have the same split.

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

    /// The last millisecond that a timestamp can be of.
    pub const MILLIS_MAX: u64 = Self::MAX.0 >> LOGICAL_BITS;

    /// Returns the first timestamp of a millisecond since 1970. A millisecond above
    /// [`Self::MILLIS_MAX`] counts as that one, and never as an earlier moment.
    pub const fn from_millis(millis: u64) -> Self {
        let last = Self::MILLIS_MAX;
        Timestamp(if millis < last { millis } else { last } << LOGICAL_BITS)
    }

    /// Returns the milliseconds since 1970.
    pub fn millis(self) -> u64 {
        self.0 >> LOGICAL_BITS
    }

    /// Returns the counter within the millisecond.
    pub fn logical(self) -> u64 {
        self.0 & ((1 << LOGICAL_BITS) - 1)
    }

    /// Returns the next timestamp; carries into the milliseconds.
    pub fn next(self) -> Self {
        Timestamp(self.0 + 1)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_beyond_the_last_millisecond_do_not_become_early_ones() {
        let last = Timestamp::from_millis(Timestamp::MILLIS_MAX);
        assert!(last <= Timestamp::MAX && last.millis() == Timestamp::MILLIS_MAX);
        for millis in [Timestamp::MILLIS_MAX + 1, 1 << 46, 1 << 60, u64::MAX] {
            assert_eq!(Timestamp::from_millis(millis), last);
        }
        assert_eq!(Timestamp::from_millis(5).next().millis(), 5);
    }
}
