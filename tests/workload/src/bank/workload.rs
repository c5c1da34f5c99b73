//! Transfers in every way that the SDK offers, and totals read while they go on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::{Mutex, MutexGuard};
use rangedb_client::{
    Batch, Client, Condition, Error, Isolation, KeyValue, RangeOptions, Transaction,
    TransactionOptions,
};

use super::{End, History, Summary, Total, Transfer, check};
use crate::history::{Outcome, is_explained, is_too_old};

/// Maximum number of recorded surprises: one that comes every time would fill the memory.
const SURPRISES_MAX: usize = 16;

/// Percentage of steps that read a total.
const TOTAL_PERCENT: u32 = 30;

/// Kind of a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    Serializable,
    Snapshot,
    /// Both accounts are locked before they are read.
    ForUpdate,
    /// Reads outside a transaction, then a batch under the condition that nothing has changed.
    Batch,
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// Prefixes of keys, one for each range that should take part.
    pub prefixes: Vec<String>,
    pub accounts: usize,
    /// Balance of every account in the beginning.
    pub opening: i64,
    pub amount_max: i64,
    pub ways: Vec<Way>,
    /// Time to wait for another transfer's lock.
    pub lock_wait: Duration,
    /// True if old versions are kept for less time than a transfer may take. Some transfers are
    /// then refused as too old.
    pub soon_too_old: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            prefixes: vec!["/bank/".to_owned(), "bank/".to_owned()],
            accounts: 10,
            opening: 100,
            amount_max: 40,
            ways: vec![Way::Serializable, Way::Snapshot, Way::ForUpdate, Way::Batch],
            lock_wait: Duration::from_millis(500),
            soon_too_old: false,
        }
    }
}

#[derive(Default)]
struct State {
    /// True once the accounts are open.
    opened: bool,
    history: History,
    surprises: Vec<String>,
}

/// The workload with its history. Clones share both.
#[derive(Clone)]
pub struct Bank {
    settings: Arc<Settings>,
    state: Arc<Mutex<State>>,
}

/// Reason why a transfer did not succeed.
enum Stopped {
    /// There is not enough money.
    Declined,
    Failed(Error),
    /// The error came after the commit was requested.
    Committing(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Stopped::Failed(error)
    }
}

impl Bank {
    pub fn new(settings: Settings) -> Self {
        let (accounts, opening) = (settings.accounts, settings.opening);
        let history = History { accounts, opening, ..History::default() };
        let state = State { history, ..State::default() };
        Bank { settings: Arc::new(settings), state: Arc::new(Mutex::new(state)) }
    }

    /// Opens the accounts, once and for all. False if the caller has to try again.
    pub async fn open(&self, client: &Client) -> bool {
        let mut batch = Batch::new().when(Condition::absent(self.account(0)));
        for place in 0..self.settings.accounts {
            batch = batch.put(self.account(place), self.settings.opening.to_string());
        }
        let opened = match client.batch(batch).await {
            // On a conflict, an earlier attempt with an unknown outcome has opened them. No later
            // attempt can open them again.
            Ok(_) | Err(Error::Conflict { .. }) => true,
            Err(error) => {
                self.note_error("opening", &error);
                false
            }
        };
        self.state().opened |= opened;
        opened
    }

    /// Makes one transfer or reads one total; opens the accounts if nobody has. Returns the
    /// outcome.
    pub async fn step(&self, client: &Client, rng: &mut Rng) -> Outcome {
        if !self.state().opened {
            return if self.open(client).await { Outcome::Ok } else { Outcome::Unknown };
        }
        match rng.u32(0..100) < TOTAL_PERCENT {
            true => self.read_total(client, rng).await,
            false => self.transfer(client, rng).await,
        }
    }

    /// Reads accounts and receipts once no transfer is in flight. False if there was no answer.
    pub async fn read_end(&self, client: &Client) -> bool {
        match self.end(client).await {
            Ok(end) => {
                self.state().history.end = Some(end);
                true
            }
            Err(error) => {
                self.note_error("the end", &error);
                false
            }
        }
    }

    /// Returns the number of acknowledged transfers.
    pub fn transferred(&self) -> usize {
        let state = self.state();
        let transfers = &state.history.transfers;
        transfers.iter().filter(|(_, outcome)| *outcome == Outcome::Ok).count()
    }

    pub fn history(&self) -> History {
        self.state().history.clone()
    }

    /// Returns errors that no fault and no other client explains, and values that make no sense.
    pub fn surprises(&self) -> Vec<String> {
        self.state().surprises.clone()
    }

    /// Checks the history as it is now.
    pub fn check(&self) -> Result<Summary, Vec<String>> {
        check(&self.history())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    async fn transfer(&self, client: &Client, rng: &mut Rng) -> Outcome {
        let settings = &self.settings;
        let from = rng.usize(0..settings.accounts);
        let to = (from + rng.usize(1..settings.accounts)) % settings.accounts;
        let transfer = Transfer { from, to, amount: rng.i64(1..=settings.amount_max) };
        let way = settings.ways[rng.usize(0..settings.ways.len())];
        let number = {
            let mut state = self.state();
            // Unknown until there is an answer, also if this step is dropped.
            state.history.transfers.push((transfer, Outcome::Unknown));
            state.history.transfers.len() - 1
        };
        let result = match way {
            Way::Batch => self.by_batch(client, number, transfer).await,
            _ => self.by_transaction(client, number, transfer, way).await,
        };
        let outcome = match &result {
            Ok(()) => Outcome::Ok,
            Err(Stopped::Committing(error)) => Outcome::of(error),
            Err(_) => Outcome::Failed,
        };
        if let Err(Stopped::Failed(error) | Stopped::Committing(error)) = &result {
            self.note_error("a transfer", error);
        }
        self.state().history.transfers[number].1 = outcome;
        outcome
    }

    async fn by_transaction(
        &self,
        client: &Client,
        number: usize,
        transfer: Transfer,
        way: Way,
    ) -> Result<(), Stopped> {
        let isolation = match way {
            Way::Snapshot => Isolation::Snapshot,
            _ => Isolation::Serializable,
        };
        let lock_wait = Some(self.settings.lock_wait);
        let options = TransactionOptions { isolation, lock_wait, ..Default::default() };
        let txn = client.begin(options).await?;
        let rows = [
            read(&txn, self.account(transfer.from), way).await?,
            read(&txn, self.account(transfer.to), way).await?,
        ];
        let [from, to] = self.moved(rows, transfer)?;
        txn.put(self.account(transfer.from), from.to_string()).await?;
        txn.put(self.account(transfer.to), to.to_string()).await?;
        txn.put(self.receipt(number), encode(transfer)).await?;
        txn.commit().await.map_err(Stopped::Committing)?;
        Ok(())
    }

    async fn by_batch(
        &self,
        client: &Client,
        number: usize,
        transfer: Transfer,
    ) -> Result<(), Stopped> {
        let keys = [self.account(transfer.from), self.account(transfer.to)];
        let rows = [client.get(keys[0].clone()).await?, client.get(keys[1].clone()).await?];
        let mut batch = Batch::new();
        for (key, row) in keys.iter().zip(&rows) {
            let value = row.as_ref().map_or(Default::default(), |row| row.value.clone());
            batch = batch.when(Condition::value(key.clone(), value));
        }
        let [from, to] = self.moved(rows, transfer)?;
        let [from_key, to_key] = keys;
        let batch = batch
            .put(from_key, from.to_string())
            .put(to_key, to.to_string())
            .put(self.receipt(number), encode(transfer));
        client.batch(batch).await.map_err(Stopped::Committing)?;
        Ok(())
    }

    /// Returns the balances of both accounts after a transfer. Declines the transfer if there is
    /// not enough money.
    fn moved(&self, rows: [Option<KeyValue>; 2], transfer: Transfer) -> Result<[i64; 2], Stopped> {
        let [Some(from), Some(to)] = rows.map(|row| self.balance(row)) else {
            self.surprise(format!("an account is gone that {transfer:?} needs"));
            return Err(Stopped::Declined);
        };
        let lowest = from.min(to);
        let mut state = self.state();
        let seen = &mut state.history.lowest_seen;
        *seen = Some(seen.map_or(lowest, |seen| seen.min(lowest)));
        match from >= transfer.amount {
            true => Ok([from - transfer.amount, to + transfer.amount]),
            false => Err(Stopped::Declined),
        }
    }

    async fn read_total(&self, client: &Client, rng: &mut Rng) -> Outcome {
        let balances = match rng.u8(0..3) {
            0 => self.balances_one_by_one(client).await,
            1 => self.balances_by_scan(client).await,
            _ => self.balances_at_a_timestamp(client).await,
        };
        match balances {
            Ok(balances) => {
                self.state().history.totals.push(Total { balances });
                Outcome::Ok
            }
            Err(error) => {
                self.note_error("a total", &error);
                Outcome::Failed
            }
        }
    }

    async fn balances_one_by_one(&self, client: &Client) -> Result<Vec<Option<i64>>, Error> {
        let txn = client.begin(read_only()).await?;
        let keys = (0..self.settings.accounts).map(|place| self.account(place));
        let rows = txn.get_many(keys).await?;
        Ok(rows.into_iter().map(|row| self.balance(row)).collect())
    }

    async fn balances_by_scan(&self, client: &Client) -> Result<Vec<Option<i64>>, Error> {
        let txn = client.begin(read_only()).await?;
        self.scan_accounts(&txn).await
    }

    async fn balances_at_a_timestamp(&self, client: &Client) -> Result<Vec<Option<i64>>, Error> {
        let at = client.timestamp().await?;
        let mut balances = Vec::new();
        for place in 0..self.settings.accounts {
            balances.push(self.balance(client.get_at(self.account(place), at).await?));
        }
        Ok(balances)
    }

    async fn scan_accounts(&self, txn: &Transaction) -> Result<Vec<Option<i64>>, Error> {
        let mut balances = vec![None; self.settings.accounts];
        for prefix in &self.settings.prefixes {
            let mut rows = txn.range(RangeOptions::prefix(format!("{prefix}account/")));
            while let Some(row) = rows.next().await {
                let row = row?;
                match number_of(&row).filter(|place| *place < balances.len()) {
                    Some(place) => balances[place] = self.balance(Some(row)),
                    None => self.surprise(format!("nobody opened {row:?}")),
                }
            }
        }
        Ok(balances)
    }

    async fn end(&self, client: &Client) -> Result<End, Error> {
        let txn = client.begin(read_only()).await?;
        let balances = self.scan_accounts(&txn).await?;
        let mut receipts = BTreeMap::new();
        for prefix in &self.settings.prefixes {
            let mut rows = txn.range(RangeOptions::prefix(format!("{prefix}receipt/")));
            while let Some(row) = rows.next().await {
                let row = row?;
                match number_of(&row).zip(self.decode(&row.value)) {
                    Some((number, transfer)) => drop(receipts.insert(number, transfer)),
                    None => self.surprise(format!("{row:?} is no receipt")),
                }
            }
        }
        Ok(End { balances, receipts })
    }

    fn account(&self, place: usize) -> String {
        format!("{}account/{place:06}", self.prefix(place))
    }

    fn receipt(&self, number: usize) -> String {
        format!("{}receipt/{number:09}", self.prefix(number))
    }

    /// Returns the prefix of the key with this number. Neighbours lie in different ranges.
    fn prefix(&self, number: usize) -> &str {
        &self.settings.prefixes[number % self.settings.prefixes.len()]
    }

    fn balance(&self, row: Option<KeyValue>) -> Option<i64> {
        let row = row?;
        let balance = std::str::from_utf8(&row.value).ok().and_then(|text| text.parse().ok());
        if balance.is_none() {
            self.surprise(format!("{row:?} holds no balance"));
        }
        balance
    }

    fn decode(&self, value: &[u8]) -> Option<Transfer> {
        let text = std::str::from_utf8(value).ok()?;
        let mut parts = text.split(',');
        let mut account = || parts.next()?.parse().ok().filter(|a| *a < self.settings.accounts);
        let (from, to) = (account()?, account()?);
        Some(Transfer { from, to, amount: parts.next()?.parse().ok()? })
    }

    fn note_error(&self, what: &str, error: &Error) {
        let too_old = self.settings.soon_too_old && is_too_old(error);
        if !is_explained(error) && !too_old {
            self.surprise(format!("{what} ended in {error}"));
        }
    }

    fn surprise(&self, what: String) {
        let mut state = self.state();
        if state.surprises.len() < SURPRISES_MAX {
            state.surprises.push(what);
        }
    }
}

async fn read(txn: &Transaction, key: String, way: Way) -> Result<Option<KeyValue>, Error> {
    match way {
        Way::ForUpdate => txn.get_for_update(key).await,
        _ => txn.get(key).await,
    }
}

fn read_only() -> TransactionOptions {
    TransactionOptions { read_only: true, ..Default::default() }
}

/// Returns the number behind the last slash of a key.
fn number_of(row: &KeyValue) -> Option<usize> {
    let key = std::str::from_utf8(&row.key).ok()?;
    key.rsplit('/').next()?.parse().ok()
}

fn encode(Transfer { from, to, amount }: Transfer) -> String {
    format!("{from},{to},{amount}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_survives_being_written_down() {
        let bank = Bank::new(Settings::default());
        let transfer = Transfer { from: 3, to: 9, amount: 40 };
        assert_eq!(bank.decode(encode(transfer).as_bytes()), Some(transfer));
        for bad in ["", "1,2", "1,x,3", "1,10,3"] {
            assert_eq!(bank.decode(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn neighbours_lie_under_different_prefixes() {
        let bank = Bank::new(Settings::default());
        assert_eq!(bank.account(4), "/bank/account/000004");
        assert_eq!(bank.account(5), "bank/account/000005");
        assert_eq!(bank.receipt(5), "bank/receipt/000000005");
    }
}
