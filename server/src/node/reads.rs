//! Reads addressed to a range: this node answers if it leads the range.

use std::sync::atomic::Ordering;

use rangedb_proto::v1::{
    self, ListLocks, ListLocksReply, PointRead, PointReadReply, RangeHeader, ReadCheck, Scan,
    ScanReply, Validate, ValidateReply,
};
use rangedb_proto::{RangeDescriptorExt, RangeId, Timestamp};
use rangedb_raftstore::{Error as RangeError, RangeRef, ReadAt};
use rangedb_storage::Direction;
use rangedb_txn::{Locks, ScanRequest, check_key, check_validate};

use super::{Node, storage_error};
use crate::handle::ReadView;

impl Node {
    pub(super) async fn point_read(&self, ask: PointRead) -> Result<PointReadReply, v1::Error> {
        check_key(&ask.key)?;
        let view = self.view(ask.range, ask.read_ts).await?;
        if !view.descriptor.contains(&ask.key) {
            return Err(outside(&view));
        }
        let at = rangedb_txn::ReadAt::from_read_ts(ask.read_ts);
        let locks = Locks::InTheWay { but_of: ask.pass_locks_of };
        let read =
            rangedb_txn::get(&*view.reader, &view.descriptor.start_key, &ask.key, at, &locks);
        let kv = read.map_err(storage_error)?.unlocked()?;
        self.let_oracle_pass(Timestamp(kv.as_ref().map_or(0, |kv| kv.mod_ts))).await?;
        Ok(PointReadReply { kv })
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
        let page = rangedb_txn::scan(&*view.reader, &view.descriptor.start_key, &request);
        let page = page.map_err(storage_error)?.unlocked()?;
        let newest = page.kvs.iter().map(|kv| kv.mod_ts).max().unwrap_or_default();
        self.let_oracle_pass(Timestamp(newest)).await?;
        Ok(page.into())
    }

    /// A read at the commit timestamp: served like one, so that nothing commits there behind it.
    pub(super) async fn validate(&self, ask: Validate) -> Result<ValidateReply, v1::Error> {
        check_validate(&ask)?;
        let view = self.view(ask.range, ask.commit_ts).await?;
        let covered = |read: &ReadCheck| match read.end_key.is_empty() {
            true => view.descriptor.contains(&read.start_key),
            false => view.descriptor.covers(&read.start_key, &read.end_key),
        };
        if !ask.reads.iter().all(covered) {
            return Err(outside(&view));
        }
        let outcome = rangedb_txn::validate(&*view.reader, &view.descriptor.start_key, &ask);
        outcome.map_err(storage_error)?.unlocked()
    }

    /// Locks as they stand now, whoever asks.
    pub(super) async fn list_locks(&self, ask: ListLocks) -> Result<ListLocksReply, v1::Error> {
        let view = self.view(ask.range, 0).await?;
        let end = match &ask.end_key[..] {
            [] => view.descriptor.end_key.clone(),
            _ => ask.end_key,
        };
        if !view.descriptor.covers(&ask.start_key, &end) {
            return Err(outside(&view));
        }
        let span = (&ask.start_key[..], &end[..]);
        let page = rangedb_txn::locks(&*view.reader, span, ask.limit, ask.started_below_ts);
        let (locks, resume) = page.map_err(storage_error)?;
        Ok(ListLocksReply { locks, resume_key: resume.unwrap_or_default() })
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
    pub(super) async fn check_handed_out(
        &self,
        at: Timestamp,
        argument: &str,
    ) -> Result<(), v1::Error> {
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

pub(super) fn range_ref(header: Option<RangeHeader>) -> Result<RangeRef, v1::Error> {
    let header = header.ok_or_else(|| v1::Error::invalid("range", "it is missing"))?;
    Ok(RangeRef { id: RangeId(header.range_id), epoch: header.epoch.unwrap_or_default() })
}

/// The sender's idea of the range is wrong in spite of its epoch.
fn outside(view: &ReadView) -> v1::Error {
    let descriptor = Box::new((*view.descriptor).clone());
    RangeError::StaleEpoch { descriptor }.into()
}
