//! Transactions of one to a few operations on few lists in several ranges.
//!
//! A list is the value of a key: its elements in decimal with commas between. An append reads the
//! list and puts it back with one more element, in the same transaction. A list that has grown long
//! enough is replaced by a new one under another key. So values stay short, and so do the histories
//! of lists.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::{Mutex, MutexGuard};
use rangedb_client::{Client, Error, Isolation, KeyValue, TransactionOptions};

use super::{Anomaly, Element, Key, Level, Op, Summary, Transaction, check};
use crate::history::{Outcome, Stamps, is_explained, is_too_old};

/// Number of lists that each of the transactions at the end reads.
const FINAL_READS: usize = 32;

/// Maximum number of recorded surprises: one that comes every time would fill the memory.
const SURPRISES_MAX: usize = 16;

/// Locks that a transaction takes before its commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Nothing is locked before the commit.
    Optimistic,
    /// Keys are locked when they are written.
    Pessimistic,
    /// Keys are locked when they are read.
    ForUpdate,
    /// Some reads lock and some do not.
    Mixed,
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// Prefixes of keys, one for each range that should take part.
    pub prefixes: Vec<String>,
    /// Number of lists in use at a time, under each prefix.
    pub lists: usize,
    /// Number of appends to a list, after which a new one takes its place.
    pub appends_max: usize,
    /// Maximum number of operations of a transaction.
    pub ops_max: usize,
    /// Percentage of transactions under snapshot isolation.
    pub snapshot_percent: u32,
    pub modes: Vec<Mode>,
    /// Time to wait for another transaction's lock.
    pub lock_wait: Duration,
    /// Transactions out of 1000 that are suspended in the middle and resumed.
    pub suspended_per_mille: u32,
    /// Transactions out of 1000 that are abandoned in the middle, as by a client that died. Their
    /// locks stay until they expire.
    pub dead_per_mille: u32,
    /// True if old versions are kept for less time than a transaction may take. Some transactions
    /// are then refused as too old.
    pub soon_too_old: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            prefixes: vec!["/list/".to_owned(), "list/".to_owned()],
            lists: 3,
            appends_max: 48,
            ops_max: 6,
            snapshot_percent: 25,
            modes: vec![Mode::Optimistic, Mode::Pessimistic, Mode::ForUpdate, Mode::Mixed],
            lock_wait: Duration::from_millis(500),
            suspended_per_mille: 0,
            dead_per_mille: 0,
            soon_too_old: false,
        }
    }
}

/// A list in use.
struct List {
    key: Key,
    generation: usize,
    appends: usize,
}

struct State {
    lists: Vec<List>,
    /// Keys of lists that are no longer in use.
    left: BTreeSet<Key>,
    last_element: Element,
    history: Vec<Transaction>,
    surprises: Vec<String>,
}

/// The workload with its history. Clones share both.
#[derive(Clone)]
pub struct ListAppend {
    settings: Arc<Settings>,
    stamps: Stamps,
    state: Arc<Mutex<State>>,
}

/// Drawn operations and options of a transaction.
struct Plan {
    level: Level,
    mode: Mode,
    options: TransactionOptions,
    ops: Vec<Planned>,
    /// Index of an operation, and the interruption before it.
    interruption: Option<(usize, Interruption)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Interruption {
    Suspended,
    Dead,
}

enum Planned {
    Read { key: Key, for_update: bool },
    Append { key: Key, element: Element, for_update: bool },
}

impl ListAppend {
    pub fn new(settings: Settings, stamps: Stamps) -> Self {
        let mut lists = Vec::new();
        for prefix in &settings.prefixes {
            for number in 0..settings.lists {
                lists.push(List { key: list_key(prefix, number, 0), generation: 0, appends: 0 });
            }
        }
        let state = State {
            lists,
            left: BTreeSet::new(),
            last_element: 0,
            history: Vec::new(),
            surprises: Vec::new(),
        };
        ListAppend { settings: Arc::new(settings), stamps, state: Arc::new(Mutex::new(state)) }
    }

    /// Runs one transaction. Returns its outcome.
    pub async fn step(&self, client: &Client, me: usize, rng: &mut Rng) -> Outcome {
        let plan = self.plan(rng);
        self.run(client, me, &plan).await
    }

    /// Reads every list there ever was, in read-only transactions. False if one of them brought no
    /// answer.
    pub async fn read_all(&self, client: &Client, me: usize) -> bool {
        let keys: Vec<Key> = {
            let state = self.state();
            state.left.iter().cloned().chain(state.lists.iter().map(|l| l.key.clone())).collect()
        };
        for keys in keys.chunks(FINAL_READS) {
            let read = |key: &Key| Planned::Read { key: key.clone(), for_update: false };
            let options = TransactionOptions { read_only: true, ..Default::default() };
            let ops = keys.iter().map(read).collect();
            let plan = Plan {
                level: Level::Serializable,
                mode: Mode::Optimistic,
                options,
                ops,
                interruption: None,
            };
            if self.run(client, me, &plan).await != Outcome::Ok {
                return false;
            }
        }
        true
    }

    /// Returns the number of transactions that are known to be committed.
    pub fn committed(&self) -> usize {
        self.state().history.iter().filter(|txn| txn.outcome == Outcome::Ok).count()
    }

    pub fn history(&self) -> Vec<Transaction> {
        self.state().history.clone()
    }

    /// Returns errors that no fault and no other client explains.
    pub fn surprises(&self) -> Vec<String> {
        self.state().surprises.clone()
    }

    /// Checks the history as it is now.
    pub fn check(&self) -> Result<Summary, Vec<Anomaly>> {
        check(&self.history())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn plan(&self, rng: &mut Rng) -> Plan {
        let settings = &self.settings;
        let mode = settings.modes[rng.usize(0..settings.modes.len())];
        let snapshot = rng.u32(0..100) < settings.snapshot_percent;
        let (isolation, level) = match (snapshot, mode) {
            (false, _) | (true, Mode::Mixed) => (Isolation::Serializable, Level::Serializable),
            // A key that is locked before it is read stays locked until the commit: nothing can
            // come between.
            (true, Mode::ForUpdate) => (Isolation::Snapshot, Level::Serializable),
            (true, _) => (Isolation::Snapshot, Level::Snapshot),
        };
        let options = TransactionOptions {
            isolation,
            pessimistic: mode == Mode::Pessimistic,
            lock_wait: Some(settings.lock_wait),
            ..Default::default()
        };
        let mut state = self.state();
        let ops = (0..rng.usize(1..=settings.ops_max)).map(|_| {
            let for_update = match mode {
                Mode::Optimistic | Mode::Pessimistic => false,
                Mode::ForUpdate => true,
                Mode::Mixed => rng.bool(),
            };
            let place = rng.usize(0..state.lists.len());
            match rng.bool() {
                true => Planned::Read { key: state.lists[place].key.clone(), for_update },
                false => {
                    let (key, element) = state.draw_append(settings, place);
                    Planned::Append { key, element, for_update }
                }
            }
        });
        let ops: Vec<Planned> = ops.collect();
        let interruption = settings.interruption(ops.len(), rng);
        Plan { level, mode, options, ops, interruption }
    }

    async fn run(&self, client: &Client, me: usize, plan: &Plan) -> Outcome {
        let place = self.begin(me, plan);
        let result = self.attempt(client, plan, place).await;
        let outcome = match &result {
            Ok(()) => Outcome::Ok,
            Err(Stopped::Committing(error)) => Outcome::of(error),
            // No commit was requested.
            Err(Stopped::Failed(_) | Stopped::Dead) => Outcome::Failed,
        };
        if let Err(Stopped::Committing(error) | Stopped::Failed(error)) = result
            && !is_explained(&error)
            && !(self.settings.soon_too_old && is_too_old(&error))
        {
            self.surprise(format!("T{place} ended in {error}"));
        }
        let mut state = self.state();
        // The stamp is taken last: a transaction with a later stamp began after the answer.
        let transaction = &mut state.history[place];
        transaction.outcome = outcome;
        transaction.ended = Some(self.stamps.next());
        outcome
    }

    /// Puts the transaction into the history before any request is sent. Returns its index.
    fn begin(&self, me: usize, plan: &Plan) -> usize {
        let began = self.stamps.next();
        let (ended, outcome) = (None, Outcome::Unknown);
        let transaction = Transaction {
            client: me,
            level: plan.level,
            mode: plan.mode,
            began,
            ended,
            outcome,
            ops: Vec::new(),
        };
        let mut state = self.state();
        state.history.push(transaction);
        state.history.len() - 1
    }

    async fn attempt(&self, client: &Client, plan: &Plan, place: usize) -> Result<(), Stopped> {
        let mut txn = client.begin(plan.options.clone()).await?;
        for (at, op) in plan.ops.iter().enumerate() {
            match plan.interruption {
                Some((before, Interruption::Suspended)) if before == at => {
                    txn = client.resume(txn.suspend().await?).await?;
                }
                Some((before, Interruption::Dead)) if before == at => {
                    txn.suspend().await?;
                    return Err(Stopped::Dead);
                }
                _ => {}
            }
            let (Planned::Read { key, for_update } | Planned::Append { key, for_update, .. }) = op;
            let found = match for_update {
                true => txn.get_for_update(key.to_string()).await,
                false => txn.get(key.to_string()).await,
            };
            let mut list = self.list_of(key, found?);
            self.note(place, Op::Read { key: key.clone(), list: list.clone() });
            if let Planned::Append { key, element, .. } = op {
                self.note(place, Op::Append { key: key.clone(), element: *element });
                list.push(*element);
                txn.put(key.to_string(), encode(&list)).await?;
            }
        }
        txn.commit().await.map_err(Stopped::Committing)?;
        Ok(())
    }

    fn note(&self, place: usize, op: Op) {
        self.state().history[place].ops.push(op);
    }

    fn list_of(&self, key: &Key, found: Option<KeyValue>) -> Vec<Element> {
        let Some(found) = found else { return Vec::new() };
        decode(&found.value).unwrap_or_else(|| {
            self.surprise(format!("{key} holds what is no list: {}", found.value.escape_ascii()));
            Vec::new()
        })
    }

    fn surprise(&self, what: String) {
        let mut state = self.state();
        if state.surprises.len() < SURPRISES_MAX {
            state.surprises.push(what);
        }
    }
}

/// Reason why a transaction did not get to its end.
enum Stopped {
    Failed(Error),
    /// The error came after the commit was requested.
    Committing(Error),
    /// The client died.
    Dead,
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Stopped::Failed(error)
    }
}

impl Settings {
    /// Draws an interruption. Without interruptions in the settings, it draws nothing from the
    /// generator.
    fn interruption(&self, ops: usize, rng: &mut Rng) -> Option<(usize, Interruption)> {
        let interrupted = self.suspended_per_mille + self.dead_per_mille;
        if interrupted == 0 {
            return None;
        }
        let drawn = rng.u32(0..1000);
        let what = match drawn < self.suspended_per_mille {
            true => Interruption::Suspended,
            false => Interruption::Dead,
        };
        (drawn < interrupted).then(|| (rng.usize(0..ops), what))
    }
}

impl State {
    /// Draws an element for a list. A list with enough appends is first replaced by a new one.
    fn draw_append(&mut self, settings: &Settings, place: usize) -> (Key, Element) {
        if self.lists[place].appends >= settings.appends_max {
            let generation = self.lists[place].generation + 1;
            let (prefix, number) = (place / settings.lists, place % settings.lists);
            let key = list_key(&settings.prefixes[prefix], number, generation);
            let new = List { key, generation, appends: 0 };
            self.left.insert(std::mem::replace(&mut self.lists[place], new).key);
        }
        self.last_element += 1;
        self.lists[place].appends += 1;
        (self.lists[place].key.clone(), self.last_element)
    }
}

fn list_key(prefix: &str, number: usize, generation: usize) -> Key {
    format!("{prefix}{number}/{generation:06}").into()
}

fn encode(list: &[Element]) -> String {
    list.iter().map(Element::to_string).collect::<Vec<_>>().join(",")
}

fn decode(value: &[u8]) -> Option<Vec<Element>> {
    let text = std::str::from_utf8(value).ok()?;
    text.split(',').map(|element| element.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload() -> ListAppend {
        ListAppend::new(Settings { appends_max: 3, ..Settings::default() }, Stamps::counter())
    }

    #[test]
    fn a_list_survives_being_written_down() {
        for list in [vec![7], vec![1, 20, 300]] {
            assert_eq!(decode(encode(&list).as_bytes()), Some(list));
        }
        assert_eq!(decode(b""), None);
        assert_eq!(decode(b"1,,2"), None);
        assert_eq!(decode(b"one"), None);
    }

    #[test]
    fn lists_are_left_when_they_are_long_and_read_all_the_same() {
        let workload = workload();
        let mut rng = Rng::with_seed(1);
        for _ in 0..100 {
            workload.plan(&mut rng);
        }
        let state = workload.state();
        assert!(state.left.len() > 10, "{:?}", state.left);
        assert!(state.lists.iter().all(|list| list.appends <= 3));
        assert!(state.lists.iter().all(|list| !state.left.contains(&list.key)));
    }

    #[test]
    fn transactions_are_interrupted_as_often_as_was_asked() {
        let mut rng = Rng::with_seed(1);
        let settings =
            Settings { suspended_per_mille: 300, dead_per_mille: 100, ..Settings::default() };
        let drawn: Vec<_> = (0..1000).map(|_| settings.interruption(3, &mut rng)).collect();
        let count =
            |wanted| drawn.iter().flatten().filter(|(at, what)| *at < 3 && *what == wanted).count();
        assert!((200..400).contains(&count(Interruption::Suspended)));
        assert!((50..150).contains(&count(Interruption::Dead)));
        assert_eq!(Settings::default().interruption(3, &mut rng), None);
    }

    #[test]
    fn a_seed_always_gives_the_same_transactions() {
        let keys = |seed| {
            let workload = workload();
            let mut rng = Rng::with_seed(seed);
            let plans: Vec<Plan> = (0..20).map(|_| workload.plan(&mut rng)).collect();
            let key = |op: &Planned| {
                let (Planned::Read { key, .. } | Planned::Append { key, .. }) = op;
                key.clone()
            };
            plans.iter().flat_map(|plan| plan.ops.iter().map(key)).collect::<Vec<_>>()
        };
        assert_eq!(keys(7), keys(7));
        assert_ne!(keys(7), keys(8));
    }
}
