//! The queue of one store, which schedules a pass while there is mail.

use std::collections::VecDeque;

use parking_lot::Mutex;
use rangedb_raftstore::Event;
use rangedb_server::handle::EventSink;

use crate::occurrence::{Host, Occurrence};
use crate::schedule::{Micros, Schedule};

/// Maximum time until a store takes its mail.
const MAIL_DELAY_MAX: Micros = 60;

/// Content of a queue.
#[derive(Default)]
struct Mail {
    events: VecDeque<Event>,
    pass_scheduled: bool,
}

/// The queue of one store.
pub struct Mailbox {
    mail: Mutex<Mail>,
    schedule: Schedule,
    host: Host,
    shard: usize,
    /// Requests that find the queue full, out of 10,000.
    full: u32,
}

impl Mailbox {
    pub fn new(schedule: &Schedule, host: Host, shard: usize, full: u32) -> Self {
        Mailbox { mail: Mutex::default(), schedule: schedule.clone(), host, shard, full }
    }

    /// Adds an event that no queue may refuse.
    pub fn put(&self, event: Event) {
        self.mail.lock().events.push_back(event);
        self.want_pass();
    }

    /// Schedules a pass, unless one is on its way.
    pub fn want_pass(&self) {
        let mut mail = self.mail.lock();
        if !std::mem::replace(&mut mail.pass_scheduled, true) {
            drop(mail);
            let delay = self.schedule.between(1, MAIL_DELAY_MAX);
            self.schedule.after(delay, self.host, Occurrence::Pass { shard: self.shard });
        }
    }

    /// Takes all mail, for the pass that was scheduled.
    pub fn take(&self) -> VecDeque<Event> {
        let mut mail = self.mail.lock();
        mail.pass_scheduled = false;
        std::mem::take(&mut mail.events)
    }
}

impl EventSink for Mailbox {
    fn send(&self, event: Event) -> Result<(), Event> {
        let may_be_refused =
            matches!(event, Event::Propose { .. } | Event::Read { .. } | Event::Operate { .. });
        if may_be_refused && self.schedule.random(|rng| rng.u32(0..10_000) < self.full) {
            return Err(event);
        }
        self.put(event);
        Ok(())
    }
}
