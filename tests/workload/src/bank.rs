//! Transfers between accounts that lie in several ranges. Money is neither made nor lost.
//!
//! Every transfer also writes a receipt, in the same transaction and often in a third range. So at the
//! end there is no doubt left about any of them: the receipt of an acknowledged transfer is there, that
//! of a refused one is not, that of an unknown one may be; and each account holds exactly what the
//! receipts say. A total that comes out right by two wrongs does not pass.
//!
//! `workload.rs` makes the transfers and reads totals while they go on; `check.rs` is the verdict.

mod check;
mod workload;

use std::collections::BTreeMap;

use crate::history::Outcome;

pub use check::{Summary, check};
pub use workload::{Bank, Settings, Way};

/// What stands in a receipt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// Places of accounts.
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
    /// By the number of the transfer.
    pub receipts: BTreeMap<usize, Transfer>,
}

/// What clients saw.
#[derive(Clone, Default, Debug)]
pub struct History {
    pub accounts: usize,
    /// What every account held in the beginning.
    pub opening: i64,
    /// By their number. One that was declined for want of money has failed.
    pub transfers: Vec<(Transfer, Outcome)>,
    pub totals: Vec<Total>,
    /// What transfers found in accounts.
    pub lowest_seen: Option<i64>,
    pub end: Option<End>,
}
