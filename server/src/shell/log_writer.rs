//! Thread that makes Raft logs durable: one sync covers everything that waits, of all stores
//! (docs/architecture.md, D3). While one sync runs, the next batch gathers. So the busier the node,
//! the more each sync carries.
//!
//! A disk may hang. The thread then waits in a write or a sync for as long as that takes. Stores
//! read from the [`Backlog`] how long the batch under way has waited.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::{Condvar, Mutex, MutexGuard};
use rangedb_raftstore::Event;
use rangedb_storage::{LogBatch, LogChange, LogEngine};

use crate::handle::EventSink;
use crate::shell::disk_watch::DiskWatch;
use crate::shell::end;
use crate::shell::mailbox::Mailbox;

/// Maximum bytes of entries that wait for the writer, of all stores together. A store whose batch
/// finds no room waits, so that it takes in no more than the disk does. The bound is half a second
/// of a fast network. So a store detects a hanging disk as stalled before it waits here itself.
const WAITING_BYTES_MAX: u64 = 64 << 20;

/// Maximum number of batches that wait for the writer: some ten megabytes of small ones.
const WAITING_MAX: usize = 1 << 16;

/// Maximum bytes of entries written and synced at once: some ten milliseconds of a disk.
const APPEND_BYTES_MAX: u64 = 32 << 20;

/// Log writes of one pass of a store.
struct Append {
    shard: usize,
    token: u64,
    batch: LogBatch,
    handed_over: Instant,
}

/// Handle to the thread. Cheap to clone. The thread ends once every clone is dropped.
#[derive(Clone)]
pub(crate) struct LogWriter {
    appends: Sender<Append>,
    backlog: Backlog,
}

/// Batches that are not yet durable. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Backlog(Arc<Inner>);

struct Inner {
    waiting: Mutex<QueuedAppend>,
    /// Notified when batches were written.
    written: Condvar,
    /// Time after which a write counts as hanging and not as slow.
    stalled_after: Duration,
    /// True if the last log line about the disk says that writes hang.
    said: AtomicBool,
}

#[derive(Default)]
struct QueuedAppend {
    bytes: u64,
    batches: usize,
    /// Time at which the oldest of the batches that are being written was handed over.
    oldest: Option<Instant>,
}

impl Backlog {
    fn new(stalled_after: Duration) -> Self {
        Backlog(Arc::new(Inner {
            waiting: Mutex::default(),
            written: Condvar::new(),
            stalled_after,
            said: AtomicBool::new(false),
        }))
    }

    /// Returns the bytes of entries that are not yet durable.
    pub fn bytes(&self) -> u64 {
        self.waiting().bytes
    }

    /// Returns the time for which the batch under way has waited to be durable.
    pub fn stalled_for(&self) -> Duration {
        self.waiting().oldest.map_or(Duration::ZERO, |oldest| oldest.elapsed())
    }

    /// True if the disk seems to hang. Logs each change.
    pub fn is_stalled(&self) -> bool {
        let stalled_for = self.stalled_for();
        let is_stalled = stalled_for > self.0.stalled_after;
        match (self.0.said.swap(is_stalled, Ordering::Relaxed), is_stalled) {
            (false, true) => tracing::error!(
                ?stalled_for,
                "log writes do not complete: what others can do without this node is handed over"
            ),
            (true, false) => tracing::info!("log writes complete again"),
            _ => {}
        }
        is_stalled
    }

    /// Counts a batch in, once there is room. Blocks.
    fn add(&self, bytes: u64) {
        let full = |w: &mut QueuedAppend| w.batches >= WAITING_MAX || w.bytes >= WAITING_BYTES_MAX;
        let mut waiting = self.waiting();
        self.0.written.wait_while(&mut waiting, full);
        waiting.bytes += bytes;
        waiting.batches += 1;
    }

    fn waiting(&self) -> MutexGuard<'_, QueuedAppend> {
        self.0.waiting.lock()
    }
}

impl LogWriter {
    pub fn start(
        log: Arc<dyn LogEngine>,
        stores: Vec<Mailbox>,
        disk: Arc<DiskWatch>,
        stalled_after: Duration,
    ) -> std::io::Result<(LogWriter, JoinHandle<()>)> {
        // Unbounded, because the backlog bounds it.
        let (sender, receiver) = crossbeam_channel::unbounded();
        let backlog = Backlog::new(stalled_after);
        let waiting = backlog.clone();
        let thread = end::thread("log-writer".to_owned(), move || {
            write_all(&receiver, &waiting, &*log, &stores, &disk);
        })?;
        Ok((LogWriter { appends: sender, backlog }, thread))
    }

    /// Returns the backlog. A clone of it does not keep the thread running.
    pub fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// Queues a batch. The store receives [`Event::Persisted`] once the batch is durable. Tokens of
    /// a store must ascend.
    pub fn append(&self, shard: usize, token: u64, batch: LogBatch) {
        self.backlog.add(entry_bytes(&batch));
        let append = Append { shard, token, batch, handed_over: Instant::now() };
        assert!(self.appends.send(append).is_ok(), "the log writer ended before the stores");
    }
}

fn write_all(
    waiting: &Receiver<Append>,
    backlog: &Backlog,
    log: &dyn LogEngine,
    stores: &[Mailbox],
    disk: &DiskWatch,
) {
    while let Ok(first) = waiting.recv() {
        let mut persisted = vec![None; stores.len()];
        let (mut bytes, mut batches) = (entry_bytes(&first.batch), 1);
        backlog.waiting().oldest = Some(first.handed_over);
        persisted[first.shard] = Some(first.token);
        let mut batch = first.batch;
        while bytes < APPEND_BYTES_MAX {
            let Ok(next) = waiting.try_recv() else { break };
            bytes += entry_bytes(&next.batch);
            batches += 1;
            persisted[next.shard] = Some(next.token);
            batch.extend(next.batch);
        }
        // A pass with an empty batch only asks to know when all batches before it are durable.
        if !batch.is_empty() {
            // The clone shares the entries' bytes.
            let append = || log.append(batch.clone());
            disk.insist("append to the log", bytes, append)
                .unwrap_or_else(|error| end::process("log-writer", error));
        }
        {
            let mut waiting = backlog.waiting();
            waiting.bytes -= bytes;
            waiting.batches -= batches;
            waiting.oldest = None;
        }
        backlog.0.written.notify_all();
        for (store, token) in stores.iter().zip(persisted) {
            if let Some(token) = token {
                // A store that is stopping does not need the event.
                let _ = store.send(Event::Persisted { token });
            }
        }
    }
}

fn entry_bytes(batch: &LogBatch) -> u64 {
    let bytes = |change: &LogChange| match change {
        LogChange::Append { entries, .. } => entries.iter().map(|e| e.data.len() as u64).sum(),
        _ => 0,
    };
    batch.changes.iter().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use raft_proto::eraftpb::Entry;
    use rangedb_raftstore::Room;
    use rangedb_storage::MemLog;

    use super::*;
    use crate::node::DiskSpace;
    use crate::shell::mailbox::{self, Inbox, Taken};

    const LONG: Duration = Duration::from_secs(3600);

    fn watch() -> Arc<DiskWatch> {
        Arc::new(DiskWatch::new(&std::env::temp_dir(), None))
    }

    fn persisted(inbox: &Inbox) -> u64 {
        match inbox.wait(Duration::from_secs(10)) {
            Taken::Event(Event::Persisted { token }) => token,
            _ => panic!("another event than Persisted"),
        }
    }

    #[test]
    fn each_store_hears_of_its_highest_durable_token() {
        let log = Arc::new(MemLog::default());
        let (mailboxes, inboxes): (Vec<_>, Vec<_>) =
            (0..2).map(|_| mailbox::new(usize::MAX)).unzip();
        let (writer, thread) = LogWriter::start(log.clone(), mailboxes, watch(), LONG).unwrap();
        let reset =
            |range_id| LogBatch { changes: vec![LogChange::Reset { range_id, index: 5, term: 1 }] };
        for token in 1..=50 {
            writer.append(0, token, reset(2));
            writer.append(1, token, LogBatch::default());
        }
        writer.append(1, 51, reset(3));
        drop(writer);
        thread.join().unwrap();
        for (inbox, last) in inboxes.iter().zip([50, 51]) {
            let mut token = 0;
            while token < last {
                let next = persisted(inbox);
                assert!(next > token, "{next} after {token}");
                token = next;
            }
        }
        assert_eq!(log.ranges().unwrap(), [2, 3]);
    }

    #[test]
    fn a_batch_that_finds_no_room_is_written_once_there_is_some() {
        let log = Arc::new(MemLog::default());
        log.set_full(true);
        let (mailbox, inbox) = mailbox::new(usize::MAX);
        let disk = watch();
        let (writer, thread) =
            LogWriter::start(log.clone(), vec![mailbox], disk.clone(), LONG).unwrap();
        let entry = Entry { index: 1, term: 1, data: vec![7; 100].into(), ..Default::default() };
        let append = LogChange::Append { range_id: 2, entries: vec![entry] };
        writer.append(0, 1, LogBatch { changes: vec![append] });
        let backlog = writer.backlog().clone();
        while disk.seen().room == Room::Enough {
            disk.judge(DiskSpace { total_bytes: 1 << 40, available_bytes: 1 << 40 }, 0);
            std::thread::yield_now();
        }
        assert_eq!(backlog.bytes(), 100);
        log.set_full(false);
        assert_eq!(persisted(&inbox), 1);
        assert_eq!(log.entries(2, 1, 2, u64::MAX).unwrap()[0].data.len(), 100);
        drop(writer);
        thread.join().unwrap();
        assert_eq!(backlog.bytes(), 0);
    }

    #[test]
    fn a_write_that_does_not_complete_is_seen_until_it_does() {
        let log = Arc::new(MemLog::default());
        log.set_full(true);
        let (mailbox, inbox) = mailbox::new(usize::MAX);
        let at_once = Duration::ZERO;
        let (writer, thread) =
            LogWriter::start(log.clone(), vec![mailbox], watch(), at_once).unwrap();
        assert!(!writer.backlog().is_stalled(), "nothing is being written");
        let reset = LogChange::Reset { range_id: 2, index: 5, term: 1 };
        writer.append(0, 1, LogBatch { changes: vec![reset] });
        while !writer.backlog().is_stalled() {
            std::thread::yield_now();
        }
        assert!(writer.backlog().stalled_for() > Duration::ZERO);
        log.set_full(false);
        assert_eq!(persisted(&inbox), 1);
        assert!(!writer.backlog().is_stalled());
        drop(writer);
        thread.join().unwrap();
    }
}
