//! Heartbeat of a transaction: extends its life at its primary.

use rangedb_proto::v1::{HeartbeatLock, command_reply};
use rangedb_storage::{ApplyContext, Batch};

use super::Stop;
use super::bounds::Bounds;
use super::check_transaction::{alive, committed, rolled_back};
use super::fate::{Fate, Found};
use crate::memory::Memory;

/// Evaluates the command against the batch and puts its writes there. It never shortens a life, and
/// decides nothing: a transaction without a record here has lost its locks, or never had them.
pub(crate) fn apply(
    context: &ApplyContext<'_>,
    memory: &mut Memory,
    heartbeat: &HeartbeatLock,
    batch: &mut Batch<'_>,
) -> Result<command_reply::Body, Stop> {
    let key = &heartbeat.primary[..];
    Bounds::of(context).check_key(key)?;
    Ok(match Found::at(batch, memory, key, heartbeat.start_ts)?.fate {
        // Only the primary's lock has a life of its own.
        Fate::Locked(lock) if lock.primary != key => return Err(Stop::locked(key, &lock)),
        Fate::Locked(mut lock) => {
            if heartbeat.alive_until_ms > lock.alive_until_ms {
                lock.alive_until_ms = heartbeat.alive_until_ms;
                memory.locks.replace(batch, key, &lock);
            }
            alive(&lock)
        }
        Fate::Committed { commit_ts } => committed(commit_ts),
        Fate::RolledBack => rolled_back(),
        Fate::Unknown => {
            memory.check_remembered(heartbeat.start_ts)?;
            rolled_back()
        }
    })
}
