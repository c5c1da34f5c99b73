//! Thread of a store: it takes events from the mailbox, runs a pass, and carries out the effects.
//!
//! The driver makes the ticks from the monotonic clock, one at a time. It never makes up for lost
//! ticks: after a pause of the process, a replica would otherwise forget its leader sooner than the
//! leader's lease allows. The driver reads the clock again after a pass, before it hands out a
//! reader under a lease: the lease may have expired during the pass.
//!
//! The driver does no work that grows with data: the applier's thread evaluates commands
//! (`apply_worker.rs`). It waits for a disk only while the log writer's queue is full
//! (`log_writer.rs`).
//!
//! An error of the engines or a panic ends the process (`end.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rangedb_raftstore::{Effect, Event, Io, Monotonic, Store};

use crate::handle::StoreHandle;
use crate::node::Node;
use crate::shell::apply_worker::ApplyQueue;
use crate::shell::clock::monotonic;
use crate::shell::end;
use crate::shell::flusher::Flusher;
use crate::shell::log_writer::LogWriter;
use crate::shell::mailbox::{Inbox, Taken};
use crate::shell::snapshots::SnapshotSender;
use crate::shell::transport::Transport;
use crate::status_board::StatusBoard;

/// Maximum number of events in one pass: enough to fill a log entry, and few enough that a pass
/// stays short compared to a tick.
const PASS_EVENTS_MAX: usize = 4096;

/// Parts of the node that carry out a driver's effects.
#[derive(Clone)]
pub(crate) struct EffectHandlers {
    pub stores: StoreHandle,
    pub node: Arc<Node>,
    pub board: Arc<StatusBoard>,
    pub log_writer: LogWriter,
    pub flusher: Flusher,
    pub transport: Arc<Transport>,
    pub snapshots: Arc<SnapshotSender>,
}

/// Time of a driver's last sign of life, in microseconds on the monotonic clock.
#[derive(Default)]
pub(crate) struct Liveness(AtomicU64);

impl Liveness {
    fn beat(&self, now: Monotonic) {
        self.0.store(now.0, Ordering::Relaxed);
    }

    pub fn age(&self) -> Duration {
        let beat = self.0.load(Ordering::Relaxed);
        Duration::from_micros(monotonic().0.saturating_sub(beat))
    }
}

/// Store of one shard, with the state of its thread.
pub(crate) struct Driver {
    shard: usize,
    store: Store,
    inbox: Inbox,
    tick_us: u64,
    apply: ApplyQueue,
    performers: EffectHandlers,
    pulse: Arc<Liveness>,
    /// Value of the last [`Event::LogStalled`]; false before the first.
    log_stalled: bool,
}

impl Driver {
    pub fn start(
        shard: usize,
        store: Store,
        inbox: Inbox,
        tick_us: u64,
        apply: ApplyQueue,
        performers: EffectHandlers,
        pulse: Arc<Liveness>,
    ) -> std::io::Result<JoinHandle<()>> {
        pulse.beat(monotonic());
        let log_stalled = false;
        let driver = Driver { shard, store, inbox, tick_us, apply, performers, pulse, log_stalled };
        end::thread(format!("store-{shard}"), move || driver.run())
    }

    fn run(mut self) {
        self.performers.board.publish(self.shard, &self.store);
        let mut next_tick = Monotonic(monotonic().0 + self.tick_us);
        loop {
            if !self.take_mail(next_tick) {
                return;
            }
            let now = monotonic();
            let ticked = now >= next_tick;
            if ticked {
                next_tick = Monotonic(now.0 + self.tick_us);
                self.look_at_log();
                self.store.step(Event::Tick);
            }
            self.pass();
            if ticked {
                self.performers.board.publish(self.shard, &self.store);
                self.pulse.beat(now);
            }
        }
    }

    /// Tells the store when log writes begin to stall, and when they complete again.
    fn look_at_log(&mut self) {
        let stalled = self.performers.log_writer.backlog().is_stalled();
        if std::mem::replace(&mut self.log_stalled, stalled) != stalled {
            self.store.step(Event::LogStalled(stalled));
        }
    }

    /// Steps the waiting events, and waits for one until the next tick if the store has no work.
    /// False if the driver is to end.
    fn take_mail(&mut self, next_tick: Monotonic) -> bool {
        let wait = next_tick.0.saturating_sub(monotonic().0);
        let mut taken = if self.store.has_work() || wait == 0 {
            self.inbox.take()
        } else {
            self.inbox.wait(Duration::from_micros(wait))
        };
        for _ in 0..PASS_EVENTS_MAX {
            match taken {
                Taken::Event(event) => self.store.step(event),
                Taken::Nothing => break,
                Taken::Stop => return false,
            }
            taken = self.inbox.take();
        }
        match taken {
            Taken::Event(event) => self.store.step(event),
            Taken::Nothing => {}
            Taken::Stop => return false,
        }
        true
    }

    fn pass(&mut self) {
        let effects = match self.store.flush(monotonic()) {
            Ok(effects) => effects,
            Err(error) => end::process(&format!("store-{}", self.shard), error),
        };
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&self, effect: Effect) {
        match effect {
            Effect::Answer(answer) => self.performers.stores.answer(answer, monotonic()),
            Effect::Io(io) => self.perform_io(io),
            Effect::Role(change) => self.performers.node.on_role_change(change),
        }
    }

    fn perform_io(&self, io: Io) {
        let performers = &self.performers;
        match io {
            Io::Send(envelope) => performers.transport.send(envelope),
            Io::Append { token, batch } => performers.log_writer.append(self.shard, token, batch),
            Io::Apply(task) => self.apply.send(task),
            Io::Flush { token } => performers.flusher.flush(self.shard, token),
            Io::SendSnapshot { envelope, index, reader, span } => {
                performers.snapshots.send(envelope, index, reader, span);
            }
        }
    }
}
