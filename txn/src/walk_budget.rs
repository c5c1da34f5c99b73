//! Walk budget: a bound on the records that one command, or one step of a read, walks over.
//!
//! Whoever evaluates commands of a range one after the other makes all later ones wait, so what a
//! single one may cost is bounded by records, not by bytes or keys alone: records of keys that were
//! deleted cost as much to pass as others, and give nothing back.

/// Records that may still be walked over.
#[derive(Debug)]
pub(crate) struct WalkBudget {
    left: usize,
}

impl WalkBudget {
    pub(crate) fn new(records_max: usize) -> Self {
        WalkBudget { left: records_max }
    }

    /// Counts one more record. False if there was none left.
    pub(crate) fn take(&mut self) -> bool {
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.left == 0
    }
}
