//! Reads addressed to a range, which this node answers if it leads the range.
//!
//! A point read is evaluated in the request's own task. A read whose cost grows with the data goes
//! to [`HeavyReads`](super::HeavyReads). Bytes for the largest possible answer are taken from the
//! caller's share first. After the evaluation, those that the answer does not need are given back.

use prost::Message;
use rangedb_proto::v1::{
    self, ListLocks, ListLocksReply, PointRead, PointReadReply, RangeHeader, ReadCheck, Scan,
    ScanReply, Validate, ValidateReply,
};
use rangedb_proto::{KEY_BYTES_MAX, RangeDescriptorExt, RangeId, Timestamp, VALUE_BYTES_MAX};
use rangedb_raftstore::{Error as RangeError, RangeRef, ReadMode};
use rangedb_storage::Direction;
use rangedb_txn::{
    Locks, PAGE_BYTES_MAX, PAGE_WALK_MAX, ReadAt, ScanRequest, check_key, check_validate,
    newest_read,
};

use super::{Caller, Node};
use crate::handle::ReadView;
use crate::memory::Taken;
use crate::surroundings::storage_error;

/// Bytes of a row at most: the largest value, its key, and the figures beside them.
const ROW_BYTES_MAX: usize = VALUE_BYTES_MAX + KEY_BYTES_MAX + KV_BYTES;

/// Bytes of a row beside its key and value, in memory and on the wire.
const KV_BYTES: usize = 160;

/// Bytes of an answer beside its rows or locks: descriptors, keys and figures.
const SMALL_BYTES: usize = 4 * 1024;

impl Node {
    pub(super) async fn point_read(
        &self,
        caller: &Caller,
        ask: PointRead,
        room: &mut Option<Taken>,
    ) -> Result<PointReadReply, v1::Error> {
        check_key(&ask.key)?;
        let mut view = self.view(ask.range, ask.read_ts).await?;
        *room = caller.answers.try_take(ROW_BYTES_MAX as u64);
        if room.is_none() {
            // No view may be held while the request waits for the answers of others.
            drop(view);
            *room = Some(caller.room(ROW_BYTES_MAX, &*self.around.net).await?);
            view = self.view(ask.range, ask.read_ts).await?;
        }
        if !view.descriptor.contains(&ask.key) {
            return Err(outside(&view));
        }
        let at = ReadAt::from_read_ts(ask.read_ts);
        let locks = Locks::InTheWay { but_of: ask.pass_locks_of };
        let read =
            rangedb_txn::get(&*view.reader, &view.descriptor.start_key, &ask.key, at, &locks);
        let found = read.map_err(storage_error)?.unlocked()?;
        drop(view);
        let reply = PointReadReply { kv: found.kv };
        if let Some(room) = room {
            room.shrink_to(reply.encoded_len() as u64);
        }
        self.until_passed(Timestamp(found.newest_ts)).await?;
        Ok(reply)
    }

    pub(super) async fn scan(
        &self,
        caller: &Caller,
        ask: Scan,
        room: &mut Option<Taken>,
    ) -> Result<ScanReply, v1::Error> {
        *room = Some(caller.room(page_bytes_max(&ask), &*self.around.net).await?);
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
            at: ReadAt::from_read_ts(ask.read_ts),
            locks: Locks::InTheWay { but_of: ask.pass_locks_of },
        };
        let page = self.heavy(caller, move || {
            rangedb_txn::scan(&*view.reader, &view.descriptor.start_key, &request)
        });
        let page = page.await?.map_err(storage_error)?.unlocked()?;
        let newest = Timestamp(page.newest_ts);
        let reply = ScanReply::from(page);
        if let Some(room) = room {
            room.shrink_to((reply.encoded_len() + reply.kvs.len() * KV_BYTES) as u64);
        }
        self.until_passed(newest).await?;
        Ok(reply)
    }

    /// Validates reads at the commit timestamp. It is served like a read there, so that no later
    /// commit gets a timestamp at or below it.
    pub(super) async fn validate(
        &self,
        caller: &Caller,
        ask: Validate,
    ) -> Result<ValidateReply, v1::Error> {
        check_validate(&ask)?;
        let named = newest_read(&ask.reads).max(ask.start_ts);
        self.confirm_unless_near(Timestamp(named), "read_ts").await?;
        let view = self.view(ask.range, ask.commit_ts).await?;
        let covered = |read: &ReadCheck| match read.end_key.is_empty() {
            true => view.descriptor.contains(&read.start_key),
            false => view.descriptor.covers(&read.start_key, &read.end_key),
        };
        if !ask.reads.iter().all(covered) {
            return Err(outside(&view));
        }
        let outcome = self.heavy(caller, move || {
            rangedb_txn::validate(&*view.reader, &view.descriptor.start_key, &ask)
        });
        let reply = outcome.await?.map_err(storage_error)?.unlocked()?;
        let told = reply.conflict.as_ref().map_or(0, |conflict| conflict.winner_commit_ts);
        self.until_passed(Timestamp(told)).await?;
        Ok(reply)
    }

    /// Lists the current locks, which are the same for every caller.
    pub(super) async fn list_locks(
        &self,
        caller: &Caller,
        ask: ListLocks,
        room: &mut Option<Taken>,
    ) -> Result<ListLocksReply, v1::Error> {
        *room = Some(caller.room(LOCKS_BYTES_MAX, &*self.around.net).await?);
        let view = self.view(ask.range, 0).await?;
        let end = match &ask.end_key[..] {
            [] => view.descriptor.end_key.clone(),
            _ => ask.end_key,
        };
        if !view.descriptor.covers(&ask.start_key, &end) {
            return Err(outside(&view));
        }
        let page = self.heavy(caller, move || {
            let span = (&ask.start_key[..], &end[..]);
            rangedb_txn::locks(&*view.reader, span, ask.limit, ask.started_below_ts)
        });
        let (locks, resume) = page.await?.map_err(storage_error)?;
        Ok(ListLocksReply { locks, resume_key: resume.unwrap_or_default() })
    }

    /// Returns a view of the range's state for a read at a timestamp; 0 is the latest.
    async fn view(&self, header: Option<RangeHeader>, read_ts: u64) -> Result<ReadView, v1::Error> {
        let range = range_ref(header)?;
        let at = match read_ts {
            0 => ReadMode::Latest,
            at => {
                self.confirm_unless_near(Timestamp(at), "read_ts").await?;
                ReadMode::Snapshot(Timestamp(at))
            }
        };
        Ok(self.around.stores.read(range, at).await?)
    }
}

pub(super) fn range_ref(header: Option<RangeHeader>) -> Result<RangeRef, v1::Error> {
    let header = header.ok_or_else(|| v1::Error::invalid("range", "it is missing"))?;
    Ok(RangeRef { id: RangeId(header.range_id), epoch: header.epoch.unwrap_or_default() })
}

/// Bytes of a page of locks at most. A page ends only after a lock has reached [`PAGE_BYTES_MAX`],
/// so it may be larger.
const LOCKS_BYTES_MAX: usize = 2 * PAGE_BYTES_MAX as usize + SMALL_BYTES;

/// Bytes of a page at most. It ends at its bound, or with its first row, however large that is.
fn page_bytes_max(ask: &Scan) -> usize {
    let bytes_max = match ask.bytes_max {
        0 => PAGE_BYTES_MAX,
        asked => asked.min(PAGE_BYTES_MAX),
    };
    let rows = match ask.limit {
        0 => PAGE_WALK_MAX,
        limit => usize::try_from(limit).unwrap_or(PAGE_WALK_MAX).min(PAGE_WALK_MAX),
    };
    let first_row = if ask.keys_only { KEY_BYTES_MAX + KV_BYTES } else { ROW_BYTES_MAX };
    SMALL_BYTES + rows * KV_BYTES + first_row.max(bytes_max as usize)
}

/// Error for keys outside of the range: the sender's descriptor is wrong in spite of its epoch.
fn outside(view: &ReadView) -> v1::Error {
    let descriptor = Box::new((*view.descriptor).clone());
    RangeError::StaleEpoch { descriptor }.into()
}

#[cfg(test)]
mod tests;
