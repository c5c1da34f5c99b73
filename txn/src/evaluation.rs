//! Evaluation of one command: the state that it sees, its writes, and the changes that they make.
//!
//! A command reads through [`Evaluation::reader`] and writes only through the methods here. So
//! every version and every lock that it writes is counted in the range's memory and reported to
//! whoever listens ([`ApplyContext::with_changes`]). A command looks first and writes last: once it
//! has written, it cannot stop.

use bytes::Bytes;
use rangedb_storage::{
    ApplyContext, Batch, Change, ColumnFamily, Record, RecordValue, Result, keys,
};

use crate::commands::Stop;
use crate::commands::fate::Found;
use crate::garbage::is_spent;
use crate::lock::{Lock, LockKind};
use crate::memory::Memory;
use crate::outcome_record::Outcome;
use crate::planted::planted;
use crate::range_record::RangeRecord;
use crate::versions;

/// Evaluation of one command in one range.
pub(crate) struct Evaluation<'a, 'b> {
    pub(crate) context: &'a ApplyContext<'a>,
    memory: &'a mut Memory,
    batch: &'a mut Batch<'b>,
    changes: Vec<Change>,
    /// The range record as it is stored.
    stored: RangeRecord,
    has_written: bool,
}

impl<'a, 'b> Evaluation<'a, 'b> {
    pub(crate) fn new(
        context: &'a ApplyContext<'a>,
        memory: &'a mut Memory,
        batch: &'a mut Batch<'b>,
    ) -> Self {
        let stored = memory.range;
        Evaluation { context, memory, batch, changes: Vec::new(), stored, has_written: false }
    }

    /// Returns the state that the command sees, its own writes included.
    pub(crate) fn reader(&self) -> &Batch<'b> {
        self.batch
    }

    pub(crate) fn memory(&self) -> &Memory {
        self.memory
    }

    /// Returns what the key knows of the transaction.
    pub(crate) fn find(&self, key: &[u8], start_ts: u64) -> Result<Found> {
        Found::at(&*self.batch, self.memory, key, start_ts)
    }

    /// Returns the lowest timestamp, from `least` on, that is above every served read and every
    /// commit of the range.
    pub(crate) fn next_ts(&self, least: u64) -> std::result::Result<u64, Stop> {
        self.memory.next_ts(self.context, least)
    }

    /// Writes a version that supersedes `before`. The caller has checked their order
    /// ([`versions::check_order`]), puts a long value in its place ([`Evaluation::put_value`]), and
    /// ends with [`Evaluation::committed`].
    pub(crate) fn put_version(&mut self, key: &Bytes, before: Option<Record>, after: Record) {
        self.has_written = true;
        let before =
            before.filter(|before| !is_spent(before, self.memory.range.collected_below_ts));
        let size = &mut self.memory.range.size;
        if let Some(bytes) = before.as_ref().and_then(|before| row_bytes(key, before)) {
            // Damage elsewhere may have made the size wrong; no command may end for that.
            size.rows = size.rows.saturating_sub(1);
            size.bytes = size.bytes.saturating_sub(bytes);
        }
        if let Some(bytes) = row_bytes(key, &after) {
            size.rows = size.rows.saturating_add(1);
            size.bytes = size.bytes.saturating_add(bytes);
        }
        versions::supersede(self.batch, key, before.as_ref(), &after);
        if planted!(DeletionUnreported) && after.is_deleted() {
            return;
        }
        if self.context.with_changes {
            self.changes.push(Change::Version { key: key.clone(), before, after });
        }
    }

    /// Writes a long value, which stands apart from its version.
    pub(crate) fn put_value(&mut self, key: &[u8], start_ts: u64, value: Bytes) {
        self.has_written = true;
        self.batch.put(ColumnFamily::Value, keys::value(key, start_ts), value);
    }

    /// Records a commit in the range. Transactions over ranges bring their own timestamps, which
    /// need not be above those of all others.
    pub(crate) fn committed(&mut self, commit_ts: u64) {
        self.has_written = true;
        let range = &mut self.memory.range;
        range.last_commit_ts = range.last_commit_ts.max(commit_ts);
    }

    /// Raises the floors. Neither is ever lowered.
    pub(crate) fn raise_floors(&mut self, floor_ts: u64, collect_below_ts: u64) {
        self.has_written = true;
        let range = &mut self.memory.range;
        range.floor_ts = range.floor_ts.max(floor_ts);
        range.collected_below_ts = range.collected_below_ts.max(collect_below_ts);
    }

    /// Drops a record that nobody needs any more. No such record counts in the range's size.
    pub(crate) fn drop_garbage(&mut self, cf: ColumnFamily, stored_key: Bytes) {
        self.has_written = true;
        self.batch.delete(cf, stored_key);
    }

    /// Adds a lock at a key that has none.
    pub(crate) fn add_lock(&mut self, key: &Bytes, lock: &Lock) {
        self.replace_lock(key, lock);
        self.memory.locks.added();
    }

    /// Replaces the lock at the key.
    pub(crate) fn replace_lock(&mut self, key: &Bytes, lock: &Lock) {
        self.has_written = true;
        self.batch.put(ColumnFamily::Lock, keys::lock(key), lock.encode());
        if self.context.with_changes {
            let (start_ts, min_commit_ts) = (lock.start_ts, lock.min_commit_ts);
            let (key, is_write) = (key.clone(), !lock.is_pessimistic());
            self.changes.push(Change::Locked { key, start_ts, min_commit_ts, is_write });
        }
    }

    /// Removes the transaction's lock at the key.
    pub(crate) fn remove_lock(&mut self, key: &Bytes, start_ts: u64) {
        self.has_written = true;
        self.batch.delete(ColumnFamily::Lock, keys::lock(key));
        self.memory.locks.removed();
        if self.context.with_changes {
            self.changes.push(Change::Unlocked { key: key.clone(), start_ts });
        }
    }

    /// Leaves a record of how the transaction ended, at a key where it leaves no version.
    pub(crate) fn leave_outcome(&mut self, key: &[u8], start_ts: u64, outcome: Outcome) {
        self.has_written = true;
        self.memory.locks.outcome_left();
        outcome.write(self.batch, key, start_ts);
    }

    /// Ends a transaction at a key, so that its late commands are refused there: removes its lock,
    /// if it has one, and leaves a record. A transaction from below the floor without a lock can do
    /// nothing new, so it needs no record.
    pub(crate) fn roll_back(&mut self, key: &Bytes, start_ts: u64, lock: Option<&Lock>) {
        match lock {
            Some(lock) => {
                self.remove_lock(key, start_ts);
                if let LockKind::Write { value: RecordValue::Reference { .. }, .. } = lock.kind {
                    self.batch.delete(ColumnFamily::Value, keys::value(key, start_ts));
                }
            }
            None if self.memory.may_lock(start_ts) => {}
            None => return,
        }
        self.leave_outcome(key, start_ts, Outcome::RolledBack);
    }

    /// Ends the evaluation: stores the range record if it changed. Returns the changes.
    pub(crate) fn finish(self) -> Vec<Change> {
        if self.memory.range != self.stored {
            let (cf, key) = RangeRecord::position(self.context.start_key);
            self.batch.put(cf, key, self.memory.range.encode());
        }
        self.changes
    }

    /// Ends the evaluation of a command that stopped.
    ///
    /// # Panics
    ///
    /// If the command has written something: the other replicas might stop elsewhere.
    pub(crate) fn stop(self) {
        assert!(!self.has_written, "a command stopped after it had written");
    }
}

/// Returns the bytes of a version's key and value; `None` for a deletion.
fn row_bytes(key: &[u8], record: &Record) -> Option<u64> {
    (!record.is_deleted()).then(|| (key.len() + versions::value_bytes(record)) as u64)
}
