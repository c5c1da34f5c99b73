//! Batches of writes that happen together or not at all, their options and their results.

use bytes::Bytes;
use rangedb_proto::{
    Timestamp,
    v1::{self, operation},
};

use crate::condition::{Condition, Test};
use crate::error::{Error, Result};
use crate::key_value::KeyValue;
use crate::keys::{Span, View, check_command_bytes, check_value};

/// Operations under conditions, all or nothing, wherever the keys lie. A batch in one range takes
/// one round; over several ranges it is a transaction.
///
/// Operations are applied in order, and a later one sees what an earlier one wrote. Conditions see
/// the state before the batch.
///
/// ```
/// use rangedb_client::{Batch, Condition};
///
/// let move_a_seat = Batch::new()
///     .when(Condition::exists("seat/12"))
///     .when(Condition::absent("seat/14"))
///     .delete("seat/12")
///     .put("seat/14", "ada");
/// # assert_eq!(move_a_seat.len(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    conditions: Vec<Condition>,
    operations: Vec<v1::Operation>,
    return_previous: bool,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn put(self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let (key, value, lease_id) = (key.into(), value.into(), 0);
        self.operation(operation::Body::Put(v1::Put { key, value, lease_id }))
    }

    pub fn delete(self, key: impl Into<Bytes>) -> Self {
        self.operation(operation::Body::Delete(v1::Delete { key: key.into() }))
    }

    /// Deletes `[start, end)`; an empty `end` is behind every key.
    pub fn delete_range(self, start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        let (start_key, end_key) = (start.into(), end.into());
        self.operation(operation::Body::DeleteRange(v1::DeleteRange { start_key, end_key }))
    }

    /// Adds a condition; all must hold.
    pub fn when(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Asks for the row that each put and delete replaced.
    pub fn return_previous(mut self) -> Self {
        self.return_previous = true;
        self
    }

    /// Number of operations so far.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    fn operation(mut self, body: operation::Body) -> Self {
        self.operations.push(v1::Operation { body: Some(body) });
        self
    }

    /// Checks every part of the batch. Returns the command, with timestamp 0, and the least span
    /// that holds all keys of the command.
    pub(crate) fn into_command(self, view: View) -> Result<(v1::CommitOneRange, Span)> {
        if self.is_empty() {
            return Err(Error::invalid("operations", "a batch has at least one operation"));
        }
        let mut bytes = 0;
        let mut spans = Vec::with_capacity(self.operations.len() + self.conditions.len());
        for operation in &self.operations {
            let body = operation.body.as_ref().expect("set by every method of Batch");
            let (span, value_bytes) = check_operation(body, view)?;
            bytes += span.start.len() + value_bytes;
            spans.push(span);
        }
        for condition in &self.conditions {
            view.check_key(&condition.key)?;
            bytes += condition.bytes();
            spans.push(Span::of_key(&condition.key));
        }
        check_command_bytes(bytes)?;
        let hull = spans.into_iter().reduce(Span::hull).expect("at least one operation");
        let command = v1::CommitOneRange {
            start_ts: 0,
            conditions: self.conditions.into_iter().map(v1::Condition::from).collect(),
            operations: self.operations,
            return_previous: self.return_previous,
            ..Default::default()
        };
        Ok((command, hull))
    }
}

/// Checks an operation. Returns its span, and its bytes beyond the span's start key.
fn check_operation(body: &operation::Body, view: View) -> Result<(Span, usize)> {
    match body {
        operation::Body::Put(put) => {
            view.check_key(&put.key)?;
            check_value(&put.value)?;
            Ok((Span::of_key(&put.key), put.value.len()))
        }
        operation::Body::Delete(delete) => {
            view.check_key(&delete.key)?;
            Ok((Span::of_key(&delete.key), 0))
        }
        operation::Body::DeleteRange(range) => {
            let span = Span::new(range.start_key.clone(), range.end_key.clone());
            view.check_delete_range(&span)?;
            let end_bytes = span.end.len();
            Ok((span, end_bytes))
        }
    }
}

/// Options of a single put.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PutOptions {
    /// Conditions on the key that is put; all must hold.
    pub conditions: Vec<Test>,
    /// Return the row that was replaced.
    pub return_previous: bool,
}

/// Options of a single delete.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeleteOptions {
    /// Conditions on the key that is deleted; all must hold.
    pub conditions: Vec<Test>,
    /// Return the row that was deleted.
    pub return_previous: bool,
}

/// A committed put: durable on a quorum, and visible to every read that begins from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub commit_ts: Timestamp,
    /// The replaced row, if it was requested and existed.
    pub previous: Option<KeyValue>,
}

/// A committed delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    pub commit_ts: Timestamp,
    /// True if the key had a value.
    pub existed: bool,
    /// The deleted row, if it was requested and existed.
    pub previous: Option<KeyValue>,
}

/// A committed batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub commit_ts: Timestamp,
    /// One for each operation, in order.
    pub results: Vec<OperationResult>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationResult {
    /// Keys that had a value and now have none.
    pub deleted: u64,
    /// The row that a put or delete replaced, if it was requested and existed.
    pub previous: Option<KeyValue>,
}

impl From<v1::Committed> for Committed {
    fn from(committed: v1::Committed) -> Self {
        let result = |result: v1::OperationResult| OperationResult {
            deleted: result.deleted,
            previous: result.previous.map(KeyValue::from),
        };
        Committed {
            commit_ts: Timestamp(committed.commit_ts),
            results: committed.results.into_iter().map(result).collect(),
        }
    }
}
