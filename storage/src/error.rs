//! Storage errors, by what the caller does next.

use std::path::PathBuf;

/// Storage error. Each variant says what it means to the node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Stored bytes are not what was written. The node must not serve from them. An operator wipes
    /// the directory, after which other replicas supply the data again, or restores the directory.
    #[error("corrupt data in {}: {reason}", file.as_deref().map_or("the engine".into(), |f| f.display().to_string()))]
    Corrupt { file: Option<PathBuf>, reason: String },
    /// A record has valid checksums, but this version does not write such a record, or a part that
    /// it refers to is missing. The same bytes give the same error everywhere, so this may be the
    /// answer to one request; the record stays as it is.
    #[error("damaged data: {0}")]
    Damaged(String),
    /// The disk is full. Reads go on; writes may be retried once there is room.
    #[error("no space left on the disk: {0}")]
    Full(String),
    /// The operating system refused a read or write. After a failed sync the page cache no longer
    /// shows what is on disk, so the process ends; nothing is retried.
    #[error("input/output: {0}")]
    Io(String),
    /// The engine refuses the call: another process has the directory open, the directory is of a
    /// newer format or another cluster, or the staged snapshot is unknown.
    #[error("{0}")]
    Refused(String),
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn corrupt(reason: impl Into<String>) -> Self {
        Error::Corrupt { file: None, reason: reason.into() }
    }

    pub fn damaged(reason: impl Into<String>) -> Self {
        Error::Damaged(reason.into())
    }
}
