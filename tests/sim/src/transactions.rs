//! Transactions over both user ranges: lists that are appended to, a bank, tickets. Their histories
//! are judged as a whole at the end (`rangedb-workload`, `check/tickets.rs`).
//!
//! A client may be killed in the middle of one of these. So each workload notes down what it is
//! going to do before it does it, and what a dead client left has an unknown outcome.

use rangedb_client::Client;
use rangedb_workload::bank::{self, Bank};
use rangedb_workload::history::Stamps;
use rangedb_workload::list_append::{self, ListAppend, Mode};

use crate::check::{self, Verdict};
use crate::plan::Load;
use crate::schedule::Schedule;
use crate::tickets::Tickets;

/// Prefixes in the first and in the last user range, outside of what the other operations scan.
const LIST_PREFIXES: [&str; 2] = ["%list/", "y/list/"];
const BANK_PREFIXES: [&str; 2] = ["%bank/", "y/bank/"];

/// Numbers of lists and of accounts: few, so that clients meet.
const LISTS: usize = 2;
const ACCOUNTS: usize = 5;

/// Appends to a list, after which a new list takes its place: every append writes the whole list
/// again.
const APPENDS_MAX: usize = 24;

/// Maximum number of operations of a transaction on lists.
const OPS_MAX: usize = 4;

/// Transactions of all clients. Clones share the state.
#[derive(Clone)]
pub struct Transactions {
    pub lists: ListAppend,
    pub bank: Bank,
    pub tickets: Tickets,
}

impl Transactions {
    /// Creates the workloads. With `soon_too_old`, old versions are not kept for longer than a
    /// transaction may take.
    pub fn new(load: &Load, schedule: &Schedule, soon_too_old: bool) -> Self {
        let schedule = schedule.clone();
        let stamps = Stamps::from_fn(move || schedule.stamp());
        let owned = |prefixes: [&str; 2]| prefixes.map(str::to_owned).to_vec();
        let lists = list_append::Settings {
            prefixes: owned(LIST_PREFIXES),
            lists: LISTS,
            appends_max: APPENDS_MAX,
            ops_max: OPS_MAX,
            snapshot_percent: load.snapshot_percent,
            modes: vec![Mode::Optimistic, Mode::Pessimistic, Mode::ForUpdate, Mode::Mixed],
            soon_too_old,
            ..Default::default()
        };
        let bank = bank::Settings {
            prefixes: owned(BANK_PREFIXES),
            accounts: ACCOUNTS,
            soon_too_old,
            ..Default::default()
        };
        Transactions {
            lists: ListAppend::new(lists, stamps.clone()),
            bank: Bank::new(bank),
            tickets: Tickets::new(stamps, soon_too_old),
        }
    }

    /// Reads everything once no client works any more.
    pub async fn read_end(&self, client: &Client, me: usize) {
        while !self.lists.read_all(client, me).await {}
        while !self.bank.open(client).await {}
        while !self.bank.read_end(client).await {}
        while !self.tickets.read_end(client).await {}
    }

    pub fn judge(&self) -> Verdict {
        if let Err(anomalies) = self.lists.check() {
            return Err(format!("lists: {}", anomalies[0]));
        }
        if let Err(problems) = self.bank.check() {
            return Err(format!("bank: {}", problems.join("; ")));
        }
        let (draws, end) = self.tickets.history();
        check::tickets::check(&draws, &end.unwrap_or_default())?;
        let surprises = self.lists.surprises().into_iter().chain(self.bank.surprises());
        match surprises.chain(self.tickets.surprises()).next() {
            Some(surprise) => Err(surprise),
            None => Ok(()),
        }
    }

    /// Number of transactions on lists, and of transfers, that committed.
    pub fn committed(&self) -> usize {
        self.lists.committed() + self.bank.transferred()
    }
}
