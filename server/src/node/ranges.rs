//! Requests addressed to a range: this node answers if it leads the range.

use std::sync::atomic::Ordering;

use prost::Message;
use rangedb_proto::v1::{
    self, CommandReply, CommitOneRange, Conflict, Operation, PointRead, PointReadReply,
    RangeHeader, Scan, ScanReply, Write, WriteReply, command, command_reply, error::Kind,
    operation,
};
use rangedb_proto::{RangeDescriptorExt, RangeId, SYSTEM_PREFIX, Timestamp, prefix_end};
use rangedb_raftstore::{Error as RangeError, RangeRef, ReadAt};
use rangedb_storage::Direction;
use rangedb_txn::{Locks, ReadOutcome, ScanRequest, check_commit, check_key, is_system_key};

use super::{Node, storage_error};
use crate::handle::ReadView;

/// A commit's start timestamp may be this far above the highest one that this node has seen; further
/// up, the oracle is asked. Nodes see a fresh one with every heartbeat, and a timestamp from the
/// future would push up every later commit of the range.
const UNSEEN_MS_MAX: u64 = 3_000;

impl Node {
    pub(super) async fn point_read(&self, ask: PointRead) -> Result<PointReadReply, v1::Error> {
        check_key(&ask.key)?;
        let view = self.view(ask.range, ask.read_ts).await?;
        if !view.descriptor.contains(&ask.key) {
            return Err(outside(&view));
        }
        let at = rangedb_txn::ReadAt::from_read_ts(ask.read_ts);
        let locks = Locks::InTheWay { but_of: ask.pass_locks_of };
        let read = rangedb_txn::get(&*view.reader, &ask.key, at, &locks).map_err(storage_error)?;
        Ok(PointReadReply { kv: read.unlocked()? })
    }

    pub(super) async fn scan(&self, ask: Scan) -> Result<ScanReply, v1::Error> {
        let view = self.view(ask.range, ask.read_ts).await?;
        if !view.descriptor.covers(&ask.start_key, &ask.end_key) {
            return Err(outside(&view));
        }
        let direction = if ask.reverse { Direction::Reverse } else { Direction::Forward };
        let request = ScanRequest {
            start: ask.start_key,
            end: ask.end_key,
            limit: ask.limit,
            bytes_max: ask.bytes_max,
            direction,
            keys_only: ask.keys_only,
            at: rangedb_txn::ReadAt::from_read_ts(ask.read_ts),
            locks: Locks::InTheWay { but_of: ask.pass_locks_of },
        };
        let page = rangedb_txn::scan(&*view.reader, &request).map_err(storage_error)?;
        Ok(page.unlocked()?.into())
    }

    pub(super) async fn write(&self, ask: Write) -> Result<WriteReply, v1::Error> {
        let commit = ask.commit.ok_or_else(|| v1::Error::invalid("commit", "it is missing"))?;
        check_commit(&commit)?;
        refuse_system_keys(&commit)?;
        let seen = Timestamp(self.highest_seen.load(Ordering::Relaxed));
        let start_ts = Timestamp(commit.start_ts);
        if start_ts.millis() > seen.millis() + UNSEEN_MS_MAX {
            self.check_handed_out(start_ts, "start_ts").await?;
        }
        let body = Some(command::Body::CommitOneRange(commit));
        let command = v1::Command { body }.encode_to_vec();
        let reply = self.stores.propose(range_ref(ask.range)?, command.into()).await?;
        let reply = CommandReply::decode(reply)
            .map_err(|e| v1::Error::undetermined(format!("the range's reply: {e}")))?;
        committed(reply).map(|committed| WriteReply { committed: Some(committed) })
    }

    /// A view of a range's state for a read at a timestamp; 0 is the latest.
    async fn view(&self, header: Option<RangeHeader>, read_ts: u64) -> Result<ReadView, v1::Error> {
        let range = range_ref(header)?;
        let at = match read_ts {
            0 => ReadAt::Latest,
            at => {
                self.check_handed_out(Timestamp(at), "read_ts").await?;
                ReadAt::Snapshot(Timestamp(at))
            }
        };
        Ok(self.stores.read(range, at).await?)
    }

    /// Refuses timestamps from the future: reading there would push up every later commit.
    async fn check_handed_out(&self, at: Timestamp, argument: &str) -> Result<(), v1::Error> {
        if at.0 <= self.highest_seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let newest = self.gateway.timestamp().await.map_err(v1::Error::from)?;
        self.saw(newest.0);
        if at <= newest {
            return Ok(());
        }
        let message = format!("timestamp {at} is ahead of the cluster's newest, {newest}");
        Err(v1::Error::invalid(argument, message))
    }
}

/// Only the control plane writes under `_/`, and it does not come this way.
fn refuse_system_keys(commit: &CommitOneRange) -> Result<(), v1::Error> {
    let system_end = prefix_end(SYSTEM_PREFIX);
    let is_system = |operation: &Operation| match &operation.body {
        Some(operation::Body::Put(put)) => is_system_key(&put.key),
        Some(operation::Body::Delete(delete)) => is_system_key(&delete.key),
        Some(operation::Body::DeleteRange(range)) => {
            let below = range.start_key < system_end[..];
            below && (range.end_key.is_empty() || range.end_key > *SYSTEM_PREFIX)
        }
        None => false,
    };
    if commit.operations.iter().any(is_system) {
        return Err(v1::Error::permission_denied("keys under `_/` belong to the system"));
    }
    Ok(())
}

fn range_ref(header: Option<RangeHeader>) -> Result<RangeRef, v1::Error> {
    let header = header.ok_or_else(|| v1::Error::invalid("range", "it is missing"))?;
    Ok(RangeRef { id: RangeId(header.range_id), epoch: header.epoch.unwrap_or_default() })
}

/// The sender's idea of the range is wrong in spite of its epoch.
fn outside(view: &ReadView) -> v1::Error {
    let descriptor = Box::new((*view.descriptor).clone());
    RangeError::StaleEpoch { descriptor }.into()
}

fn committed(reply: CommandReply) -> Result<v1::Committed, v1::Error> {
    use command_reply::Body;
    let (kind, message) = match reply.body {
        Some(Body::Committed(committed)) => return Ok(committed),
        Some(Body::ConditionFailed(failed)) => {
            let key = failed.actual.as_ref().map(|kv| kv.key.clone()).unwrap_or_default();
            let message = format!("condition {} does not hold", failed.index);
            let conflict = Conflict { condition_index: failed.index, key, actual: failed.actual };
            (Kind::Conflict(conflict), message)
        }
        Some(Body::Locked(locked)) => return ReadOutcome::Locked(locked).unlocked(),
        Some(Body::TooOld(too_old)) => {
            (Kind::TooOld(too_old), "the command is older than what is remembered".to_owned())
        }
        Some(Body::EpochChanged(_)) => {
            return Err(v1::Error::too_busy(1, "the range changed its shape"));
        }
        Some(Body::Invalid(why)) => return Err(v1::Error::invalid("commit", why)),
        other => {
            let message = format!("the range answered a commit by {other:?}");
            return Err(v1::Error::undetermined(message));
        }
    };
    Err(v1::Error::new(kind, message))
}
