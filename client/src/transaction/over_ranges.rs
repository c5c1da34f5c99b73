//! Batches and deletes of spans that lie in several ranges, executed by a transaction.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rangedb_proto::Timestamp;
use rangedb_proto::v1::{self, operation};

use super::{Transaction, TransactionOptions};
use crate::batch::{Committed, OperationResult};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::key_value::KeyValue;
use crate::keys::Span;
use crate::range::RangeOptions;
use crate::routing::backoff::Backoff;

/// Keys that one delete of a span in a transaction may delete. Each is read, kept in memory and
/// locked. [`Client::delete_range`] deletes more, in steps.
pub const DELETE_RANGE_KEYS_MAX: usize = 100_000;

/// Commits a batch that lies in several ranges. Like a batch in one range, it is retried after
/// conflicts until the deadline.
pub(crate) async fn commit_batch(
    client: &Client,
    command: &v1::CommitOneRange,
    deadline: Duration,
) -> Result<Committed> {
    let net = &client.sender.net;
    let mut backoff = Backoff::new();
    loop {
        let left = deadline.saturating_sub(net.now());
        let outcome = attempt(&client.with_timeout(left), command).await;
        match outcome {
            Err(error) if error.is_transaction_conflict() && net.now() < deadline => {
                tracing::debug!(%error, "a batch begins again");
                client.sender.metrics.restarts.add(1);
            }
            outcome => return outcome,
        }
        net.sleep(backoff.wait(&**net).min(deadline.saturating_sub(net.now()))).await;
    }
}

async fn attempt(client: &Client, command: &v1::CommitOneRange) -> Result<Committed> {
    let transaction = client.begin(TransactionOptions::default()).await?;
    transaction.inner.open()?.conditions = command.conditions.clone();
    let mut rows = Rows::read(&transaction, command).await?;
    let mut results = Vec::with_capacity(command.operations.len());
    for operation in &command.operations {
        let body = operation.body.as_ref().expect("set by every method of Batch");
        results.push(rows.apply(&transaction, body, command.return_previous).await?);
    }
    let commit_ts = transaction.commit().await?;
    for previous in results.iter_mut().filter_map(|result| result.previous.as_mut()) {
        stamp(previous, commit_ts);
    }
    Ok(Committed { commit_ts, results })
}

/// Rows of the keys that the answer needs, as the batch's operations change them.
struct Rows {
    rows: BTreeMap<Bytes, Option<KeyValue>>,
}

impl Rows {
    /// Reads the rows that the batch deletes and, if they are requested, those that its puts
    /// replace.
    async fn read(transaction: &Transaction, command: &v1::CommitOneRange) -> Result<Rows> {
        let needed = |operation: &v1::Operation| match &operation.body {
            Some(operation::Body::Delete(delete)) => Some(delete.key.clone()),
            Some(operation::Body::Put(put)) if command.return_previous => Some(put.key.clone()),
            _ => None,
        };
        let keys: Vec<Bytes> = command.operations.iter().filter_map(needed).collect();
        let found = transaction.get_many(keys.clone()).await?;
        Ok(Rows { rows: keys.into_iter().zip(found).collect() })
    }

    async fn apply(
        &mut self,
        transaction: &Transaction,
        operation: &operation::Body,
        return_previous: bool,
    ) -> Result<OperationResult> {
        match operation {
            operation::Body::Put(put) => {
                transaction.put(put.key.clone(), put.value.clone()).await?;
                let previous = self.put(put);
                Ok(OperationResult { deleted: 0, previous: previous.filter(|_| return_previous) })
            }
            operation::Body::Delete(delete) => {
                transaction.delete(delete.key.clone()).await?;
                let previous = self.rows.insert(delete.key.clone(), None).flatten();
                let deleted = u64::from(previous.is_some());
                Ok(OperationResult { deleted, previous: previous.filter(|_| return_previous) })
            }
            operation::Body::DeleteRange(range) => {
                let span = Span::new(range.start_key.clone(), range.end_key.clone());
                let deleted = delete_range(transaction, span.clone()).await?;
                for (key, row) in &mut self.rows {
                    if span.holds(key) {
                        *row = None;
                    }
                }
                Ok(OperationResult { deleted, previous: None })
            }
        }
    }

    /// Puts a row, and returns the previous one. The new row gets its timestamps when they are
    /// known.
    fn put(&mut self, put: &v1::Put) -> Option<KeyValue> {
        // A row that was not read counts from nothing: it is never shown.
        let row = self.rows.entry(put.key.clone()).or_default();
        let new = KeyValue {
            key: put.key.clone(),
            value: put.value.clone(),
            version: row.as_ref().map_or(0, |row| row.version) + 1,
            create_ts: row.as_ref().map_or(Timestamp::ZERO, |row| row.create_ts),
            mod_ts: Timestamp::ZERO,
            lease: None,
        };
        row.replace(new)
    }
}

/// Sets the batch's commit timestamp in a row that the batch itself wrote.
fn stamp(row: &mut KeyValue, commit_ts: Timestamp) {
    for ts in [&mut row.create_ts, &mut row.mod_ts] {
        if *ts == Timestamp::ZERO {
            *ts = commit_ts;
        }
    }
}

/// Deletes the keys of a span that have a value for the transaction. Returns their number.
pub(super) async fn delete_range(transaction: &Transaction, span: Span) -> Result<u64> {
    transaction.inner.check_writable()?;
    transaction.inner.client.view.check_delete_range(&span)?;
    let mut rows = transaction.range(RangeOptions::new(span.start, span.end).keys_only());
    let mut keys = Vec::new();
    while let Some(row) = rows.next().await {
        if keys.len() == DELETE_RANGE_KEYS_MAX {
            let what = format!("a delete of {} keys or more", DELETE_RANGE_KEYS_MAX + 1);
            return Err(Error::TooLarge { what, limit: DELETE_RANGE_KEYS_MAX as u64 });
        }
        keys.push(row?.key);
    }
    let deleted = keys.len() as u64;
    for key in keys {
        transaction.delete(key).await?;
    }
    Ok(deleted)
}
