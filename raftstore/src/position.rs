//! Positions in a log.

/// Position in a log: an entry's index and the term in which it was proposed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Position {
    pub index: u64,
    pub term: u64,
}
