//! Ids, each a type of its own so that they cannot be confused.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }
    };
}

id!(
    /// A range, for as long as the cluster exists. 0 is no range.
    RangeId,
    "r"
);
id!(
    /// A node: one process with one data directory. 0 is no node.
    NodeId,
    "n"
);
id!(
    /// A replica within its range, with its raft id there. Never reused in that range, so that a
    /// message to a destroyed replica cannot reach its successor. 0 is no replica.
    ReplicaId,
    "p"
);
