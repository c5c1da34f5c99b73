//! One replica of a range without a log: commands go straight to the machine.

pub mod changes;
pub mod logged;

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use rangedb_proto::v1::{
    Command, CommandReply, CommitOneRange, KeyValue, Operation, TooOld, command, command_reply,
    operation,
};
use rangedb_storage::keys::{self, HistoryKey};
use rangedb_storage::{
    ApplyContext, Batch, Change, ColumnFamily, Direction, HistoryRecord, MemState, RangeSize,
    Reader, RecordValue, StateEngine, StateMachine, WriteBatch, is_collectable,
};
use rangedb_txn::{Locks, Page, ReadAt, ReadOutcome, ScanRequest, TxnMachine, floors};

/// Log entry of one command.
#[derive(Clone, Debug)]
pub struct Entry {
    pub command: Bytes,
    pub fence: u64,
}

impl Entry {
    pub fn new(commit: &CommitOneRange, fence: u64) -> Self {
        Self::of(command::Body::CommitOneRange(commit.clone()), fence)
    }

    pub fn of(body: command::Body, fence: u64) -> Self {
        Entry { command: Command { body: Some(body) }.encode_to_vec().into(), fence }
    }
}

/// Key of the index of the last applied entry, which is written with the data as in raftstore.
const APPLIED: &[u8] = b"applied";

pub struct Replica {
    pub state: MemState,
    machine: TxnMachine,
    start_key: Vec<u8>,
    end_key: Vec<u8>,
    /// True if the machine is to report changes.
    pub with_changes: bool,
    /// Changes of the entries that the last [`Replica::apply`] applied.
    pub changes: Vec<Vec<Change>>,
}

impl Replica {
    /// Returns a replica of the range `[start, end)`; an empty end has no end.
    pub fn new(start_key: &[u8], end_key: &[u8]) -> Self {
        let mut replica = Replica {
            state: MemState::new(),
            machine: TxnMachine::new(),
            start_key: start_key.to_vec(),
            end_key: end_key.to_vec(),
            with_changes: false,
            changes: Vec::new(),
        };
        replica.restart();
        replica
    }

    /// Starts a new machine over the state as it is.
    pub fn restart(&mut self) {
        self.machine = TxnMachine::new();
        let state = self.state.snapshot();
        self.machine.load(&*state, &self.start_key, &self.end_key).unwrap();
    }

    /// Returns the start key of the range.
    pub fn start_key(&self) -> &[u8] {
        &self.start_key
    }

    /// Entries applied so far.
    pub fn applied(&self) -> usize {
        let stored = self.state.get(ColumnFamily::Meta, APPLIED).unwrap();
        stored.map_or(0, |index| u64::from_be_bytes(index[..].try_into().unwrap()) as usize)
    }

    /// Applies entries in one batch.
    pub fn apply(&mut self, entries: &[Entry]) -> Vec<CommandReply> {
        let applied = self.applied();
        let snapshot = self.state.snapshot();
        let mut batch = Batch::new(&*snapshot);
        let mut replies = Vec::new();
        self.changes.clear();
        for (place, entry) in entries.iter().enumerate() {
            let context = ApplyContext {
                start_key: &self.start_key,
                end_key: &self.end_key,
                fence: entry.fence,
                index: (applied + place + 1) as u64,
                with_changes: self.with_changes,
            };
            let applied = self.machine.apply(&context, &entry.command, &mut batch).unwrap();
            replies.push(CommandReply::decode(applied.reply).unwrap());
            self.changes.push(applied.changes);
        }
        let index = (applied + entries.len()) as u64;
        batch.put(ColumnFamily::Meta, APPLIED, index.to_be_bytes().to_vec());
        let writes = batch.into_writes();
        drop(snapshot);
        self.state.write(writes).unwrap();
        replies
    }

    /// Returns the size of the range, as its machine knows it.
    pub fn size(&self) -> RangeSize {
        self.machine.size()
    }

    /// Returns the last timestamp at which nobody reads; 0 if there is none.
    fn unread(&self) -> u64 {
        floors(&self.state, &self.start_key).unwrap().collect_below_ts.saturating_sub(1)
    }

    /// Drops some of the records that compaction may drop.
    pub fn thin_out(&self, mut dice: impl FnMut() -> bool) {
        let unread = self.unread();
        let mut batch = WriteBatch::default();
        for (cf, key, stored) in self.records() {
            if is_collectable(cf, &stored, unread) && dice() {
                batch.delete(cf, key);
            }
        }
        self.state.write(batch).unwrap();
    }

    /// Returns every stored record in which replicas may not differ.
    pub fn records_above_garbage(&self) -> Vec<(ColumnFamily, Bytes, Bytes)> {
        let unread = self.unread();
        let mut records = self.records();
        let mut values = BTreeSet::new();
        records.retain(|(cf, key, stored)| {
            if *cf == ColumnFamily::History
                && let HistoryKey::Version { user_key, .. } = keys::parse_history_key(key).unwrap()
            {
                let HistoryRecord { record, end_ts } = HistoryRecord::decode(stored).unwrap();
                if end_ts <= unread && matches!(record.value, RecordValue::Reference { .. }) {
                    values.insert(keys::value(&user_key, record.start_ts));
                    return false;
                }
            }
            !is_collectable(*cf, stored, unread)
        });
        records.retain(|(cf, key, _)| *cf != ColumnFamily::Value || !values.contains(key));
        records
    }

    /// Returns every stored record of the data families, in order.
    pub fn records(&self) -> Vec<(ColumnFamily, Bytes, Bytes)> {
        let mut all = Vec::new();
        for cf in ColumnFamily::DATA {
            let mut records = self.state.scan(cf, b"", b"", Direction::Forward).unwrap();
            while let Some((key, value)) = records.next().unwrap() {
                let own = Bytes::copy_from_slice;
                all.push((cf, own(key), own(value)));
            }
        }
        all
    }
}

/// Clears the number of dropped records, the only part of a reply that differs between replicas.
pub fn forget_dropped(reply: &mut CommandReply) {
    if let Some(command_reply::Body::GarbageCollected(collected)) = &mut reply.body {
        collected.dropped = 0;
    }
}

/// Returns the committed value of a key, if the read is not too old.
pub fn get_unlocked(replica: &Replica, key: &[u8], at: ReadAt) -> Result<Option<KeyValue>, TooOld> {
    let start = replica.start_key();
    let found = value(rangedb_txn::get(&replica.state, start, key, at, &Locks::Ignored).unwrap());
    found.map(|found| found.kv)
}

/// Returns a page of a scan that no lock blocks, if the read is not too old.
pub fn scan_unlocked(replica: &Replica, request: &ScanRequest) -> Result<Page, TooOld> {
    value(rangedb_txn::scan(&replica.state, replica.start_key(), request).unwrap())
}

fn value<T>(outcome: ReadOutcome<T>) -> Result<T, TooOld> {
    match outcome {
        ReadOutcome::Value(value) => Ok(value),
        ReadOutcome::TooOld { floor_ts } => Err(TooOld { floor_ts }),
        ReadOutcome::Locked(locked) => panic!("{locked:?}"),
    }
}

pub fn operation(body: operation::Body) -> Operation {
    Operation { body: Some(body) }
}
