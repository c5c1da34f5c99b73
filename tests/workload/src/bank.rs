//! Transfers between accounts that lie in several ranges. Money is neither made nor lost.
//!
//! Every transfer also writes a receipt, in the same transaction and often in a third range. So the
//! outcome of every transfer is known at the end:
//!
//! * The receipt of an acknowledged transfer is there.
//! * The receipt of a refused transfer is not there.
//! * The receipt of an unknown transfer may be there.
//!
//! Each account must hold exactly what the receipts say, so two errors that cancel out in a total
//! are found.
//!
//! `workload.rs` makes the transfers and reads totals meanwhile; `check.rs` checks the history.

mod check;
mod workload;

use std::collections::BTreeMap;

use crate::history::Outcome;

pub use check::{Summary, check};
pub use workload::{Bank, Settings, Way};

/// Content of a receipt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// Indexes of accounts.
    pub from: usize,
    pub to: usize,
    pub amount: i64,
}

/// All accounts as of one moment; none for an account that was not there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Total {
    pub balances: Vec<Option<i64>>,
}

/// Accounts and receipts as of one moment after all transfers had ended.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct End {
    pub balances: Vec<Option<i64>>,
    /// Receipts by the number of their transfer.
    pub receipts: BTreeMap<usize, Transfer>,
}

/// Observations of the clients.
#[derive(Clone, Default, Debug)]
pub struct History {
    pub accounts: usize,
    /// Balance of every account in the beginning.
    pub opening: i64,
    /// Transfers by their number. A transfer that was declined for want of money has failed.
    pub transfers: Vec<(Transfer, Outcome)>,
    pub totals: Vec<Total>,
    /// Lowest balance that a transfer found in an account.
    pub lowest_seen: Option<i64>,
    pub end: Option<End>,
}
