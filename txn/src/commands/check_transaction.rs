//! Status of a transaction, asked at its primary by one who found a lock in the way.
//!
//! The question itself may decide: a transaction whose time is up is rolled back, and so is one that
//! has not been here, because its first phase may still come and must then be refused. That waits
//! until the lock that was met has had its time: the first phase goes to all ranges at once, and may
//! just not have got here yet. Time is the oracle's, as the one who asks took it, so no clock but the
//! oracle's has a say.
//!
//! An asynchronous commit is not decided here, but by all of its locks together: the answer says where
//! to look for them, also when its time is up.
//!
//! A primary whose own lock names another primary decides nothing, and nothing was ever committed
//! through it: a sound transaction has one primary. Once both locks have had their time, the one that
//! was met is told to go, so that locks that name each other cannot stand for ever. Only locks that name
//! the primary that was asked may be finished by what it says (`resolve_locks.rs`). The lock at the
//! key that was asked stays as it is: its fate is that of the primary that it names.
//!
//! Of a transaction from below the floor nothing can come any more, so no record is needed. From
//! below what was collected, nothing is known: it may have committed.

use rangedb_proto::Timestamp;
use rangedb_proto::v1::transaction_status::State;
use rangedb_proto::v1::{CheckTransaction, TransactionStatus, command_reply};
use rangedb_storage::{ApplyContext, Batch};

use super::bounds::Bounds;
use super::fate::{Fate, Found};
use super::{Stop, undecided};
use crate::lock::Lock;
use crate::memory::Memory;
use crate::outcome_record::Outcome;

/// Evaluates the command against the batch and puts its writes there.
pub(crate) fn apply(
    context: &ApplyContext<'_>,
    memory: &mut Memory,
    check: &CheckTransaction,
    batch: &mut Batch<'_>,
) -> Result<command_reply::Body, Stop> {
    let key = &check.primary[..];
    Bounds::of(context).check_key(key)?;
    Ok(match Found::at(batch, memory, key, check.start_ts)?.fate {
        Fate::Locked(lock) if lock.primary != key => {
            let alive_until_ms = lock.alive_until_ms.max(check.met_alive_until_ms);
            if Timestamp(check.now_ts).millis() <= alive_until_ms {
                return Ok(on_its_way(alive_until_ms));
            }
            rolled_back()
        }
        Fate::Locked(mut lock) => {
            if lock.async_commit.is_some() {
                // It may be committed, at what its locks promise: it is too late to change that.
                return Ok(alive(&lock));
            }
            if Timestamp(check.now_ts).millis() > lock.alive_until_ms {
                undecided::roll_back(memory, batch, key, &lock);
                return Ok(rolled_back());
            }
            if check.push_above_ts >= lock.min_commit_ts {
                lock.min_commit_ts = check.push_above_ts + 1;
                memory.locks.replace(batch, key, &lock);
            }
            alive(&lock)
        }
        Fate::Committed { commit_ts } => committed(commit_ts),
        Fate::RolledBack => rolled_back(),
        Fate::Unknown => {
            memory.check_remembered(check.start_ts)?;
            if !memory.may_lock(check.start_ts) {
                return Ok(rolled_back());
            }
            if Timestamp(check.now_ts).millis() <= check.met_alive_until_ms {
                return Ok(on_its_way(check.met_alive_until_ms));
            }
            memory.locks.leave_outcome(batch, key, check.start_ts, Outcome::RolledBack);
            rolled_back()
        }
    })
}

pub(super) fn alive(lock: &Lock) -> command_reply::Body {
    status(TransactionStatus {
        state: State::Alive.into(),
        alive_until_ms: lock.alive_until_ms,
        min_commit_ts: lock.min_commit_ts,
        async_commit: lock.async_commit.is_some(),
        secondaries: lock.async_commit.clone().unwrap_or_default(),
        ..Default::default()
    })
}

/// The first phase got to another key before the primary, or the key is no primary. Where it may commit
/// is not known yet, so no reader may go before it.
fn on_its_way(alive_until_ms: u64) -> command_reply::Body {
    status(TransactionStatus { state: State::Alive.into(), alive_until_ms, ..Default::default() })
}

pub(super) fn committed(commit_ts: u64) -> command_reply::Body {
    status(TransactionStatus { state: State::Committed.into(), commit_ts, ..Default::default() })
}

pub(super) fn rolled_back() -> command_reply::Body {
    status(TransactionStatus { state: State::RolledBack.into(), ..Default::default() })
}

pub(super) fn status(status: TransactionStatus) -> command_reply::Body {
    command_reply::Body::TransactionStatus(status)
}
