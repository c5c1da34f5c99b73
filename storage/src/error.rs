//! Storage errors, by what the caller does next.

use std::path::PathBuf;

/// See the variants for what each means to the node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Stored bytes are not what was written. The node must not serve from them; an operator wipes
    /// the directory (the replicas come back from the others) or restores it.
    #[error("corrupt data in {}: {reason}", file.as_deref().map_or("the engine".into(), |f| f.display().to_string()))]
    Corrupt { file: Option<PathBuf>, reason: String },
    /// The engine returned a record whole, as its checksums say, and it is none that this version
    /// writes, or what it names is not there. The same bytes give the same error everywhere, so it
    /// may be the answer of one request; the record stays as it is.
    #[error("damaged data: {0}")]
    Damaged(String),
    /// The disk is full. Reads go on; writes may be asked again once there is room.
    #[error("no space left on the disk: {0}")]
    Full(String),
    /// The operating system refused a read or write. After a failed sync the page cache no longer
    /// says what is on disk, so the process ends; nothing is retried.
    #[error("input/output: {0}")]
    Io(String),
    /// The directory cannot be opened as it is: another process has it, it is of a newer format or
    /// of another cluster.
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
