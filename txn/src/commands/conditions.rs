//! Conditions of a command.
//!
//! Conditions see the state before the command's operations. A key without a value, whether it was
//! deleted or never written, has version 0 and mod_ts 0. An undecided write of another transaction
//! leaves the state open, so its lock ends the command.

use rangedb_proto::v1::condition::Test;
use rangedb_proto::v1::{Condition, ConditionFailed, KeyValue, command_reply};
use rangedb_storage::Reader;

use super::Stop;
use crate::lock_table::LockTable;
use crate::read::{self, ReadAt};

/// Checks the conditions in order. Stops at the first that fails, or that meets a lock of a
/// transaction other than `start_ts`.
pub(crate) fn check(
    reader: &dyn Reader,
    locks: &LockTable,
    start_ts: u64,
    conditions: &[Condition],
) -> Result<(), Stop> {
    for (index, condition) in (0..).zip(conditions) {
        if let Some(lock) = locks.get(reader, &condition.key)?
            && lock.start_ts != start_ts
            && lock.hides_a_version(ReadAt::Latest)
        {
            return Err(Stop::locked(&condition.key, &lock));
        }
        let (actual, newest_ts) = read::committed(reader, &condition.key, ReadAt::Latest)?;
        if !holds(condition, actual.as_ref()) {
            // An older timestamp makes no caller wait, and replicas may differ in deletions that
            // are spent.
            let newest_ts = if newest_ts > start_ts { newest_ts } else { 0 };
            let failed = ConditionFailed { index, actual, newest_ts };
            return Err(Stop::Reply(command_reply::Body::ConditionFailed(failed)));
        }
    }
    Ok(())
}

fn holds(condition: &Condition, actual: Option<&KeyValue>) -> bool {
    match condition.test.as_ref().expect("check_commit refuses conditions of unknown kinds") {
        Test::Exists(exists) => *exists == actual.is_some(),
        Test::Version(version) => *version == actual.map_or(0, |kv| kv.version),
        Test::ModTs(mod_ts) => *mod_ts == actual.map_or(0, |kv| kv.mod_ts),
        Test::Value(value) => actual.is_some_and(|kv| kv.value == value),
    }
}
