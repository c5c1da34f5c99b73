//! Room on the disk that a store's node writes to.

/// Room on the disk, by what may be taken in. Reads go on in any case, and so do ranges of the
/// cluster's own keys: what they write is little, and without it nobody would find a range to read or
/// get a timestamp to read at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Room {
    /// For everything.
    #[default]
    Enough,
    /// Only for what gives some back: deletes, the end of transactions, the collection of garbage and
    /// the removal of replicas.
    Reserve,
    /// For nothing more.
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
