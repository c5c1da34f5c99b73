//! Typed records in one system range, committed by the role that runs at the range's leader.
//!
//! A node that loses the leadership and leads again has two roles of one kind for a while: requests
//! of the older one may still be in flight, and the range accepts proposals of both. So every
//! commit carries the condition that no newer role has taken over, which would not know of the
//! change. The owner's record says which role is the newest.

use bytes::Bytes;
use prost::Message;
use rangedb_proto::v1::{
    self, CommandReply, CommitOneRange, Committed, Condition, Delete, KeyValue, Operation, Put,
    command, command_reply, condition, operation,
};
use rangedb_proto::{RangeId, Timestamp, prefix_end};
use rangedb_raftstore::{Error as RangeError, RangeRef, ReadMode};
use rangedb_storage::Direction;
use rangedb_txn::{Locks, ReadAt, ScanRequest, get, scan};

use super::records::{Key, Kind, Record};
use crate::handle::ReadView;
use crate::surroundings::{Surroundings, storage_error};

/// Records of one system range, for the role that owns them. Cheap to clone.
#[derive(Clone)]
pub struct SystemStore {
    around: Surroundings,
    range: RangeId,
    owner: Owner,
}

/// The record that says which role is the newest, with the value of this one.
#[derive(Clone)]
pub struct Owner {
    key: Bytes,
    value: Bytes,
}

/// Changes to commit together, and the conditions for them.
#[derive(Clone, Default)]
pub struct Changes {
    conditions: Vec<Condition>,
    operations: Vec<Operation>,
}

/// State of the range at one moment, with everything committed before.
pub struct View(ReadView);

/// A record as it is stored.
pub struct Stored<R> {
    /// Last part of its key.
    pub name: String,
    pub version: u64,
    pub record: R,
}

/// Reason why changes did not take place.
pub enum CommitError {
    /// A condition did not hold: another commit changed the records first.
    Conflict,
    /// Another command has the start_ts: an earlier attempt that was given up has been applied.
    /// This is the only reason for which a range finds a command of a role invalid.
    StartUsed,
    Other(v1::Error),
}

impl From<CommitError> for v1::Error {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict => {
                v1::Error::too_busy(20, "the cluster's own records were changed at the same time")
            }
            CommitError::StartUsed => v1::Error::unavailable("an earlier attempt came through"),
            CommitError::Other(error) => error,
        }
    }
}

/// Error of a role that finds that another one has taken over.
pub fn no_longer() -> v1::Error {
    v1::Error::unavailable("this node no longer has the role that it had")
}

impl Owner {
    pub fn new<R: Record>(key: &Key<R>, record: &R) -> Self {
        Owner { key: key.bytes().clone(), value: record.to_stored() }
    }
}

impl Changes {
    pub fn put<R: Record>(mut self, key: Key<R>, record: &R) -> Self {
        let put = Put { key: key.into_bytes(), value: record.to_stored(), lease_id: 0 };
        self.operations.push(Operation { body: Some(operation::Body::Put(put)) });
        self
    }

    pub fn delete<R: Record>(mut self, key: Key<R>) -> Self {
        let delete = Delete { key: key.into_bytes() };
        self.operations.push(Operation { body: Some(operation::Body::Delete(delete)) });
        self
    }

    /// Commits only if there is no such record.
    pub fn if_absent<R: Record>(self, key: Key<R>) -> Self {
        self.if_version(key, 0)
    }

    /// Commits only if the record has this version; 0 means that there is none.
    pub fn if_version<R: Record>(mut self, key: Key<R>, version: u64) -> Self {
        let test = Some(condition::Test::Version(version));
        self.conditions.push(Condition { key: key.into_bytes(), test });
        self
    }

    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }
}

impl SystemStore {
    pub fn new(around: Surroundings, range: RangeId, owner: Owner) -> Self {
        SystemStore { around, range, owner }
    }

    /// Returns a view that holds everything committed. The read proves that this node leads the
    /// range.
    pub async fn read(&self) -> Result<View, v1::Error> {
        Ok(View(self.around.stores.read(self.header()?, ReadMode::Latest).await?))
    }

    /// Commits changes, on condition that no newer role has taken over.
    pub async fn commit(
        &self,
        start_ts: Timestamp,
        mut changes: Changes,
    ) -> Result<Committed, CommitError> {
        let Owner { key, value } = self.owner.clone();
        changes.conditions.push(Condition { key, test: Some(condition::Test::Value(value)) });
        let owned = changes.conditions.len() as u32 - 1;
        self.propose(start_ts, changes).await?.map_err(|failed| match failed {
            index if index == owned => CommitError::Other(no_longer()),
            _ => CommitError::Conflict,
        })
    }

    /// Commits changes together with the owner's record, which makes this role the newest. The
    /// changes must carry a condition that fails if another role took over meanwhile.
    pub async fn take_over(
        &self,
        start_ts: Timestamp,
        mut changes: Changes,
    ) -> Result<Committed, CommitError> {
        let Owner { key, value } = self.owner.clone();
        let put = operation::Body::Put(Put { key, value, lease_id: 0 });
        changes.operations.push(Operation { body: Some(put) });
        self.propose(start_ts, changes).await?.map_err(|_| CommitError::Conflict)
    }

    /// Returns the index of the condition that failed as the inner error.
    async fn propose(
        &self,
        start_ts: Timestamp,
        changes: Changes,
    ) -> Result<Result<Committed, u32>, CommitError> {
        let Changes { conditions, operations } = changes;
        let commit =
            CommitOneRange { start_ts: start_ts.0, conditions, operations, ..Default::default() };
        let body = Some(command::Body::CommitOneRange(commit));
        let range = self.header().map_err(CommitError::Other)?;
        let reply = self.around.stores.propose(range, &v1::Command { body }).await;
        let reply = reply.map_err(|error| CommitError::Other(error.into()))?;
        match CommandReply::decode(reply).ok().and_then(|reply| reply.body) {
            Some(command_reply::Body::Committed(committed)) => Ok(Ok(committed)),
            Some(command_reply::Body::ConditionFailed(failed)) => Ok(Err(failed.index)),
            Some(command_reply::Body::Invalid(reason)) => {
                tracing::debug!(%reason, "a commit of a role came through before");
                Err(CommitError::StartUsed)
            }
            other => {
                let message = format!("range {} answered {other:?} to a commit", self.range);
                Err(CommitError::Other(v1::Error::undetermined(message)))
            }
        }
    }

    fn header(&self) -> Result<RangeRef, v1::Error> {
        let id = self.range;
        let status = self.around.board.range(id).ok_or(RangeError::RangeNotFound(id))?;
        Ok(RangeRef { id, epoch: status.descriptor.epoch.unwrap_or_default() })
    }
}

impl View {
    pub fn get<R: Record>(&self, key: &Key<R>) -> Result<Option<Stored<R>>, v1::Error> {
        let (start, at) = (&self.0.descriptor.start_key, ReadAt::Latest);
        let read = get(&*self.0.reader, start, key.bytes(), at, &Locks::Ignored);
        let found = read.map_err(storage_error)?.unlocked()?.kv;
        found.map(|kv| Stored::read(kv, key.name().len())).transpose()
    }

    /// True if this role is the newest.
    pub fn is_owned_by(&self, store: &SystemStore) -> Result<bool, v1::Error> {
        let (start, at) = (&self.0.descriptor.start_key, ReadAt::Latest);
        let read = get(&*self.0.reader, start, &store.owner.key, at, &Locks::Ignored);
        let found = read.map_err(storage_error)?.unlocked()?.kv;
        Ok(found.is_some_and(|kv| kv.value == store.owner.value))
    }

    /// Returns all records of a kind, in order of their names.
    pub fn list<R: Record>(&self, kind: &Kind<R>) -> Result<Vec<Stored<R>>, v1::Error> {
        self.list_below(kind, "")
    }

    /// Returns the records of a kind whose names begin so, in order of their names.
    pub fn list_below<R: Record>(
        &self,
        kind: &Kind<R>,
        beginning: &str,
    ) -> Result<Vec<Stored<R>>, v1::Error> {
        let prefix = kind.key(beginning).into_bytes();
        let mut request = ScanRequest {
            end: prefix_end(&prefix).into(),
            start: prefix,
            limit: 0,
            bytes_max: 0,
            direction: Direction::Forward,
            keys_only: false,
            at: ReadAt::Latest,
            locks: Locks::Ignored,
        };
        let mut records = Vec::new();
        loop {
            let page = scan(&*self.0.reader, &self.0.descriptor.start_key, &request);
            let page = page.map_err(storage_error)?.unlocked()?;
            for kv in page.kvs {
                let name_bytes = kv.key.len() - kind.prefix().len();
                records.push(Stored::read(kv, name_bytes)?);
            }
            match page.next {
                Some(next) => request.start = next,
                None => return Ok(records),
            }
        }
    }
}

impl<R: Record> Stored<R> {
    /// Decodes a record. The last `name_bytes` of the key are its name.
    fn read(kv: KeyValue, name_bytes: usize) -> Result<Self, v1::Error> {
        let name = &kv.key[kv.key.len() - name_bytes..];
        let name = String::from_utf8_lossy(name).into_owned();
        let record = R::from_stored(&kv.value).map_err(|why| {
            let what = format!("the record at {}: {why}", kv.key.escape_ascii());
            storage_error(rangedb_storage::Error::corrupt(what))
        })?;
        Ok(Stored { name, version: kv.version, record })
    }
}
