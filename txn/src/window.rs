//! Which commands were applied lately, in memory.
//!
//! Whether a command was applied before is written in the state: one of its key's versions carries
//! its start_ts. On a key that many write at once, finding out means a walk over every version newer
//! than the command's start_ts, for each command. The window spares that walk for recent commands.
//!
//! Transactions over ranges count as commands here: they are in the window once they committed
//! something in the range.
//!
//! The window never decides anything that the state does not say: cold, right after a restart, it
//! answers `None` and the walk follows; warm, it answers what the walk would find. So replicas with
//! different windows still agree.

use std::collections::BTreeSet;

/// Start timestamps kept. More than the commands of one range that are in flight at once; a node
/// with a thousand busy ranges spends well below 100 MB on them.
const WINDOW_COMMANDS_MAX: usize = 4096;

/// Start timestamps of the commands applied since the machine was loaded.
///
/// Invariants:
/// - A command with start_ts above `floor` was applied if and only if it is in `applied`.
/// - Everything in `applied` is above `floor`.
#[derive(Debug)]
pub struct AppliedWindow {
    applied: BTreeSet<u64>,
    floor: u64,
}

impl AppliedWindow {
    /// A window that knows of no command yet. Every command applied before has a commit timestamp
    /// of at most `last_commit_ts`, and a start_ts not above that.
    pub fn new(last_commit_ts: u64) -> Self {
        AppliedWindow { applied: BTreeSet::new(), floor: last_commit_ts }
    }

    /// Whether a command was applied; `None` if only the state knows.
    pub fn contains(&self, start_ts: u64) -> Option<bool> {
        (start_ts > self.floor).then(|| self.applied.contains(&start_ts))
    }

    pub fn insert(&mut self, start_ts: u64) {
        if start_ts <= self.floor {
            return;
        }
        self.applied.insert(start_ts);
        if self.applied.len() > WINDOW_COMMANDS_MAX {
            self.floor = self.applied.pop_first().expect("just inserted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_nothing_of_what_was_applied_before_it_was_made() {
        let window = AppliedWindow::new(10);
        assert_eq!(window.contains(10), None);
        assert_eq!(window.contains(11), Some(false));
    }

    #[test]
    fn answers_exactly_above_its_floor_however_many_commands_pass() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut window = AppliedWindow::new(0);
        let mut applied = BTreeSet::new();
        for _ in 0..4 * WINDOW_COMMANDS_MAX {
            let start_ts = rng.u64(1..100_000);
            window.insert(start_ts);
            applied.insert(start_ts);
        }
        let known = (1..100_000).filter(|ts| window.contains(*ts).is_some()).count();
        assert!(known > WINDOW_COMMANDS_MAX, "a window that knows nothing is of no use");
        for start_ts in 1..100_000 {
            if let Some(contains) = window.contains(start_ts) {
                assert_eq!(contains, applied.contains(&start_ts), "start_ts {start_ts}");
            }
        }
    }
}
