//! The thread that makes raft logs durable: one sync for everything that waits, of all stores
//! (docs/architecture.md, D3). While one sync runs, the next batch gathers; the busier the node, the
//! more each sync carries.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use rangedb_raftstore::Event;
use rangedb_storage::{LogBatch, LogChange, LogEngine};

use crate::handle::EventSink;
use crate::shell::end;
use crate::shell::mailbox::Mailbox;

/// Batches that wait for the writer at most, of all stores together. A store whose batch finds no
/// room waits with it: then it takes nothing more in than the disk takes.
const WAITING_MAX: usize = 256;

/// Bytes of entries written and synced at once at most: some ten milliseconds of a disk.
const APPEND_BYTES_MAX: usize = 32 << 20;

/// A pass's log writes.
struct Append {
    shard: usize,
    token: u64,
    batch: LogBatch,
}

/// The way to the thread. Cheap to clone; the thread ends once every clone is dropped.
#[derive(Clone)]
pub(crate) struct LogWriter(Sender<Append>);

impl LogWriter {
    pub fn start(
        log: Arc<dyn LogEngine>,
        stores: Vec<Mailbox>,
    ) -> std::io::Result<(LogWriter, JoinHandle<()>)> {
        let (sender, receiver) = crossbeam_channel::bounded(WAITING_MAX);
        let thread =
            end::thread("log-writer".to_owned(), move || write_all(&receiver, &*log, &stores))?;
        Ok((LogWriter(sender), thread))
    }

    /// The store hears [`Event::Persisted`] once the batch is durable. Tokens of a store ascend.
    pub fn append(&self, shard: usize, token: u64, batch: LogBatch) {
        let sent = self.0.send(Append { shard, token, batch });
        assert!(sent.is_ok(), "the log writer ended before the stores");
    }
}

fn write_all(waiting: &Receiver<Append>, log: &dyn LogEngine, stores: &[Mailbox]) {
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
        if !batch.is_empty()
            && let Err(error) = log.append(batch)
        {
            end::process("log-writer", error);
        }
        for (store, token) in stores.iter().zip(persisted) {
            if let Some(token) = token {
                // A store that is stopping has no use for it.
                let _ = store.send(Event::Persisted { token });
            }
        }
    }
}

fn entry_bytes(batch: &LogBatch) -> usize {
    let bytes = |change: &LogChange| match change {
        LogChange::Append { entries, .. } => entries.iter().map(|e| e.data.len()).sum(),
        _ => 0,
    };
    batch.changes.iter().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rangedb_storage::MemLog;

    use super::*;
    use crate::shell::mailbox::{self, Inbox, Taken};

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
        let (writer, thread) = LogWriter::start(log.clone(), mailboxes).unwrap();
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
}
