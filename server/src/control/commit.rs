//! The control plane's own reads and writes: ordinary ones, to the control range of this node.
//!
//! A node that stops to lead and leads again has two control planes for a while: of the older one,
//! requests may be under way. The range takes proposals of both, so each commit is under the condition
//! that no newer control plane has taken over (`takeover.rs`), which would not know of the change.

use bytes::Bytes;
use prost::Message;
use rangedb_proto::v1::{
    self, CommandReply, CommitOneRange, Committed, Condition, KeyValue, Operation, Put, command,
    command_reply, condition, operation,
};
use rangedb_proto::{Timestamp, prefix_end};
use rangedb_raftstore::{Error as RangeError, RangeRef, ReadAt};
use rangedb_storage::Direction;
use rangedb_txn::{Locks, ScanRequest, scan};

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

/// That nobody took over since this term's control plane did.
pub fn in_term(term: u64) -> Condition {
    let value = term.to_string().into();
    Condition { key: keys::CONTROL_TERM.into(), test: Some(condition::Test::Value(value)) }
}

/// Reason why a change of the control plane's keys did not take place.
pub enum CommitError {
    /// A condition did not hold: somebody else changed the keys first.
    Conflict,
    /// Another command has the start_ts: an attempt that was given up came through. It is the one reason
    /// for which the range finds a command of the control plane invalid.
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

    /// A view of the control range that holds everything committed; proves that this node leads it.
    pub async fn read_control(&self) -> Result<ReadView, v1::Error> {
        Ok(self.stores.read(self.control_range()?, ReadAt::Latest).await?)
    }

    /// All under a prefix of the control range, in key order.
    pub async fn list_control(&self, prefix: &[u8]) -> Result<Vec<KeyValue>, v1::Error> {
        let view = self.read_control().await?;
        let mut request = ScanRequest {
            start: Bytes::copy_from_slice(prefix),
            end: prefix_end(prefix).into(),
            limit: 0,
            bytes_max: 0,
            direction: Direction::Forward,
            keys_only: false,
            at: rangedb_txn::ReadAt::Latest,
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

    /// One commit to the control range. The last of the conditions says who may commit.
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
    let (start, at) = (&view.descriptor.start_key, rangedb_txn::ReadAt::Latest);
    let read = rangedb_txn::get(&*view.reader, start, key, at, &Locks::Ignored);
    Ok(read.map_err(storage_error)?.unlocked()?.kv)
}

/// What is told by a control plane that finds out that it is one no more.
pub fn no_longer() -> v1::Error {
    v1::Error::unavailable("this node is no longer the control plane that it was")
}

impl Control {
    /// A commit at a fresh timestamp.
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
