//! Isolation levels, and the checks that each needs at commit.

use super::buffer::Mutation;
use super::read_set::{Check, ReadSet};
use crate::keys::Span;
use crate::planted::planted;

/// Isolation level: the changes by others that are allowed between a transaction's reads and its
/// commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// None that show: transactions behave as if they ran one after the other, in an order that
    /// agrees with real time. Everything that was read, absent keys and spans included, is
    /// unchanged when the transaction commits.
    #[default]
    Serializable,
    /// All reads see one moment, and of two transactions that write the same key at the same time
    /// one fails. But two that each read what the other writes may both commit (write skew).
    Snapshot,
}

impl Isolation {
    /// Reads to validate at the commit timestamp of two phases. Under every isolation, the prewrite
    /// of a key finds a newer version of it.
    pub(crate) fn validated(self, reads: ReadSet, read_ts: u64) -> Vec<Check> {
        if planted!(ValidationSkipped) {
            return Vec::new();
        }
        if planted!(PhantomUnchecked) {
            let is_key = |check: &Check| check.to_wire().end_key.is_empty();
            return reads.into_checks(read_ts).into_iter().filter(is_key).collect();
        }
        match self {
            Isolation::Serializable => reads.into_checks(read_ts),
            Isolation::Snapshot => Vec::new(),
        }
    }

    /// Checks for the command of a one-range commit, which has no other way to find that another
    /// transaction wrote one of its keys since. Under snapshot isolation reads are not checked, so
    /// the written keys are, or updates would be lost.
    pub(crate) fn checked_in_one_range(
        self,
        validated: &[Check],
        writes: &[Mutation],
        read_ts: u64,
    ) -> Vec<Check> {
        match self {
            Isolation::Serializable => validated.to_vec(),
            Isolation::Snapshot => writes
                .iter()
                .map(|write| Check { span: Span::of_key(&write.key), read_ts })
                .collect(),
        }
    }
}
