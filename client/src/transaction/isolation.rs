//! Isolation levels, and the checks that each needs at commit.

use super::buffer::Mutation;
use super::read_set::{Check, ReadSet};
use crate::keys::Span;

/// What others may do between a transaction's reads and its commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Nothing that shows: transactions have the effect of running one after the other, in an order
    /// that agrees with real time. What was read, absent keys and spans included, is still so when
    /// the transaction commits.
    #[default]
    Serializable,
    /// All reads see one moment, and of two transactions that write the same key at the same time
    /// one fails. But two that each read what the other writes may both commit (write skew).
    Snapshot,
}

impl Isolation {
    /// What has to be validated at the commit timestamp of two phases. Prewriting a key finds a
    /// newer version of it under every isolation.
    pub(crate) fn validated(self, reads: ReadSet, read_ts: u64) -> Vec<Check> {
        #[cfg(feature = "planted")]
        if rangedb_planted::Bug::ValidationSkipped.is_planted() {
            return Vec::new();
        }
        #[cfg(feature = "planted")]
        if rangedb_planted::Bug::PhantomUnchecked.is_planted() {
            let is_key = |check: &Check| check.to_wire().end_key.is_empty();
            return reads.into_checks(read_ts).into_iter().filter(is_key).collect();
        }
        match self {
            Isolation::Serializable => reads.into_checks(read_ts),
            Isolation::Snapshot => Vec::new(),
        }
    }

    /// What the command of a one-range commit has to check. It has no other way to find that
    /// somebody else wrote one of its keys since: under snapshot isolation, where reads are not
    /// checked, the written keys are, or updates would be lost.
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
