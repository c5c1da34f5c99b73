//! Carrying out, on behalf of a transaction, what was decided at its primary.

use rangedb_proto::v1::{ResolveLocks, Resolved, command_reply};
use rangedb_storage::{ApplyContext, Batch};

use super::bounds::Bounds;
use super::commit_keys::check_high_enough;
use super::{Stop, undecided};
use crate::memory::Memory;
use crate::versions;

/// Evaluates the command against the batch and puts its writes there. Keys without a lock of the
/// transaction are left alone: somebody else was faster. Answers how many had one.
pub(crate) fn apply(
    context: &ApplyContext<'_>,
    memory: &mut Memory,
    resolve: &ResolveLocks,
    batch: &mut Batch<'_>,
) -> Result<command_reply::Body, Stop> {
    Bounds::of(context).check_keys(&resolve.keys)?;
    let mut locked = Vec::new();
    for key in &resolve.keys {
        let lock = memory.locks.get(batch, key)?;
        if let Some(lock) = lock.filter(|lock| lock.start_ts == resolve.start_ts) {
            if resolve.commit_ts > 0 {
                check_high_enough(lock.min_commit_ts, resolve.commit_ts)?;
            }
            locked.push((&key[..], lock, versions::current(batch, key)?));
        }
    }
    let keys = locked.len() as u64;
    if resolve.commit_ts > 0 {
        let timestamps = (resolve.start_ts, resolve.commit_ts);
        undecided::commit(context, memory, batch, timestamps, locked);
    } else {
        for (key, lock, _) in &locked {
            undecided::roll_back(memory, batch, key, lock);
        }
    }
    Ok(command_reply::Body::Resolved(Resolved { keys, ..Default::default() }))
}
