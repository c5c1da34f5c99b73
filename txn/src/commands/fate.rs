//! Fate of a transaction as one key knows it.
//!
//! The commands of transactions over ranges base all decisions on this fate. So each of them may
//! come twice, late, or after another has ended the transaction.

use rangedb_storage::{Reader, Record, Result};

use crate::lock::Lock;
use crate::memory::Memory;
use crate::outcome_record::Outcome;
use crate::versions;

/// State of a key, as a transaction finds it.
pub(crate) struct Found {
    pub(crate) fate: Fate,
    /// Another transaction's lock.
    pub(crate) foreign_lock: Option<Lock>,
    /// The newest committed version.
    pub(crate) current: Option<Record>,
}

/// Fate of a transaction, as far as one key knows.
pub(crate) enum Fate {
    /// The transaction's lock stands at the key.
    Locked(Lock),
    Committed {
        commit_ts: u64,
    },
    RolledBack,
    /// The transaction has not been at the key, or had only a pessimistic lock there that was
    /// released.
    Unknown,
}

impl Found {
    pub(crate) fn at(
        reader: &dyn Reader,
        memory: &Memory,
        key: &[u8],
        start_ts: u64,
    ) -> Result<Self> {
        let current = versions::current(reader, key)?;
        let (own_lock, foreign_lock) = match memory.locks.get(reader, key)? {
            Some(lock) if lock.start_ts == start_ts => (Some(lock), None),
            other => (None, other),
        };
        let fate = match own_lock {
            Some(lock) => Fate::Locked(lock),
            None => ended(reader, memory, key, current.as_ref(), start_ts)?,
        };
        Ok(Found { fate, foreign_lock, current })
    }
}

/// Returns the fate of a transaction that has no lock at the key.
fn ended(
    reader: &dyn Reader,
    memory: &Memory,
    key: &[u8],
    current: Option<&Record>,
    start_ts: u64,
) -> Result<Fate> {
    let collect_below = memory.range.collected_below_ts;
    let written_at = versions::written_at(reader, key, current, start_ts, collect_below)?;
    if let Some(commit_ts) = written_at {
        return Ok(Fate::Committed { commit_ts });
    }
    Ok(match memory.locks.outcome(reader, key, start_ts)? {
        Some(Outcome::Committed { commit_ts }) => Fate::Committed { commit_ts },
        Some(Outcome::RolledBack) => Fate::RolledBack,
        None => Fate::Unknown,
    })
}
