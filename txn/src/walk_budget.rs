//! Walk budget: a bound on the records that one command, or one step of a read, walks over.
//!
//! A range evaluates one command after the other, so each command delays all later ones. Its cost
//! is bounded in records, and not in bytes or keys alone: records of deleted keys cost as much to
//! pass as others, and return nothing.

/// Records that may still be walked over.
#[derive(Debug)]
pub(crate) struct WalkBudget {
    left: usize,
}

impl WalkBudget {
    pub(crate) fn new(records_max: usize) -> Self {
        WalkBudget { left: records_max }
    }

    /// Counts one more record. False if none was left.
    pub(crate) fn take(&mut self) -> bool {
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.left == 0
    }
}
