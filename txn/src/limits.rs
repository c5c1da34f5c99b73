//! Limits of commands, and checks of the parts of a command; `check.rs` checks whole commands.
//!
//! Senders run [`check_command`](crate::check_command) before they propose, so that a caller learns
//! at once which rule is broken. The machine checks again at apply, because the log may hold
//! anything.
//!
//! At apply these limits are rules of evaluation: every replica must refuse the same commands.
//! Changing one needs a new feature level in the log header.

pub use rangedb_proto::limits::{ASYNC_COMMIT_BYTES_MAX, ASYNC_COMMIT_KEYS_MAX, COMMAND_ITEMS_MAX};
use rangedb_proto::v1::{Condition, Error, Operation, ReadCheck, condition, operation};
use rangedb_proto::{COMMAND_BYTES_MAX, KEY_BYTES_MAX, SYSTEM_PREFIX, Timestamp, VALUE_BYTES_MAX};

/// Records, versions and locks, in all spans of one command together: those of delete-ranges and
/// those of reads. Walking over one costs about a microsecond, so they add less than the items.
/// Records that compaction may have dropped on one replica and not on another cannot count here.
/// The leader counts them before it proposes ([`check_spans`](crate::check_spans)).
pub const COMMAND_WALK_MAX: usize = 4096;

/// Keys with a value that the delete-ranges of one command may delete: as many as the command could
/// name. A larger span is deleted step by step.
pub const DELETE_RANGE_KEYS_MAX: usize = COMMAND_ITEMS_MAX;

/// Bytes of keys and records that the delete-ranges of one command may move to the history. They
/// stay in memory until the batch is written. With keys and inline values of ordinary length, the
/// limit on keys is reached first.
pub const DELETE_RANGE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of values in the reply to one command that asks for the values it replaced: as many as the
/// command could have carried itself.
pub const PREVIOUS_BYTES_MAX: usize = COMMAND_BYTES_MAX;

/// Bytes of the end of a span at most: one more than a key, for the successor of the longest key.
const END_KEY_BYTES_MAX: usize = KEY_BYTES_MAX + 1;

/// True if the key belongs to the system's own key space, which user requests may not touch.
pub fn is_system_key(key: &[u8]) -> bool {
    key.starts_with(SYSTEM_PREFIX)
}

/// Checks that the key can be read or written.
///
/// # Errors
///
/// `InvalidArgument` for an empty key or one over [`KEY_BYTES_MAX`].
pub fn check_key(key: &[u8]) -> Result<(), Error> {
    if key.is_empty() {
        return Err(Error::invalid("key", "the key is empty"));
    }
    check_length("key", "key", key.len(), KEY_BYTES_MAX)
}

/// Returns the lowest key of a span from `start`: the empty start of the first range is no key.
pub(crate) fn first_key(start: &[u8]) -> &[u8] {
    if start.is_empty() { &[0] } else { start }
}

/// Returns the end of a span in a range that ends at `range_end`; empty if there is no end.
pub(crate) fn span_end<'a>(end: &'a [u8], range_end: &'a [u8]) -> &'a [u8] {
    if end.is_empty() { range_end } else { end }
}

/// Refuses what is no timestamp of the oracle. 0 would be older than every record, so a repeated
/// command could not be told from a new one.
pub(crate) fn check_timestamp(argument: &str, timestamp: u64) -> Result<(), Error> {
    if timestamp == 0 || timestamp > Timestamp::MAX.0 {
        let message = format!("{argument} {timestamp} is not a timestamp of the oracle");
        return Err(Error::invalid(argument, message));
    }
    Ok(())
}

pub(crate) fn check_count(argument: &str, what: &str, items: usize) -> Result<(), Error> {
    if items > COMMAND_ITEMS_MAX {
        let message =
            format!("{items} {what} are over the limit of {COMMAND_ITEMS_MAX} in one command");
        return Err(Error::invalid(argument, message));
    }
    Ok(())
}

pub(crate) fn check_bytes(argument: &str, bytes: usize) -> Result<(), Error> {
    if bytes > COMMAND_BYTES_MAX {
        let message = format!(
            "{bytes} bytes of keys and values are over the limit of {COMMAND_BYTES_MAX} in one command"
        );
        return Err(Error::invalid(argument, message));
    }
    Ok(())
}

/// Returns the bytes that count towards the command's limit.
pub(crate) fn check_condition(condition: &Condition) -> Result<usize, Error> {
    check_key(&condition.key)?;
    let value = match &condition.test {
        None => return Err(Error::invalid("conditions", "a condition of an unknown kind")),
        Some(condition::Test::Value(value)) => value.len(),
        Some(_) => 0,
    };
    check_length("value", "value", value, VALUE_BYTES_MAX)?;
    Ok(condition.key.len() + value)
}

/// Returns the bytes that count towards the command's limit.
pub(crate) fn check_operation(operation: &Operation) -> Result<usize, Error> {
    match &operation.body {
        None => Err(Error::invalid("operations", "an operation of an unknown kind")),
        Some(operation::Body::Put(put)) => {
            check_key(&put.key)?;
            if put.lease_id != 0 {
                let message =
                    format!("there are no leases yet, so none is called {}", put.lease_id);
                return Err(Error::invalid("lease_id", message));
            }
            check_length("value", "value", put.value.len(), VALUE_BYTES_MAX)?;
            Ok(put.key.len() + put.value.len())
        }
        Some(operation::Body::Delete(delete)) => {
            check_key(&delete.key)?;
            Ok(delete.key.len())
        }
        Some(operation::Body::DeleteRange(span)) => {
            check_span("delete-range", &span.start_key, &span.end_key)
        }
    }
}

/// Returns the bytes that count towards the command's limit.
pub(crate) fn check_read(read: &ReadCheck) -> Result<usize, Error> {
    if read.end_key.is_empty() {
        check_key(&read.start_key)?;
        return Ok(read.start_key.len());
    }
    check_span("read", &read.start_key, &read.end_key)
}

pub(crate) fn check_span(what: &str, start: &[u8], end: &[u8]) -> Result<usize, Error> {
    check_length("start_key", "key", start.len(), KEY_BYTES_MAX)?;
    check_length("end_key", "key", end.len(), END_KEY_BYTES_MAX)?;
    if !end.is_empty() && first_key(start) >= end {
        let message = format!("the start of a {what} is not below its end");
        return Err(Error::invalid("start_key", message));
    }
    Ok(start.len() + end.len())
}

fn check_length(argument: &str, what: &str, bytes: usize, limit: usize) -> Result<(), Error> {
    if bytes > limit {
        let message = format!("{what} of {bytes} bytes is over the limit of {limit}");
        return Err(Error::invalid(argument, message));
    }
    Ok(())
}
