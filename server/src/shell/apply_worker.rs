//! The thread of an applier: committed entries in, rounds, answers and events out.
//!
//! It evaluates commands and writes the state, so it may be as slow as those are; the store's thread
//! beside it never waits for it. An error of the engine or a panic ends the process (`end.rs`).

use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use rangedb_raftstore::{Applier, ApplyEffect, ApplyTask};

use crate::handle::{EventSink, StoreHandle};
use crate::shell::end;
use crate::shell::flusher::Flusher;
use crate::shell::mailbox::Mailbox;
use crate::shell::niceness;

/// Tasks taken in between two rounds at most, so that rounds of what is there go on.
const TASKS_AHEAD_MAX: usize = 1024;

enum Mail {
    Task(ApplyTask),
    Flushed(u64),
    Stop,
}

/// The way to the thread. Cheap to clone. The queue needs no bound of its own: replicas bound what
/// they have committed and not seen applied.
#[derive(Clone)]
pub(crate) struct ApplyQueue(Sender<Mail>);

/// The thread's end of the queue.
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

    /// An applier that is stopping has no use for it.
    pub fn flushed(&self, flush: u64) {
        let _ = self.0.send(Mail::Flushed(flush));
    }

    /// Asks the thread to end once it has carried out what came before.
    pub fn stop(&self) {
        let _ = self.0.send(Mail::Stop);
    }
}

/// An applier and those it talks to.
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

    /// Takes in what has come, waiting for it if there is nothing to do. False if the thread is to end.
    fn take_mail(&mut self, stopping: bool) -> bool {
        let mut next = match self.applier.has_work() || stopping {
            true => self.inbox.0.try_recv().ok(),
            // Without senders nothing can come any more.
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
                // A store that has ended has no use for it: the next start replays the log.
                ApplyEffect::Event(event) => drop(self.store.send(event)),
                ApplyEffect::Flush { flush } => self.flusher.flush_for_applier(self.shard, flush),
            }
        }
    }
}
