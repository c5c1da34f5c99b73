//! Reads and commits of the control plane: ordinary ones, to the control range of this node.
//!
//! A node that loses the leadership and leads again has two control planes for a while: requests of
//! the older one may still be in flight. The range accepts proposals of both. So each commit
//! carries the condition that no newer control plane has taken over (`takeover.rs`), which would
//! not know of the change.

use bytes::Bytes;
use prost::Message;
use rangedb_proto::v1::{
    self, CommandReply, CommitOneRange, Committed, Condition, KeyValue, Operation, Put, command,
    command_reply, condition, operation,
};
use rangedb_proto::{Timestamp, prefix_end};
use rangedb_raftstore::{Error as RangeError, RangeRef, ReadMode};
use rangedb_storage::Direction;
use rangedb_txn::{Locks, ReadAt, ScanRequest, scan};

use super::{CONTROL, Control, Surroundings, keys};
use crate::handle::ReadView;
use crate::node::storage_error;

pub fn put(key: Bytes, value: impl Into<Bytes>) -> Operation {
    let put = Put { key, value: value.into(), lease_id: 0 };
    Operation { body: Some(operation::Body::Put(put)) }
}

pub fn absent(key: impl Into<Bytes>) -> Condition {
    Condition { key: key.into(), test: Some(condition::Test::Exists(false)) }
}

pub fn at_version(key: Bytes, version: u64) -> Condition {
    Condition { key, test: Some(condition::Test::Version(version)) }
}

/// Condition that no control plane of another term has taken over since the one of this term.
pub fn in_term(term: u64) -> Condition {
    let value = term.to_string().into();
    Condition { key: keys::CONTROL_TERM.into(), test: Some(condition::Test::Value(value)) }
}

/// Reason why a change of the control plane's keys did not take place.
pub enum CommitError {
    /// A condition did not hold: another commit changed the keys first.
    Conflict,
    /// Another command has the start_ts: an earlier attempt that was given up has been applied.
    /// This is the only reason for which the range finds a command of the control plane invalid.
    StartUsed,
    Other(v1::Error),
}

impl From<CommitError> for v1::Error {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict => {
                v1::Error::too_busy(20, "the control plane's keys were changed at the same time")
            }
            CommitError::StartUsed => v1::Error::unavailable("an earlier attempt came through"),
            CommitError::Other(error) => error,
        }
    }
}

impl Surroundings {
    fn control_range(&self) -> Result<RangeRef, v1::Error> {
        let status = self.board.range(CONTROL).ok_or(RangeError::RangeNotFound(CONTROL))?;
        Ok(RangeRef { id: CONTROL, epoch: status.descriptor.epoch.unwrap_or_default() })
    }

    /// Returns a view of the control range that holds everything committed. The read proves that
    /// this node leads the range.
    pub async fn read_control(&self) -> Result<ReadView, v1::Error> {
        Ok(self.stores.read(self.control_range()?, ReadMode::Latest).await?)
    }

    /// Returns all keys and values under a prefix of the control range, in key order.
    pub async fn list_control(&self, prefix: &[u8]) -> Result<Vec<KeyValue>, v1::Error> {
        let view = self.read_control().await?;
        let mut request = ScanRequest {
            start: Bytes::copy_from_slice(prefix),
            end: prefix_end(prefix).into(),
            limit: 0,
            bytes_max: 0,
            direction: Direction::Forward,
            keys_only: false,
            at: ReadAt::Latest,
            locks: Locks::Ignored,
        };
        let mut kvs = Vec::new();
        loop {
            let page = scan(&*view.reader, &view.descriptor.start_key, &request);
            let page = page.map_err(storage_error)?.unlocked()?;
            kvs.extend(page.kvs);
            match page.next {
                Some(next) => request.start = next,
                None => return Ok(kvs),
            }
        }
    }

    pub async fn get_control(&self, key: &[u8]) -> Result<Option<KeyValue>, v1::Error> {
        get_in(&self.read_control().await?, key)
    }

    /// Commits one command to the control range. The last condition must be the one that says who
    /// may commit: if it fails, another control plane has taken over.
    pub async fn commit_control(
        &self,
        start_ts: Timestamp,
        conditions: Vec<Condition>,
        operations: Vec<Operation>,
    ) -> Result<Committed, CommitError> {
        let mine = conditions.len() as u32 - 1;
        let commit =
            CommitOneRange { start_ts: start_ts.0, conditions, operations, ..Default::default() };
        let body = Some(command::Body::CommitOneRange(commit));
        let range = self.control_range().map_err(CommitError::Other)?;
        let reply = self.stores.propose(range, &v1::Command { body }).await;
        let reply = reply.map_err(|error| CommitError::Other(error.into()))?;
        match CommandReply::decode(reply).ok().and_then(|reply| reply.body) {
            Some(command_reply::Body::Committed(committed)) => Ok(committed),
            Some(command_reply::Body::ConditionFailed(failed)) if failed.index == mine => {
                Err(CommitError::Other(no_longer()))
            }
            Some(command_reply::Body::ConditionFailed(_)) => Err(CommitError::Conflict),
            Some(command_reply::Body::Invalid(reason)) => {
                tracing::debug!(%reason, "a commit of the control plane came through before");
                Err(CommitError::StartUsed)
            }
            other => {
                let message = format!("the control range answered {other:?} to a commit");
                Err(CommitError::Other(v1::Error::undetermined(message)))
            }
        }
    }
}

/// The key's value in a view of the control range.
pub fn get_in(view: &ReadView, key: &[u8]) -> Result<Option<KeyValue>, v1::Error> {
    let (start, at) = (&view.descriptor.start_key, ReadAt::Latest);
    let read = rangedb_txn::get(&*view.reader, start, key, at, &Locks::Ignored);
    Ok(read.map_err(storage_error)?.unlocked()?.kv)
}

/// Error of a control plane that finds that another one has taken over.
pub fn no_longer() -> v1::Error {
    v1::Error::unavailable("this node is no longer the control plane that it was")
}

impl Control {
    /// Commits at a fresh timestamp, on condition that this control plane's term is the newest.
    pub(super) async fn commit(
        &self,
        mut conditions: Vec<Condition>,
        operations: Vec<Operation>,
    ) -> Result<Committed, CommitError> {
        conditions.push(in_term(self.term));
        let start_ts = self.fresh_timestamp().await.map_err(CommitError::Other)?;
        self.around.commit_control(start_ts, conditions, operations).await
    }
}
