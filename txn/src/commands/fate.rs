//! What a key knows of a transaction.
//!
//! Everything that the commands of transactions over ranges decide, they decide by this, so that
//! each of them may come twice, late, or after another has ended the transaction.

use rangedb_storage::{Reader, Record, Result};

use crate::lock::Lock;
use crate::memory::Memory;
use crate::outcome_record::Outcome;
use crate::versions;
use crate::window::AppliedWindow;

/// A key as a transaction finds it.
pub(crate) struct Found {
    pub(crate) fate: Fate,
    /// Another transaction's lock.
    pub(crate) foreign_lock: Option<Lock>,
    /// The newest committed version.
    pub(crate) current: Option<Record>,
}

/// What became of a transaction, as far as one key knows.
pub(crate) enum Fate {
    /// Its lock stands there.
    Locked(Lock),
    Committed {
        commit_ts: u64,
    },
    RolledBack,
    /// It has not been there, or had only a pessimistic lock there that was released.
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

/// The fate of a transaction that has no lock at the key.
fn ended(
    reader: &dyn Reader,
    memory: &Memory,
    key: &[u8],
    current: Option<&Record>,
    start_ts: u64,
) -> Result<Fate> {
    if let Some(commit_ts) = committed_at(reader, &memory.applied, key, current, start_ts)? {
        return Ok(Fate::Committed { commit_ts });
    }
    Ok(match Outcome::read(reader, key, start_ts)? {
        Some(Outcome::Committed { commit_ts }) => Fate::Committed { commit_ts },
        Some(Outcome::RolledBack) => Fate::RolledBack,
        None => Fate::Unknown,
    })
}

/// When the version that the transaction wrote to the key was committed; `None` if there is none.
/// `current` is the key's newest version.
pub(crate) fn committed_at(
    reader: &dyn Reader,
    applied: &AppliedWindow,
    key: &[u8],
    current: Option<&Record>,
    start_ts: u64,
) -> Result<Option<u64>> {
    match current {
        // A commit is never older than its start.
        Some(current) if current.mod_ts >= start_ts => {
            if current.start_ts == start_ts {
                return Ok(Some(current.mod_ts));
            }
        }
        _ => return Ok(None),
    }
    if applied.contains(start_ts) == Some(false) {
        return Ok(None);
    }
    versions::superseded_by_start_ts(reader, key, start_ts)
}
