//! Thread that flushes the state. It also purges dropped entries from the log and tells the engine
//! which versions compaction may drop. All three may take seconds, and none may delay a store.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rangedb_raftstore::{Event, Room};
use rangedb_storage::{Error, LogEngine, RocksState, StateEngine};

use crate::compaction::CompactionBounds;
use crate::handle::EventSink;
use crate::shell::apply_worker::ApplyQueue;
use crate::shell::disk_watch::{DiskWatch, RETRY_EVERY};
use crate::shell::end;
use crate::shell::mailbox::Mailbox;
use crate::status_board::StatusBoard;

/// Interval between two purges of the log, and between two updates of the compaction bounds. The
/// log grows by no more than some gigabytes in that time. The read of one page takes far less.
const PURGE_EVERY: Duration = Duration::from_secs(10);

/// Interval between two purges while the disk is short of room.
const PURGE_SHORT_EVERY: Duration = Duration::from_secs(2);

/// Maximum time that one pass of the loop adds to an interval. Example: the process stands still
/// for an hour. If the hour counted, compaction could drop versions as soon as the process goes on.
/// Reads that began before the pause may still need them.
const STEP_MAX: Duration = Duration::from_secs(1);

/// Requester of a flush, with its own name for the flush.
enum Requester {
    Store { shard: usize, token: u64 },
    Applier { shard: usize, flush: u64 },
}

/// Requesters to notify when a flush has finished.
pub(crate) struct Tellers {
    pub stores: Vec<Mailbox>,
    pub appliers: Vec<ApplyQueue>,
}

impl Tellers {
    fn tell(&self, asked: Requester) {
        match asked {
            Requester::Store { shard, token } => {
                // A store that is stopping does not need the event.
                let _ = self.stores[shard].send(Event::Flushed { token });
            }
            Requester::Applier { shard, flush } => self.appliers[shard].flushed(flush),
        }
    }
}

/// Handle to the thread. Cheap to clone. The thread ends once every clone is dropped.
#[derive(Clone)]
pub(crate) struct Flusher(Sender<Requester>);

impl Flusher {
    pub fn start(
        state: Arc<RocksState>,
        log: Arc<dyn LogEngine>,
        board: Arc<StatusBoard>,
        tellers: Tellers,
        disk: Arc<DiskWatch>,
    ) -> std::io::Result<(Flusher, JoinHandle<()>)> {
        // Unbounded: a store asks for one flush at a time, an applier for one per change of
        // structure.
        let (sender, receiver) = crossbeam_channel::unbounded();
        let thread = end::thread("flusher".to_owned(), move || {
            flush_all(&receiver, &state, &*log, &board, &tellers, &disk);
        })?;
        Ok((Flusher(sender), thread))
    }

    /// Requests a flush. The store receives [`Event::Flushed`] once all that it has written so far
    /// is durable.
    pub fn flush(&self, shard: usize, token: u64) {
        self.ask(Requester::Store { shard, token });
    }

    /// Requests a flush. The shard's applier is notified once all that it has written so far is
    /// durable.
    pub fn flush_for_applier(&self, shard: usize, flush: u64) {
        self.ask(Requester::Applier { shard, flush });
    }

    fn ask(&self, asked: Requester) {
        let sent = self.0.send(asked);
        assert!(sent.is_ok(), "the flusher ended before those that ask it");
    }
}

fn flush_all(
    wanted: &Receiver<Requester>,
    state: &RocksState,
    log: &dyn LogEngine,
    board: &StatusBoard,
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
                // Meanwhile the loop goes on purging the log, which may make room.
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
                // A purge moves entries before it gives room back. The next purge may find room.
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

/// Interval that counts only time in which this process runs.
struct Interval {
    length: Duration,
    passed: Duration,
    looked_at: Instant,
}

impl Interval {
    fn new(length: Duration, now: Instant) -> Self {
        Interval { length, passed: Duration::ZERO, looked_at: now }
    }

    /// True if the interval has ended; the next one then begins. Must be called more often than
    /// every [`STEP_MAX`].
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
