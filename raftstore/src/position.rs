//! Places in a log.

/// A place in a log: an entry's index and the term that it was proposed in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Position {
    pub index: u64,
    pub term: u64,
}
