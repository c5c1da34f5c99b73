//! Commit of undecided transactions: their locks become versions.
//!
//! The primary alone decides. The transaction is committed from the moment that a version, or a
//! record of the commit, replaces the lock there. It can never commit once a record there says that
//! it was rolled back. All other locks follow.

use bytes::Bytes;
use rangedb_storage::{Record, RecordValue, Result};

use crate::evaluation::Evaluation;
use crate::lock::{Lock, LockKind};
use crate::outcome_record::Outcome;
use crate::versions;

/// Turns a transaction's locks into versions. `locked` holds each lock with its key and the key's
/// newest version.
///
/// # Errors
///
/// [`rangedb_storage::Error::Damaged`] if a key's newest version is not older than `commit_ts`;
/// nothing was written.
pub(crate) fn commit(
    evaluation: &mut Evaluation<'_, '_>,
    (start_ts, commit_ts): (u64, u64),
    locked: Vec<(Bytes, Lock, Option<Record>)>,
) -> Result<()> {
    if locked.is_empty() {
        return Ok(());
    }
    for (key, _, before) in &locked {
        versions::check_order(key, before.as_ref(), commit_ts)?;
    }
    for (key, lock, before) in locked {
        evaluation.remove_lock(&key, start_ts);
        match lock.kind {
            LockKind::Write { value, lease_id } => {
                let after = version((start_ts, commit_ts), value, lease_id, before.as_ref());
                evaluation.put_version(&key, before, after);
            }
            // A primary without a version must still record that the transaction committed.
            LockKind::Pessimistic if lock.primary == key => {
                evaluation.leave_outcome(&key, start_ts, Outcome::Committed { commit_ts });
            }
            LockKind::Pessimistic => {}
        }
    }
    evaluation.committed(commit_ts);
    Ok(())
}

fn version(
    (start_ts, mod_ts): (u64, u64),
    value: RecordValue,
    lease_id: u64,
    before: Option<&Record>,
) -> Record {
    let (version, create_ts) = match before {
        _ if value == RecordValue::Deleted => (0, 0),
        Some(before) if !before.is_deleted() => (before.version + 1, before.create_ts),
        _ => (1, mod_ts),
    };
    Record { mod_ts, start_ts, create_ts, version, lease_id, value }
}
