//! Range check: every key must lie in the range as it is at the command's log entry, whatever the
//! bounds were when the command was sent.

use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{Condition, Operation, RangeDescriptor, ReadCheck, operation};
use rangedb_storage::ApplyContext;

use super::Stop;
use crate::limits::{first_key, span_end};

/// The range's bounds at the command's log entry.
pub(crate) struct RangeCheck(RangeDescriptor);

impl RangeCheck {
    pub(crate) fn of(context: &ApplyContext<'_>) -> Self {
        RangeCheck(RangeDescriptor {
            start_key: context.start_key.to_vec().into(),
            end_key: context.end_key.to_vec().into(),
            ..Default::default()
        })
    }

    pub(crate) fn check_key(&self, key: &[u8]) -> Result<(), Stop> {
        match self.0.contains(key) {
            true => Ok(()),
            false => {
                let key = key.escape_ascii();
                Err(Stop::invalid(format!("key \"{key}\" is outside the range")))
            }
        }
    }

    pub(crate) fn check_keys(&self, keys: &[bytes::Bytes]) -> Result<(), Stop> {
        keys.iter().try_for_each(|key| self.check_key(key))
    }

    pub(crate) fn check_items(
        &self,
        conditions: &[Condition],
        operations: &[Operation],
    ) -> Result<(), Stop> {
        for condition in conditions {
            self.check_key(&condition.key)?;
        }
        for operation in operations {
            match operation.body.as_ref().expect("check_command refuses unknown operations") {
                operation::Body::Put(put) => self.check_key(&put.key)?,
                operation::Body::Delete(delete) => self.check_key(&delete.key)?,
                operation::Body::DeleteRange(span) => {
                    let end = span_end(&span.end_key, &self.0.end_key);
                    self.check_span("delete-range", first_key(&span.start_key), end)?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn check_reads(&self, reads: &[ReadCheck]) -> Result<(), Stop> {
        reads.iter().try_for_each(|read| match read.end_key.is_empty() {
            true => self.check_key(&read.start_key),
            false => self.check_span("read", first_key(&read.start_key), &read.end_key),
        })
    }

    /// Does the same as [`RangeCheck::check_span`], but accepts spans from the range's start: the start
    /// of the first range is no key.
    pub(crate) fn check_part(&self, what: &str, start: &[u8], end: &[u8]) -> Result<(), Stop> {
        match self.0.start_key == start && self.0.covers(start, end) {
            true => Ok(()),
            false => self.check_span(what, first_key(start), end),
        }
    }

    fn check_span(&self, what: &str, start: &[u8], end: &[u8]) -> Result<(), Stop> {
        self.check_key(start)?;
        match self.0.covers(start, end) {
            true => Ok(()),
            false => {
                let end = end.escape_ascii();
                Err(Stop::invalid(format!("a {what} to \"{end}\" leaves the range")))
            }
        }
    }
}
