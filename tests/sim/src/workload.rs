//! Workload of the clients, which use the [`Client`] that users have, and the record of the
//! answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rangedb_client::{
    Batch, Client, DeleteOptions, Error, KeyValue, PutOptions, RangeOptions, Test, Timestamp,
};

use crate::attacker::Attacker;
use crate::check::Watch;
use crate::executor::Sleep;
use crate::gateway::Gateways;
use crate::history::{Acknowledged, History, Input, Operation, Output, SeenVersion, Value};
use crate::occurrence::Host;
use crate::plan::Load;
use crate::schedule::{Micros, Schedule};
use crate::transactions::Transactions;

/// Prefixes of the keys. The first user range ends before `_/`; the last begins after it.
const PREFIXES: [&str; 2] = ["/", "x/"];

/// Number of registers under a prefix: few, so that clients meet.
const REGISTERS: usize = 3;

/// Kinds of operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Put,
    Get,
    Delete,
    CompareAndSwap,
    PairBatch,
    Increment,
    SnapshotRead,
    Scan,
    SnapshotScan,
    AppendToLists,
    UseBank,
    DrawTicket,
    ReadForLong,
    /// A request that no client of this project sends.
    Attack,
}

impl Kind {
    pub const COUNT: usize = 14;
    pub const ALL: [Kind; Kind::COUNT] = [
        Kind::Put,
        Kind::Get,
        Kind::Delete,
        Kind::CompareAndSwap,
        Kind::PairBatch,
        Kind::Increment,
        Kind::SnapshotRead,
        Kind::Scan,
        Kind::SnapshotScan,
        Kind::AppendToLists,
        Kind::UseBank,
        Kind::DrawTicket,
        Kind::ReadForLong,
        Kind::Attack,
    ];
}

pub fn registers() -> impl Iterator<Item = String> {
    PREFIXES.iter().flat_map(|prefix| (0..REGISTERS).map(move |n| format!("{prefix}register-{n}")))
}

pub fn counters() -> impl Iterator<Item = String> {
    PREFIXES.iter().map(|prefix| format!("{prefix}counter"))
}

/// Keys that are only written together.
pub fn pairs() -> impl Iterator<Item = [String; 2]> {
    PREFIXES.iter().map(|prefix| [format!("{prefix}pair-a"), format!("{prefix}pair-b")])
}

/// All keys that these operations use.
pub fn all_keys() -> impl Iterator<Item = String> {
    registers().chain(counters()).chain(pairs().flatten())
}

/// State that all clients share.
#[derive(Clone)]
pub struct Common {
    pub schedule: Schedule,
    pub watch: Watch,
    pub history: History,
    pub load: Load,
    pub stop: Arc<AtomicBool>,
    /// Number of clients that have not ended.
    pub active: Arc<AtomicUsize>,
    /// Last number given out for a value.
    pub numbers: Arc<AtomicU64>,
    pub transactions: Transactions,
    /// True if old versions are kept for a short time only: reads of them may be refused.
    pub soon_too_old: bool,
    /// True if the two keys of a pair may be in different ranges.
    pub splits_pairs: bool,
    pub gateways: Gateways,
    /// For each client, true while it is in a transaction.
    pub in_transaction: Arc<[AtomicBool]>,
}

/// Outcome of an operation that was not answered with success.
pub(crate) enum Failure {
    Refused,
    Unknown,
}

pub struct Worker {
    pub me: usize,
    pub host: Host,
    pub client: Client,
    pub common: Common,
    pub attacker: Attacker,
}

impl Worker {
    /// Executes operations until all clients are to stop.
    pub async fn run(self) {
        while !self.common.stop.load(Ordering::Relaxed) {
            self.one_operation().await;
            let pause = self.common.schedule.between(0, self.common.load.pause_max);
            Sleep::new(&self.common.schedule, self.host, pause).await;
        }
        self.common.active.fetch_sub(1, Ordering::Relaxed);
    }

    async fn one_operation(&self) {
        match self.draw_kind() {
            Kind::Put => drop(self.put(&self.draw(registers())).await),
            Kind::Get => drop(self.get(&self.draw(registers())).await),
            Kind::Delete => drop(self.delete(&self.draw(registers())).await),
            Kind::CompareAndSwap => self.compare_and_swap(&self.draw(registers())).await,
            Kind::PairBatch => {
                let over_ranges = self.common.splits_pairs;
                self.write_pair(&self.draw(pairs()), over_ranges).await;
            }
            Kind::Increment => self.increment(&self.draw(counters())).await,
            Kind::SnapshotRead => self.read_snapshot().await,
            Kind::Scan => self.scan().await,
            Kind::SnapshotScan => self.scan_snapshot().await,
            Kind::ReadForLong => self.read_for_long().await,
            Kind::Attack => self.attacker.attack(&self.common.schedule, self.draw_timeout()).await,
            kind @ (Kind::AppendToLists | Kind::UseBank | Kind::DrawTicket) => {
                self.transact(kind).await
            }
        }
    }

    async fn transact(&self, kind: Kind) {
        let seed = self.common.schedule.random(|rng| rng.u64(..));
        let (client, rng) = (self.client(), &mut fastrand::Rng::with_seed(seed));
        let transactions = &self.common.transactions;
        let in_transaction = &self.common.in_transaction[self.me];
        in_transaction.store(true, Ordering::Relaxed);
        match kind {
            Kind::AppendToLists => drop(transactions.lists.step(&client, self.me, rng).await),
            Kind::UseBank => drop(transactions.bank.step(&client, rng).await),
            _ => transactions.tickets.step(&client, rng).await,
        }
        in_transaction.store(false, Ordering::Relaxed);
    }

    /// Writes a new value. False if the write was refused, or its outcome is unknown.
    pub async fn put(&self, key: &str) -> bool {
        let number = self.next_number();
        let return_previous = self.common.schedule.random(|rng| rng.bool());
        let options = PutOptions { return_previous, ..PutOptions::default() };
        let called = self.stamp();
        let (owned, value) = (key.to_owned(), self.value(number));
        let put = move |client: Client| async move { client.put_with(owned, value, options).await };
        let result = self.ask(put).await;
        let output = match result {
            Ok(written) => {
                let previous = written.previous.as_ref().map(|kv| self.see(kv));
                self.acknowledge(key, Some(number), written.commit_ts);
                Ok(Output::Written(return_previous.then_some(previous)))
            }
            Err(error) => Err(self.failure("put", error)),
        };
        let is_done = output.is_ok();
        self.record(key, Input::Write(Some(number)), called, output);
        is_done
    }

    pub async fn get(&self, key: &str) -> Option<Value> {
        let called = self.stamp();
        let owned = key.to_owned();
        let result = self.ask(move |client: Client| async move { client.get(owned).await }).await;
        let output = match result {
            Ok(found) => {
                // A transaction that begins now must see this version too.
                if let Some(newest) = &found {
                    let (at, ts) = (self.stamp(), newest.mod_ts.0);
                    self.common.watch.note(|checks| checks.timestamps.acknowledged(at, ts));
                }
                Ok(Output::Value(found.as_ref().map(|kv| self.see(kv))))
            }
            Err(error) => Err(self.failure("get", error)),
        };
        let value = if let Ok(Output::Value(value)) = &output { Some(*value) } else { None };
        self.record(key, Input::Read, called, output);
        value
    }

    /// Deletes a key. False if the delete was refused, or its outcome is unknown.
    pub async fn delete(&self, key: &str) -> bool {
        let options = DeleteOptions { return_previous: true, ..DeleteOptions::default() };
        let called = self.stamp();
        let newest_ts = self.common.history.records().newest_ts;
        let owned = key.to_owned();
        let delete = move |client: Client| async move { client.delete_with(owned, options).await };
        let output = match self.ask(delete).await {
            Ok(deleted) => {
                let previous = deleted.previous.as_ref().map(|kv| self.see(kv));
                if deleted.existed != previous.is_some() {
                    self.common.watch.violated(format!("a delete contradicts itself: {deleted:?}"));
                }
                self.acknowledge(key, None, deleted.commit_ts);
                Ok(Output::Written(Some(previous)))
            }
            Err(error) => Err(self.failure("delete", error)),
        };
        if matches!(output, Err(Failure::Unknown)) {
            let mut records = self.common.history.records();
            let earliest = records.unknown_deletes.entry(key.to_owned()).or_insert(newest_ts);
            *earliest = newest_ts.min(*earliest);
        }
        let is_done = output.is_ok();
        self.record(key, Input::Write(None), called, output);
        is_done
    }

    async fn compare_and_swap(&self, key: &str) {
        let Some(expected) = self.get(key).await else { return };
        self.swap(key, expected, self.next_number()).await;
    }

    /// Replaces the expected value by a new one. `None` if the outcome is unknown.
    async fn swap(&self, key: &str, expected: Value, new: u64) -> Option<bool> {
        let called = self.stamp();
        // The condition tests the whole value, padding included.
        let test = match expected {
            None => Test::Absent,
            Some(number) => Test::Value(self.value(number)),
        };
        let options = PutOptions { conditions: vec![test], ..PutOptions::default() };
        let (owned, value) = (key.to_owned(), self.value(new));
        let put = move |client: Client| async move { client.put_with(owned, value, options).await };
        let output = match self.ask(put).await {
            Ok(written) => {
                self.acknowledge(key, Some(new), written.commit_ts);
                Ok(Output::Swapped)
            }
            Err(Error::Conflict { actual, .. }) => {
                Ok(Output::Mismatch(actual.as_deref().map(|kv| self.see(kv))))
            }
            Err(error) => Err(self.failure("compare and swap", error)),
        };
        let swapped = match &output {
            Ok(output) => Some(*output == Output::Swapped),
            Err(Failure::Refused) => Some(false),
            Err(Failure::Unknown) => None,
        };
        self.record(key, Input::CompareAndSwap { expected, new }, called, output);
        swapped
    }

    async fn increment(&self, key: &str) {
        let Some(found) = self.get(key).await else { return };
        let swapped = self.swap(key, found, found.unwrap_or(0) + 1).await;
        let mut records = self.common.history.records();
        let increments = records.counters.entry(key.to_owned()).or_default();
        increments.acknowledged += u64::from(swapped == Some(true));
        increments.unknown += u64::from(swapped.is_none());
    }

    /// Writes one value to both keys. With `over_ranges`, the keys may be in two ranges. False if
    /// the write was refused, or its outcome is unknown.
    pub async fn write_pair(&self, keys: &[String; 2], over_ranges: bool) -> bool {
        let number = self.next_number();
        let [first, second] = keys.clone();
        let batch = Batch::new().put(first, self.value(number)).put(second, self.value(number));
        let called = self.stamp();
        let write = move |client: Client| async move { client.batch(batch).await };
        let result = self.ask(write).await;
        let commit_ts = result.map(|committed| committed.commit_ts);
        let commit_ts = commit_ts.map_err(|error| match error {
            // The batch is retried until its timeout, and then returns the last conflict.
            error if over_ranges && error.is_transaction_conflict() => self.refused(),
            Error::Locked { .. } if over_ranges => self.refused(),
            error => self.failure("batch", error),
        });
        for key in keys {
            let output = match &commit_ts {
                Ok(commit_ts) => {
                    self.acknowledge(key, Some(number), *commit_ts);
                    Ok(Output::Written(None))
                }
                Err(Failure::Refused) => Err(Failure::Refused),
                Err(Failure::Unknown) => Err(Failure::Unknown),
            };
            self.record(key, Input::Write(Some(number)), called, output);
        }
        commit_ts.is_ok()
    }

    /// Scans all keys of a prefix, page by page. Each key is read at some moment of the scan.
    async fn scan(&self) {
        let prefix = *self.draw(PREFIXES.iter());
        let reverse = self.common.schedule.random(|rng| rng.bool());
        let options = RangeOptions::prefix(prefix);
        let options = if reverse { options.reverse() } else { options };
        let called = self.stamp();
        let Some(rows) = self.rows(options, reverse).await else { return };
        for key in all_keys().filter(|key| key.starts_with(prefix)) {
            let row = rows.iter().find(|row| row.key == key);
            let value = row.map(|row| self.see(row));
            self.record(&key, Input::Read, called, Ok(Output::Value(value)));
        }
    }

    pub(crate) async fn rows(&self, options: RangeOptions, reverse: bool) -> Option<Vec<KeyValue>> {
        let mut rows: Vec<KeyValue> = Vec::new();
        let mut scan = self.client().range(options);
        while let Some(row) = scan.next().await {
            match row {
                Ok(row) => rows.push(row),
                Err(error) => {
                    self.failure("scan", error);
                    return None;
                }
            }
        }
        if reverse {
            rows.reverse();
        }
        if !rows.is_sorted_by(|a, b| a.key < b.key) {
            self.common.watch.violated("the rows of a scan are not in order");
        }
        Some(rows)
    }

    fn draw_kind(&self) -> Kind {
        let weights = self.common.load.weights;
        let mut drawn = self.common.schedule.random(|rng| rng.u32(0..weights.iter().sum()));
        for (kind, weight) in Kind::ALL.into_iter().zip(weights) {
            if drawn < weight {
                return kind;
            }
            drawn -= weight;
        }
        unreachable!("a number below the sum of the weights falls on one of them")
    }

    pub(crate) fn draw<T>(&self, among: impl Iterator<Item = T>) -> T {
        let mut among: Vec<T> = among.collect();
        let place = self.common.schedule.random(|rng| rng.usize(0..among.len()));
        among.swap_remove(place)
    }

    pub(crate) fn client(&self) -> Client {
        self.client.with_timeout(Duration::from_micros(self.draw_timeout()))
    }

    fn draw_timeout(&self) -> Micros {
        let most = self.common.load.timeout_max;
        self.common.schedule.between(most / 8, most)
    }

    /// Executes an operation, which the client itself or some node's gateway coordinates.
    async fn ask<T, F>(&self, what: impl FnOnce(Client) -> F + Send + 'static) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let Common { schedule, load, gateways, .. } = &self.common;
        if schedule.random(|rng| rng.u32(0..100)) >= load.gateway_percent {
            return what(self.client()).await;
        }
        gateways.ask(self.host, self.draw_timeout(), what).await
    }

    pub(crate) fn stamp(&self) -> u64 {
        self.common.schedule.stamp()
    }

    fn next_number(&self) -> u64 {
        self.common.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns the value that stands for a number. It is always the same, so that conditions can
    /// test it.
    fn value(&self, number: u64) -> Bytes {
        let mut value = format!("{number}:").into_bytes();
        let padding =
            number.wrapping_mul(0x9e37_79b9) as usize % (self.common.load.padding_max + 1);
        value.resize(value.len() + padding, b'.');
        value.into()
    }

    /// Records a version that a client saw. Returns the number in its value.
    pub(crate) fn see(&self, kv: &KeyValue) -> u64 {
        let digits = kv.value.split(|byte| *byte == b':').next().unwrap_or_default();
        let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        let number = number.filter(|number| self.value(*number) == kv.value);
        let Some(value) = number else {
            self.common.watch.violated(format!("a value that nobody wrote: {kv:?}"));
            return 0;
        };
        let key = String::from_utf8_lossy(&kv.key).into_owned();
        let (mod_ts, create_ts) = (kv.mod_ts.0, kv.create_ts.0);
        let seen = SeenVersion { key, value, mod_ts, create_ts, version: kv.version };
        self.common.history.records().seen.push(seen);
        value
    }

    fn acknowledge(&self, key: &str, value: Value, commit_ts: Timestamp) {
        let at = self.stamp();
        self.common.watch.note(|checks| checks.timestamps.acknowledged(at, commit_ts.0));
        let acknowledged = Acknowledged { key: key.to_owned(), value, commit_ts: commit_ts.0 };
        let mut records = self.common.history.records();
        records.newest_ts = records.newest_ts.max(commit_ts.0);
        records.acknowledged.push(acknowledged);
    }

    pub(crate) fn record(
        &self,
        key: &str,
        input: Input,
        called: u64,
        output: Result<Output, Failure>,
    ) {
        let returned = match output {
            Ok(output) => Some((self.stamp(), output)),
            Err(Failure::Unknown) => None,
            Err(Failure::Refused) => return,
        };
        let operation = Operation { client: self.me, input, called, returned };
        self.common.schedule.remark(|| format!("{key} {operation:?}"));
        self.common.history.records().operations.push((key.to_owned(), operation));
    }

    fn refused(&self) -> Failure {
        self.common.history.records().refused += 1;
        Failure::Refused
    }

    /// Classifies an error: the operation was refused, or its outcome is unknown. Any other error
    /// is a violation, because no fault of the world explains it.
    pub(crate) fn failure(&self, what: &str, error: Error) -> Failure {
        match error {
            Error::Undetermined(_) => Failure::Unknown,
            Error::Unavailable(_) | Error::TooBusy { .. } | Error::DiskFull(_) => self.refused(),
            Error::TooOld { floor_ts, .. } if self.common.soon_too_old => {
                self.common.history.records().too_old += 1;
                self.common.watch.note(|checks| checks.floor.told(floor_ts));
                Failure::Refused
            }
            // Batches over ranges leave locks that other operations meet.
            Error::Locked { .. } if self.common.splits_pairs => self.refused(),
            other => {
                self.common.watch.violated(format!("{what} failed in a way of its own: {other}"));
                Failure::Unknown
            }
        }
    }
}
