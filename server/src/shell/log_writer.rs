//! The thread that makes raft logs durable: one sync for everything that waits, of all stores
//! (docs/architecture.md, D3). While one sync runs, the next batch gathers; the busier the node, the
//! more each sync carries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use rangedb_raftstore::Event;
use rangedb_storage::{LogBatch, LogChange, LogEngine};

use crate::handle::EventSink;
use crate::shell::disk_watch::DiskWatch;
use crate::shell::end;
use crate::shell::mailbox::Mailbox;

/// Batches that wait for the writer at most, of all stores together. A store whose batch finds no
/// room waits with it: then it takes nothing more in than the disk takes.
const WAITING_MAX: usize = 256;

/// Bytes of entries written and synced at once at most: some ten milliseconds of a disk.
const APPEND_BYTES_MAX: u64 = 32 << 20;

/// A pass's log writes.
struct Append {
    shard: usize,
    token: u64,
    batch: LogBatch,
}

/// The way to the thread. Cheap to clone; the thread ends once every clone is dropped.
#[derive(Clone)]
pub(crate) struct LogWriter {
    appends: Sender<Append>,
    backlog: Backlog,
}

/// Bytes of entries that wait to be written.
#[derive(Clone, Default)]
pub(crate) struct Backlog(Arc<AtomicU64>);

impl Backlog {
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl LogWriter {
    pub fn start(
        log: Arc<dyn LogEngine>,
        stores: Vec<Mailbox>,
        disk: Arc<DiskWatch>,
    ) -> std::io::Result<(LogWriter, JoinHandle<()>)> {
        let (sender, receiver) = crossbeam_channel::bounded(WAITING_MAX);
        let backlog = Backlog::default();
        let waiting = backlog.clone();
        let thread = end::thread("log-writer".to_owned(), move || {
            write_all(&receiver, &waiting, &*log, &stores, &disk);
        })?;
        Ok((LogWriter { appends: sender, backlog }, thread))
    }

    /// Does not keep the thread running.
    pub fn backlog(&self) -> Backlog {
        self.backlog.clone()
    }

    /// The store hears [`Event::Persisted`] once the batch is durable. Tokens of a store ascend.
    pub fn append(&self, shard: usize, token: u64, batch: LogBatch) {
        self.backlog.0.fetch_add(entry_bytes(&batch), Ordering::Relaxed);
        let sent = self.appends.send(Append { shard, token, batch });
        assert!(sent.is_ok(), "the log writer ended before the stores");
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
        let mut bytes = entry_bytes(&first.batch);
        persisted[first.shard] = Some(first.token);
        let mut batch = first.batch;
        while bytes < APPEND_BYTES_MAX {
            let Ok(next) = waiting.try_recv() else { break };
            bytes += entry_bytes(&next.batch);
            persisted[next.shard] = Some(next.token);
            batch.extend(next.batch);
        }
        // A pass may only want to know when all before it is durable.
        if !batch.is_empty() {
            // A copy shares the entries' bytes.
            let append = || log.append(batch.clone());
            disk.insist("append to the log", bytes, append)
                .unwrap_or_else(|error| end::process("log-writer", error));
        }
        backlog.0.fetch_sub(bytes, Ordering::Relaxed);
        for (store, token) in stores.iter().zip(persisted) {
            if let Some(token) = token {
                // A store that is stopping has no use for it.
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
    use std::time::Duration;

    use raft_proto::eraftpb::Entry;
    use rangedb_storage::MemLog;

    use super::*;
    use crate::node::DiskSpace;
    use crate::shell::mailbox::{self, Inbox, Taken};

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
        let (writer, thread) = LogWriter::start(log.clone(), mailboxes, watch()).unwrap();
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
        let (writer, thread) = LogWriter::start(log.clone(), vec![mailbox], disk.clone()).unwrap();
        let entry = Entry { index: 1, term: 1, data: vec![7; 100].into(), ..Default::default() };
        let append = LogChange::Append { range_id: 2, entries: vec![entry] };
        writer.append(0, 1, LogBatch { changes: vec![append] });
        let backlog = writer.backlog();
        while !disk.seen().full {
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
}
