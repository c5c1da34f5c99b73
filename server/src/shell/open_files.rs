//! Limit on the files that the process may have open. RocksDB keeps its files open. A soft limit of
//! 1,024, which is common, would end in errors long before the disk is full.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one. Returns the limit now in force.
pub(crate) fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, limit = limit.current, "the limit of open files cannot be raised");
    }
    // `None` means no limit.
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
