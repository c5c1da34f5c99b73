//! Faults at delicate moments: a flush begins, a whole snapshot has arrived, a leader begins to
//! lead, a vote is in flight. Faults at random times seldom meet a moment of a few milliseconds.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::occurrence::{Fault, Host, Occurrence};
use crate::schedule::{MILLISECOND, Micros, Schedule};

/// Maximum delays between the moment and the crash, each as likely.
const DELAYS_MAX: [Micros; 3] = [2 * MILLISECOND, 40 * MILLISECOND, 500 * MILLISECOND];

/// Moment that a fault waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Moment {
    FlushBegins,
    SnapshotComes,
    LeadershipBegins,
    /// A replica has asked for pre-votes.
    VoteIsAsked,
    /// A replica's vote has left for the candidate.
    VoteIsGiven,
    /// A leader has given out a reader for a snapshot read.
    PastIsRead,
}

impl Moment {
    /// Moments at which a process crashes, on any node.
    pub const CRASHES: [Moment; 3] =
        [Moment::FlushBegins, Moment::SnapshotComes, Moment::LeadershipBegins];
}

/// A moment that has come.
#[derive(Clone, Copy, Debug)]
pub struct ReachedMoment {
    pub moment: Moment,
    pub slot: usize,
    /// Range that the moment belongs to, if any.
    pub range: Option<u64>,
    /// Slot at the other end of the message, if known.
    pub other: Option<usize>,
}

/// Fault that waits for a moment of some range, and maybe of one process.
pub struct Snare {
    pub moment: Moment,
    pub slot: Option<usize>,
    /// `None` for any range.
    pub range: Option<u64>,
    /// Maximum delay between the moment and the fault.
    pub delay_max: Micros,
    pub fault: Box<dyn Fn(ReachedMoment) -> Fault + Send>,
}

impl Snare {
    fn catches(&self, came: ReachedMoment) -> bool {
        self.moment == came.moment
            && self.slot.is_none_or(|slot| slot == came.slot)
            && (self.range.is_none() || self.range == came.range)
    }
}

#[derive(Default)]
struct PendingStrike {
    crashes: BTreeSet<Moment>,
    snares: Vec<Snare>,
}

/// Faults that wait for their moments, shared by all processes. Clones share the state.
#[derive(Clone, Default)]
pub struct Ambush(Arc<Mutex<PendingStrike>>);

impl Ambush {
    /// Makes the next process that comes to the moment crash.
    pub fn lie(&self, moment: Moment) {
        self.lock().crashes.insert(moment);
    }

    /// Adds a snare, which replaces the one for the same moment.
    pub fn lay(&self, snare: Snare) {
        let snares = &mut self.lock().snares;
        snares.retain(|other| other.moment != snare.moment);
        snares.push(snare);
    }

    pub fn lift(&self) {
        *self.lock() = PendingStrike::default();
    }

    /// True if anything waits for the moment.
    pub fn waits_for(&self, moment: Moment) -> bool {
        let waiting = self.lock();
        waiting.crashes.contains(&moment)
            || waiting.snares.iter().any(|snare| snare.moment == moment)
    }

    /// Schedules the faults that wait for this moment.
    pub fn comes(&self, came: ReachedMoment, schedule: &Schedule) {
        let mut waiting = self.lock();
        if waiting.crashes.remove(&came.moment) {
            let most = DELAYS_MAX[schedule.random(|rng| rng.usize(0..DELAYS_MAX.len()))];
            let delay = schedule.between(0, most);
            let strike = Fault::Strike { slot: came.slot };
            schedule.after(delay, Host::World, Occurrence::Fault(strike));
        }
        for snare in waiting.snares.extract_if(.., |snare| snare.catches(came)) {
            let delay = schedule.between(0, snare.delay_max);
            schedule.after(delay, Host::World, Occurrence::Fault((snare.fault)(came)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, PendingStrike> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Network, Weather};
    use crate::trace::Trace;

    fn schedule() -> Schedule {
        let network = Network::new(Weather::fair());
        Schedule::new(fastrand::Rng::with_seed(1), network, Trace::default())
    }

    fn came(moment: Moment, slot: usize, range: u64) -> ReachedMoment {
        ReachedMoment { moment, slot, range: Some(range), other: None }
    }

    /// Takes all scheduled faults out of the queue.
    fn faults(schedule: &Schedule) -> Vec<Fault> {
        let next = || match schedule.next()? {
            (Host::World, Occurrence::Fault(fault)) => Some(fault),
            (host, other) => panic!("{host:?} {}", other.describe()),
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_crash_strikes_the_first_who_comes_to_its_moment_and_nobody_else() {
        let (ambush, schedule) = (Ambush::default(), schedule());
        ambush.lie(Moment::FlushBegins);
        for (moment, slot) in
            [(Moment::SnapshotComes, 0), (Moment::FlushBegins, 1), (Moment::FlushBegins, 2)]
        {
            ambush.comes(came(moment, slot, 1), &schedule);
        }
        assert_eq!(faults(&schedule), [Fault::Strike { slot: 1 }]);
    }

    #[test]
    fn a_snare_waits_for_its_own_process_and_range_and_for_one_of_them_at_a_time() {
        let (ambush, schedule) = (Ambush::default(), schedule());
        let lay = |slot| {
            ambush.lay(Snare {
                moment: Moment::VoteIsGiven,
                slot: Some(slot),
                range: Some(7),
                delay_max: MILLISECOND,
                fault: Box::new(|came| Fault::Restart { slot: came.slot }),
            });
        };
        lay(0);
        lay(2);
        for (slot, range) in [(0, 7), (2, 6)] {
            ambush.comes(came(Moment::VoteIsGiven, slot, range), &schedule);
            assert!(ambush.waits_for(Moment::VoteIsGiven));
        }
        for _ in 0..2 {
            ambush.comes(came(Moment::VoteIsGiven, 2, 7), &schedule);
            assert!(!ambush.waits_for(Moment::VoteIsGiven));
        }
        assert_eq!(faults(&schedule), [Fault::Restart { slot: 2 }]);
    }
}
