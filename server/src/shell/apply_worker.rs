//! Thread of an applier: it takes in committed entries, applies them in rounds, and hands out
//! replies and events.
//!
//! The thread evaluates commands and writes the state, so it may be as slow as both. The store's
//! thread never waits for it. An error of the engine or a panic ends the process (`end.rs`).

use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use rangedb_raftstore::{Applier, ApplyEffect, ApplyTask};

use crate::handle::{EventSink, StoreHandle};
use crate::shell::end;
use crate::shell::flusher::Flusher;
use crate::shell::mailbox::Mailbox;
use crate::shell::niceness;

/// Maximum number of tasks taken in between two rounds, so that arriving tasks do not hold up the
/// rounds.
const TASKS_AHEAD_MAX: usize = 1024;

enum Mail {
    Task(ApplyTask),
    Flushed(u64),
    Stop,
}

/// Sending end of the thread's queue. Cheap to clone. The queue needs no bound of its own: replicas
/// bound the entries that are committed and not yet applied.
#[derive(Clone)]
pub(crate) struct ApplyQueue(Sender<Mail>);

/// Receiving end of the thread's queue.
pub(crate) struct ApplyInbox(Receiver<Mail>);

pub(crate) fn new() -> (ApplyQueue, ApplyInbox) {
    let (sender, receiver) = crossbeam_channel::unbounded();
    (ApplyQueue(sender), ApplyInbox(receiver))
}

impl ApplyQueue {
    pub fn send(&self, task: ApplyTask) {
        let sent = self.0.send(Mail::Task(task));
        assert!(sent.is_ok(), "the applier ended before its store");
    }

    /// Tells the applier that a flush has finished. An applier that has stopped needs no notice.
    pub fn flushed(&self, flush: u64) {
        let _ = self.0.send(Mail::Flushed(flush));
    }

    /// Asks the thread to end after the tasks that were sent before.
    pub fn stop(&self) {
        let _ = self.0.send(Mail::Stop);
    }
}

/// Applier, with the parts of the node that it talks to.
pub(crate) struct ApplyWorker {
    shard: usize,
    applier: Applier,
    inbox: ApplyInbox,
    store: Mailbox,
    stores: StoreHandle,
    flusher: Flusher,
}

impl ApplyWorker {
    pub fn start(
        shard: usize,
        applier: Applier,
        inbox: ApplyInbox,
        store: Mailbox,
        stores: StoreHandle,
        flusher: Flusher,
    ) -> std::io::Result<JoinHandle<()>> {
        let worker = ApplyWorker { shard, applier, inbox, store, stores, flusher };
        end::thread(format!("apply-{shard}"), move || worker.run())
    }

    fn run(mut self) {
        niceness::of_this_thread(niceness::APPLY);
        let mut stopping = false;
        while !stopping || self.applier.has_work() {
            stopping |= !self.take_mail(stopping);
            if !self.applier.has_work() {
                continue;
            }
            let effects = self.applier.run().unwrap_or_else(|error| {
                end::process(&format!("apply-{}", self.shard), error);
            });
            self.perform(effects);
        }
    }

    /// Takes in the waiting mail, and waits for mail if the applier has no work. False if the
    /// thread is to end.
    fn take_mail(&mut self, stopping: bool) -> bool {
        let mut next = match self.applier.has_work() || stopping {
            true => self.inbox.0.try_recv().ok(),
            // Without senders no more mail can come.
            false => Some(self.inbox.0.recv().unwrap_or(Mail::Stop)),
        };
        for ahead in 0.. {
            match next {
                Some(Mail::Task(task)) => self.applier.step(task),
                Some(Mail::Flushed(flush)) => {
                    let effects = self.applier.on_flushed(flush);
                    self.perform(effects);
                }
                Some(Mail::Stop) => return false,
                None => return true,
            }
            if ahead == TASKS_AHEAD_MAX {
                break;
            }
            next = self.inbox.0.try_recv().ok();
        }
        true
    }

    fn perform(&self, effects: Vec<ApplyEffect>) {
        for effect in effects {
            match effect {
                ApplyEffect::Reply { request, result } => self.stores.reply(request, result),
                // A store that has ended does not need the event: the next start replays the log.
                ApplyEffect::Event(event) => drop(self.store.send(event)),
                ApplyEffect::Flush { flush } => self.flusher.flush_for_applier(self.shard, flush),
            }
        }
    }
}
