//! Rate limit of log lines that a stranger can cause. Without it, a stranger who asks again and
//! again could fill the disk that holds the log.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Minimum time between two lines.
const PAUSE: Duration = Duration::from_secs(10);

/// Rate limit of one kind of line.
#[derive(Default)]
pub(crate) struct Seldom(Mutex<State>);

#[derive(Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// Returns the number of lines left out since the last one, if a line may be written now.
    pub fn may_write(&self) -> Option<u64> {
        self.may_write_at(Instant::now())
    }

    fn may_write_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_written_and_others_after_a_while_with_how_many_were_not() {
        let (lines, begin) = (Seldom::default(), Instant::now());
        assert_eq!(lines.may_write_at(begin), Some(0));
        assert_eq!(lines.may_write_at(begin + PAUSE / 2), None);
        assert_eq!(lines.may_write_at(begin + PAUSE / 2), None);
        assert_eq!(lines.may_write_at(begin + PAUSE), Some(2));
        assert_eq!(lines.may_write_at(begin + PAUSE), None);
        assert_eq!(lines.may_write_at(begin + 3 * PAUSE), Some(1));
    }
}
