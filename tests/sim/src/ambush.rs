//! Crashes at delicate moments: when a flush has begun, a snapshot has come in whole, a leader begins
//! to lead. Crashes at random times seldom meet what is over in a few milliseconds.

use std::sync::{Arc, Mutex};

use crate::occurrence::{Fault, Host, Occurrence};
use crate::schedule::{MILLISECOND, Micros, Schedule};

/// From the moment to the crash, at most; each is as likely.
const DELAYS_MAX: [Micros; 3] = [2 * MILLISECOND, 40 * MILLISECOND, 500 * MILLISECOND];

/// What a crash waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    FlushBegins,
    SnapshotComes,
    LeadershipBegins,
}

impl Moment {
    pub const ALL: [Moment; 3] =
        [Moment::FlushBegins, Moment::SnapshotComes, Moment::LeadershipBegins];
}

/// The trap that all processes share. Clones are the same.
#[derive(Clone, Default)]
pub struct Ambush(Arc<Mutex<Option<Moment>>>);

impl Ambush {
    /// The next process that comes to the moment crashes.
    pub fn lie(&self, moment: Moment) {
        *self.0.lock().expect("no panic holds it") = Some(moment);
    }

    pub fn lift(&self) {
        *self.0.lock().expect("no panic holds it") = None;
    }

    /// A process has come to a moment.
    pub fn comes(&self, slot: usize, moment: Moment, schedule: &Schedule) {
        let sprung = self.0.lock().expect("no panic holds it").take_if(|waits| *waits == moment);
        if sprung.is_some() {
            let most = DELAYS_MAX[schedule.random(|rng| rng.usize(0..DELAYS_MAX.len()))];
            let delay = schedule.between(0, most);
            schedule.after(delay, Host::World, Occurrence::Fault(Fault::Strike { slot }));
        }
    }
}
