//! Room on the disk that a store's node writes to.

/// Room on the disk, by the entries that a store may accept. Reads go on in any case, and so do
/// ranges of the cluster's own keys: they write little, and without them nobody could find a range
/// to read or get a timestamp to read at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Room {
    /// Room for everything.
    #[default]
    Enough,
    /// Room only for commands that free space: deletes, the end of transactions, garbage collection
    /// and the removal of replicas.
    Reserve,
    /// Room for nothing.
    None,
}

impl Room {
    pub(crate) fn is_for(self, frees_space: bool) -> bool {
        match self {
            Room::Enough => true,
            Room::Reserve => frees_space,
            Room::None => false,
        }
    }
}
