//! The thread that flushes the state, and now and then gives back the space of dropped log entries and
//! tells the engine what compaction may drop. All may take seconds; none may hold up a store.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rangedb_raftstore::{Event, Room};
use rangedb_storage::{Error, LogEngine, RocksState, StateEngine};

use crate::board::Board;
use crate::compaction::CompactionBounds;
use crate::handle::EventSink;
use crate::shell::apply_worker::ApplyQueue;
use crate::shell::disk_watch::{DiskWatch, RETRY_EVERY};
use crate::shell::end;
use crate::shell::mailbox::Mailbox;

/// Between two purges of the log, which grows by no more than some gigabytes in that time, and
/// between two looks at how far replicas collect: far longer than a read of one page takes.
const PURGE_EVERY: Duration = Duration::from_secs(10);

/// Between two purges while the disk is short of room.
const PURGE_SHORT_EVERY: Duration = Duration::from_secs(2);

/// Time between two looks at the clock counts up to this. A process that stood still for long would
/// otherwise let compaction drop, as soon as it goes on, what reads that began before still look for.
const STEP_MAX: Duration = Duration::from_secs(1);

/// The asker of a flush, with its name for it.
enum Asked {
    Store { shard: usize, token: u64 },
    Applier { shard: usize, flush: u64 },
}

/// Askers of flushes, who are told when one is finished.
pub(crate) struct Tellers {
    pub stores: Vec<Mailbox>,
    pub appliers: Vec<ApplyQueue>,
}

impl Tellers {
    fn tell(&self, asked: Asked) {
        match asked {
            Asked::Store { shard, token } => {
                // A store that is stopping has no use for it.
                let _ = self.stores[shard].send(Event::Flushed { token });
            }
            Asked::Applier { shard, flush } => self.appliers[shard].flushed(flush),
        }
    }
}

/// The way to the thread. Cheap to clone; the thread ends once every clone is dropped.
#[derive(Clone)]
pub(crate) struct Flusher(Sender<Asked>);

impl Flusher {
    pub fn start(
        state: Arc<RocksState>,
        log: Arc<dyn LogEngine>,
        board: Arc<Board>,
        tellers: Tellers,
        disk: Arc<DiskWatch>,
    ) -> std::io::Result<(Flusher, JoinHandle<()>)> {
        // A store asks for one flush at a time, an applier for one for each change of structure.
        let (sender, receiver) = crossbeam_channel::unbounded();
        let thread = end::thread("flusher".to_owned(), move || {
            flush_all(&receiver, &state, &*log, &board, &tellers, &disk);
        })?;
        Ok((Flusher(sender), thread))
    }

    /// The store hears [`Event::Flushed`] once what it has written by now is durable.
    pub fn flush(&self, shard: usize, token: u64) {
        self.ask(Asked::Store { shard, token });
    }

    /// The applier of the shard hears of it once what it has written by now is durable.
    pub fn flush_for_applier(&self, shard: usize, flush: u64) {
        self.ask(Asked::Applier { shard, flush });
    }

    fn ask(&self, asked: Asked) {
        let sent = self.0.send(asked);
        assert!(sent.is_ok(), "the flusher ended before those that ask it");
    }
}

fn flush_all(
    wanted: &Receiver<Asked>,
    state: &RocksState,
    log: &dyn LogEngine,
    board: &Board,
    tellers: &Tellers,
    disk: &DiskWatch,
) {
    let mut purging = Interval::new(PURGE_EVERY, Instant::now());
    let mut purging_short = Interval::new(PURGE_SHORT_EVERY, Instant::now());
    let mut bounds = CompactionBounds::default();
    let mut flushes = Vec::new();
    let mut waiting = None;
    loop {
        let pause = if flushes.is_empty() { STEP_MAX } else { RETRY_EVERY };
        match wanted.recv_timeout(pause) {
            Ok(first) => flushes.push(first),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        flushes.extend(wanted.try_iter());
        if !flushes.is_empty() && (waiting.is_none() || disk.has_room(0)) {
            match state.flush() {
                // Purging the log goes on meanwhile, which may make room.
                Err(Error::Full(reason)) => {
                    waiting.get_or_insert_with(|| disk.wait("flush the state", &reason));
                }
                flushed => {
                    flushed.unwrap_or_else(|error| end::process("flusher", error));
                    waiting = None;
                    flushes.drain(..).for_each(|asked| tellers.tell(asked));
                }
            }
        }
        let now = Instant::now();
        let (is_over, is_short_over) = (purging.is_over(now), purging_short.is_over(now));
        if is_over || (is_short_over && disk.seen().room != Room::Enough) {
            match log.purge() {
                // It moves entries before it gives room back. There may be some the next time.
                Err(Error::Full(reason)) => tracing::warn!("the log is not purged: {reason}"),
                purged => purged.unwrap_or_else(|error| end::process("flusher", error)),
            }
        }
        if is_over {
            bounds
                .raise(state, &board.ranges())
                .unwrap_or_else(|error| end::process("flusher", error));
        }
    }
}

/// An interval of the time in which this process runs.
struct Interval {
    length: Duration,
    passed: Duration,
    looked_at: Instant,
}

impl Interval {
    fn new(length: Duration, now: Instant) -> Self {
        Interval { length, passed: Duration::ZERO, looked_at: now }
    }

    /// True if it is over, and the next one has begun. To be asked more often than every [`STEP_MAX`].
    fn is_over(&mut self, now: Instant) -> bool {
        self.passed += now.saturating_duration_since(self.looked_at).min(STEP_MAX);
        self.looked_at = now;
        let is_over = self.passed >= self.length;
        if is_over {
            self.passed = Duration::ZERO;
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_does_not_end_while_the_process_stands_still() {
        let mut now = Instant::now();
        let mut interval = Interval::new(PURGE_EVERY, now);
        let mut after = |pause: Duration| {
            now += pause;
            interval.is_over(now)
        };
        assert!(!after(Duration::from_secs(3600)));
        let steps = (1..).find(|_| after(STEP_MAX / 2)).unwrap();
        assert_eq!(steps, 18, "of half a second each");
        assert!(!after(STEP_MAX));
    }
}
