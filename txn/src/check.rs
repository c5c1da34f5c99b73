//! Checks of whole commands that depend on neither the range nor its state.

use std::collections::BTreeSet;

use bytes::Bytes;
use rangedb_proto::v1::{Command, CommitOneRange, Error, Operation, Prewrite, Validate, operation};

use crate::commands::facts;
use crate::limits::{
    ASYNC_COMMIT_BYTES_MAX, ASYNC_COMMIT_KEYS_MAX, check_bytes, check_condition, check_count,
    check_key, check_operation, check_read, check_timestamp,
};

/// Checks a command of any kind.
///
/// # Errors
///
/// `InvalidArgument`, with a message that names the limit or the rule; also for a command of a kind
/// that this version does not know.
pub fn check_command(command: &Command) -> Result<(), Error> {
    match &command.body {
        None => Err(Error::invalid("command", "a command of an unknown kind")),
        Some(body) => facts(body).check(),
    }
}

/// Checks a transaction of one range. The same key may appear in several conditions, operations and
/// reads.
///
/// # Errors
///
/// As [`check_command`].
pub fn check_commit(commit: &CommitOneRange) -> Result<(), Error> {
    check_timestamp("start_ts", commit.start_ts)?;
    let items = commit.conditions.len() + commit.operations.len() + commit.reads.len();
    check_count("operations", "conditions, operations and reads", items)?;
    let conditions = sum(&commit.conditions, check_condition)?;
    let operations = sum(&commit.operations, check_operation)?;
    let reads = sum(&commit.reads, check_read)?;
    check_bytes("operations", conditions + operations + reads)
}

/// Checks a request to validate reads.
///
/// # Errors
///
/// As [`check_command`].
pub fn check_validate(request: &Validate) -> Result<(), Error> {
    check_commit_ts(request.start_ts, request.commit_ts)?;
    check_count("reads", "reads", request.reads.len())?;
    check_bytes("reads", sum(&request.reads, check_read)?)
}

pub(crate) fn check_prewrite(prewrite: &Prewrite) -> Result<(), Error> {
    check_timestamp("start_ts", prewrite.start_ts)?;
    check_key(&prewrite.primary)?;
    if prewrite.for_update_ts != 0 {
        check_timestamp("for_update_ts", prewrite.for_update_ts)?;
    }
    if prewrite.min_commit_ts != 0 {
        check_timestamp("min_commit_ts", prewrite.min_commit_ts)?;
    }
    let items = prewrite.conditions.len() + prewrite.operations.len();
    check_count("operations", "conditions and operations", items)?;
    let conditions = sum(&prewrite.conditions, check_condition)?;
    let operations = sum(&prewrite.operations, check_operation)?;
    check_bytes("operations", conditions + operations)?;
    let mut keys = BTreeSet::new();
    for operation in &prewrite.operations {
        let Some(key) = written_key(operation) else {
            let message = "a transaction over ranges deletes key by key, not by delete-range";
            return Err(Error::invalid("operations", message));
        };
        if !keys.insert(key) {
            let message = format!("key \"{}\" is written twice", key.escape_ascii());
            return Err(Error::invalid("operations", message));
        }
    }
    check_secondaries(prewrite, &keys)
}

/// Checks that the primary of an asynchronous commit names every other key as a secondary, and that
/// nothing else has secondaries. `keys` are the keys that this prewrite writes.
fn check_secondaries(prewrite: &Prewrite, keys: &BTreeSet<&Bytes>) -> Result<(), Error> {
    let Prewrite { primary, secondaries, async_commit, .. } = prewrite;
    let invalid = |message: String| Err(Error::invalid("secondaries", message));
    let is_primary = *async_commit && keys.contains(primary);
    if !is_primary && !secondaries.is_empty() {
        return invalid("only the primary of an asynchronous commit has secondaries".into());
    }
    let count = secondaries.len();
    if count > ASYNC_COMMIT_KEYS_MAX {
        return invalid(format!(
            "{count} keys are over the limit of {ASYNC_COMMIT_KEYS_MAX} in an asynchronous commit"
        ));
    }
    let bytes = sum(secondaries, |key| check_key(key).map(|()| key.len()))?;
    if bytes > ASYNC_COMMIT_BYTES_MAX {
        return invalid(format!(
            "{bytes} bytes of keys are over the limit of {ASYNC_COMMIT_BYTES_MAX} in an \
             asynchronous commit"
        ));
    }
    let mut all = BTreeSet::from([primary]);
    if let Some(key) = secondaries.iter().find(|key| !all.insert(key)) {
        return invalid(format!("key \"{}\" is named twice", key.escape_ascii()));
    }
    match keys.iter().find(|key| is_primary && !all.contains(*key)) {
        Some(key) => invalid(format!("key \"{}\" is not named", key.escape_ascii())),
        None => Ok(()),
    }
}

/// Returns the key that a put or a delete writes; `None` for other operations.
pub(crate) fn written_key(operation: &Operation) -> Option<&Bytes> {
    match operation.body.as_ref()? {
        operation::Body::Put(put) => Some(&put.key),
        operation::Body::Delete(delete) => Some(&delete.key),
        operation::Body::DeleteRange(_) => None,
    }
}

pub(crate) fn check_commit_ts(start_ts: u64, commit_ts: u64) -> Result<(), Error> {
    check_timestamp("commit_ts", commit_ts)?;
    if commit_ts <= start_ts {
        let message = format!("commit_ts {commit_ts} is not above start_ts {start_ts}");
        return Err(Error::invalid("commit_ts", message));
    }
    Ok(())
}

pub(crate) fn check_keys(start_ts: u64, keys: &[Bytes]) -> Result<(), Error> {
    check_timestamp("start_ts", start_ts)?;
    check_count("keys", "keys", keys.len())?;
    check_bytes("keys", sum(keys, |key| check_key(key).map(|()| key.len()))?)?;
    let mut seen = BTreeSet::new();
    match keys.iter().find(|key| !seen.insert(*key)) {
        None => Ok(()),
        Some(key) => {
            let message = format!("key \"{}\" is named twice", key.escape_ascii());
            Err(Error::invalid("keys", message))
        }
    }
}

fn sum<T>(items: &[T], bytes: impl Fn(&T) -> Result<usize, Error>) -> Result<usize, Error> {
    items.iter().try_fold(0, |sum, item| Ok(sum + bytes(item)?))
}
