//! Stage of a story: keys of its own, and transactions that take its steps through different nodes.
//!
//! The stage records the first refusal of a step because of another transaction. A story may go on
//! after that. No effect of a refused step may then be visible.

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use rangedb_client::{
    Batch, Client, Error, Isolation, RangeOptions, Transaction, TransactionOptions,
};

/// Maximum wait of a step for a lock. No lock is released while a step waits, so this only has to
/// be longer than an operation on a key without a lock.
const LOCK_WAIT: Duration = Duration::from_secs(3);

/// Isolation and locking of a story's transactions.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub isolation: Isolation,
    /// Keys are locked when they are written, and when they are read to be written.
    pub locking: bool,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{}", self.isolation, if self.locking { ", locking" } else { "" })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    OneRange,
    TwoRanges,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The anomaly was observed.
    Possible,
    /// Every step was done, and the anomaly did not show.
    NotSeen,
    /// The anomaly did not show, and this was the first error because of another transaction.
    Refused(&'static str),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Possible => f.write_str("**possible**"),
            Outcome::NotSeen => f.write_str("not seen"),
            Outcome::Refused(error) => write!(f, "`{error}`"),
        }
    }
}

/// A key of the story. `X` and `Third` lie in one range, `Y` and `Fourth` in the same or another
/// one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Key {
    /// 10 in the beginning.
    X,
    /// 20 in the beginning.
    Y,
    /// Absent in the beginning, like `Fourth`.
    Third,
    Fourth,
}

const KEYS: [Key; 4] = [Key::X, Key::Y, Key::Third, Key::Fourth];

pub struct Stage {
    clients: [Client; 3],
    way: Way,
    prefixes: [String; 2],
    refused: RefCell<Option<&'static str>>,
}

impl Stage {
    pub fn new(clients: [Client; 3], way: Way, placement: Placement, table: &str) -> Stage {
        let odd = format!("anomalies/{table}/");
        let even = match placement {
            Placement::OneRange => format!("anomalies/{table}-even/"),
            Placement::TwoRanges => format!("/anomalies/{table}/"),
        };
        Stage { clients, way, prefixes: [odd, even], refused: RefCell::default() }
    }

    pub async fn prepare(&self) {
        let rows = Batch::new().put(self.key(Key::X), "10").put(self.key(Key::Y), "20");
        self.clients[0].batch(rows).await.unwrap();
    }

    /// Begins a transaction of the story. Each number has a node of its own.
    pub async fn begin(&self, number: usize) -> Actor<'_> {
        let options = TransactionOptions {
            isolation: self.way.isolation,
            pessimistic: self.way.locking,
            lock_wait: Some(LOCK_WAIT),
            ..TransactionOptions::default()
        };
        let txn = self.clients[number].begin(options).await.unwrap();
        Actor { stage: self, txn }
    }

    /// Returns the values of all keys for a transaction that begins now, in the order of [`Key`].
    pub async fn values(&self) -> [Option<i64>; 4] {
        let txn = self.begin(0).await;
        let mut values = [None; 4];
        for (value, key) in values.iter_mut().zip(KEYS) {
            *value = txn.get(key).await;
        }
        values
    }

    pub fn outcome(&self, anomaly_seen: bool) -> Outcome {
        match *self.refused.borrow() {
            _ if anomaly_seen => Outcome::Possible,
            Some(error) => Outcome::Refused(error),
            None => Outcome::NotSeen,
        }
    }

    /// Records a refusal.
    ///
    /// # Panics
    /// On errors that have another cause than other transactions.
    fn allowed<T>(&self, result: Result<T, Error>) -> Option<T> {
        let error = match result {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let name = match error {
            Error::WriteConflict { .. } => "WriteConflict",
            Error::Locked { .. } => "Locked",
            other => panic!("{}: {other}", self.prefixes[0]),
        };
        self.refused.borrow_mut().get_or_insert(name);
        None
    }

    fn key(&self, key: Key) -> String {
        format!("{}{key:?}", self.prefixes[key as usize % 2])
    }
}

/// A transaction of a story. A refused step is recorded and returns none or false.
pub struct Actor<'a> {
    stage: &'a Stage,
    txn: Transaction,
}

impl Actor<'_> {
    /// Reads a key, which is never refused.
    pub async fn get(&self, key: Key) -> Option<i64> {
        self.txn.get(self.stage.key(key)).await.unwrap().map(|row| number(&row.value))
    }

    /// Reads a key that is going to be written, with its lock if the story takes locks. None if the
    /// lock was refused.
    pub async fn get_to_write(&self, key: Key) -> Option<i64> {
        if !self.stage.way.locking {
            return self.get(key).await;
        }
        let row = self.txn.get_for_update(self.stage.key(key)).await;
        self.stage.allowed(row)?.map(|row| number(&row.value))
    }

    pub async fn put(&self, key: Key, value: i64) -> bool {
        let put = self.txn.put(self.stage.key(key), value.to_string()).await;
        self.stage.allowed(put).is_some()
    }

    pub async fn delete(&self, key: Key) -> bool {
        self.stage.allowed(self.txn.delete(self.stage.key(key)).await).is_some()
    }

    /// Returns keys and values of all rows that satisfy a predicate, in the order of [`Key`]. Reads
    /// all spans that could hold such a row.
    pub async fn rows(&self, predicate: impl Fn(i64) -> bool) -> Vec<(Key, i64)> {
        let mut found = Vec::new();
        for prefix in &self.stage.prefixes {
            let mut rows = self.txn.range(RangeOptions::prefix(prefix.clone()));
            while let Some(row) = rows.next().await {
                let row = row.unwrap();
                let key = KEYS.into_iter().find(|key| self.stage.key(*key).as_bytes() == row.key);
                found.push((key.expect("a key of this story"), number(&row.value)));
            }
        }
        found.retain(|(_, value)| predicate(*value));
        found.sort_unstable();
        found
    }

    pub async fn commit(self) -> bool {
        self.stage.allowed(self.txn.commit().await).is_some()
    }

    pub async fn rollback(self) {
        self.txn.rollback().await.unwrap();
    }
}

fn number(value: &[u8]) -> i64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}
