//! Reads of clients as of a timestamp: at once, again later, and in a transaction that stays open.

use rangedb_client::{Error, KeyValue, RangeOptions, Timestamp, TransactionOptions};
use rangedb_workload::history::is_too_old;

use crate::executor::Sleep;
use crate::history::{Input, Output, PairRead, SnapshotRead, Value};
use crate::schedule::{Micros, SECOND};
use crate::workload::{Worker, all_keys, pairs, registers};

/// Percentage of reads at a timestamp that repeat an earlier read.
const AGAIN_PERCENT: u32 = 25;

/// Maximum number of reads between a read and its repetition. Some repeated reads are below the
/// floor by then.
const AGAIN_BACK_MAX: usize = 300;

/// Maximum time for which a transaction stays open: twice as long as a hold lives.
const OPEN_MAX: Micros = 20 * SECOND;

impl Worker {
    async fn timestamp(&self) -> Option<Timestamp> {
        match self.client().timestamp().await {
            Ok(timestamp) => Some(timestamp),
            Err(error) => {
                self.failure("timestamp", error);
                None
            }
        }
    }

    pub(crate) async fn read_snapshot(&self) {
        if let Some((key, at)) = self.draw_past() {
            self.get_at(&key, at).await;
            return;
        }
        let called = self.stamp();
        let Some(at) = self.timestamp().await else { return };
        let [first, second] = self.draw(pairs());
        let before = self.get_at(&first, at).await;
        let register = self.draw(registers());
        if let Some(value) = self.get_at(&register, at).await {
            // A read at a fresh timestamp is ordered between the request for the timestamp and the
            // answer.
            self.record(&register, Input::Read, called, Ok(Output::Value(value)));
        }
        let after = self.get_at(&second, at).await;
        if let (Some(first), Some(second)) = (before, after) {
            let read = PairRead { at: at.0, values: [first, second] };
            self.common.history.records().pair_reads.push(read);
        }
    }

    /// Reads a key at a timestamp. `None` without an answer.
    pub async fn get_at(&self, key: &str, at: Timestamp) -> Option<Value> {
        match self.client().get_at(key.to_owned(), at).await {
            Ok(found) => Some(self.note_snapshot(key, at, found.as_ref())),
            Err(error) => {
                self.note_refusal(at, error);
                None
            }
        }
    }

    /// Repeats a read. False if there was no answer, and there may be one later.
    pub async fn repeat(&self, key: &str, at: Timestamp) -> bool {
        match self.client().get_at(key.to_owned(), at).await {
            Ok(found) => {
                self.note_snapshot(key, at, found.as_ref());
                true
            }
            Err(error) => {
                let is_over = is_too_old(&error);
                self.note_refusal(at, error);
                is_over
            }
        }
    }

    fn note_refusal(&self, at: Timestamp, error: Error) {
        if let Error::TooOld { floor_ts, .. } = &error
            && *floor_ts <= at.0
        {
            self.common.watch.violated(format!("{at} is refused for a floor of {floor_ts}"));
        }
        self.failure("a read at a timestamp", error);
    }

    /// Draws one of the newest reads at a timestamp, to repeat it. `None` most of the time.
    fn draw_past(&self) -> Option<(String, Timestamp)> {
        let records = self.common.history.records();
        let reads = &records.snapshot_reads;
        let back = self.common.schedule.random(|rng| {
            (rng.u32(0..100) < AGAIN_PERCENT).then(|| rng.usize(1..=AGAIN_BACK_MAX))
        })?;
        let read = reads.get(reads.len().checked_sub(back)?)?;
        Some((read.key.clone(), Timestamp(read.at)))
    }

    /// Reads a pair in a transaction that stays open in between. The versions at its timestamp must
    /// not be dropped in the meantime.
    pub(crate) async fn read_for_long(&self) {
        let txn = match self.client().begin(TransactionOptions::default()).await {
            Ok(txn) => txn,
            Err(error) => {
                self.failure("begin", error);
                return;
            }
        };
        let at = txn.start_ts();
        let keys = self.draw(pairs());
        let mut values = Vec::new();
        for key in keys {
            match txn.get(key.clone()).await {
                Ok(found) => values.push(self.note_snapshot(&key, at, found.as_ref())),
                Err(error) => return self.note_refusal(at, error),
            }
            if values.len() == 1 {
                let open = self.common.schedule.between(SECOND, OPEN_MAX);
                Sleep::new(&self.common.schedule, self.host, open).await;
            }
        }
        if let [first, second] = values[..] {
            let read = PairRead { at: at.0, values: [first, second] };
            self.common.history.records().pair_reads.push(read);
        }
    }

    fn note_snapshot(&self, key: &str, at: Timestamp, found: Option<&KeyValue>) -> Value {
        let found = found.map(|kv| (self.see(kv), kv.mod_ts.0));
        let read = SnapshotRead { key: key.to_owned(), at: at.0, found };
        self.common.history.records().snapshot_reads.push(read);
        found.map(|(value, _)| value)
    }

    pub(crate) async fn scan_snapshot(&self) {
        let Some(at) = self.timestamp().await else { return };
        let Some(rows) = self.rows(RangeOptions::new("/", "y").at(at), false).await else { return };
        let mut found = std::collections::BTreeMap::new();
        for key in all_keys() {
            let row = rows.iter().find(|row| row.key == key);
            found.insert(key.clone(), self.note_snapshot(&key, at, row));
        }
        for [first, second] in pairs() {
            let read = PairRead { at: at.0, values: [found[&first], found[&second]] };
            self.common.history.records().pair_reads.push(read);
        }
    }
}
