//! Garbage of a range: records that no read or command needs any more.
//!
//! Two timestamps decide this (`floors.rs`). Nothing is read below the floor. Below
//! *collect_below*, which is never above the floor, no transaction has a lock in any range and none
//! can take one. So a range drops records that no read at or above collect_below sees, and records
//! that only transactions from below it could ask for:
//!
//! ```text
//! history   a version that ended below, with its value if that stands in `value`, and the record
//!           that finds the version by its start_ts
//! current   a deleted version from below; its older versions ended below too
//! lock      an outcome record of a transaction that started below
//! ```
//!
//! In all three, below means *strictly* below. A command that started at collect_below itself may
//! still be repeated, and the versions that it replaced are needed to repeat its answer.
//!
//! # Replicas may differ in garbage
//!
//! Compaction drops records of `history` and `current` by the same rule, on one replica sooner than
//! on another. (Its bound is `collect_below - 1`, the last timestamp at which nobody reads.) So no
//! decision of a command may depend on these records: commands treat a deleted version from below
//! as absent, and do not count it.
//!
//! Records of the lock family are dropped by commands alone. So that every replica drops the same
//! ones, a walk looks for them first, with bounds of its own that no other family uses up.
//!
//! # The walk
//!
//! A damaged record stays where it is, so that it can be found, and does not stop the walk.
//!
//! A walk costs a few records for each key, however many versions the key has above collect_below.
//! It looks at the newest few of them and then seeks those below.

use bytes::Bytes;
use rangedb_proto::{Timestamp, successor};
use rangedb_storage::keys::{self, HistoryKey};
use rangedb_storage::{
    ColumnFamily, Direction, HistoryRecord, Reader, Record, RecordValue, Records, Result,
    StartRecord, encoding,
};

use crate::outcome_record::Outcome;

/// Records of one family that one command may walk over. With three families, that takes some
/// milliseconds of apply.
pub const GARBAGE_WALK_MAX: usize = 1024;

/// Bytes of the records that one command may drop from one family. Each record is read before it is
/// dropped, and its key stands in the write batch.
pub const GARBAGE_BYTES_MAX: usize = 1024 * 1024;

/// Versions of a key that a walk looks at before it seeks those that may be dropped. Few enough to
/// keep a hot key cheap, and enough to save most keys the seek.
const NEWER_VERSIONS_MAX: usize = 4;

/// True if a key's newest version is a deletion from below `collect_below`, which commands treat as
/// absent.
pub(crate) fn is_spent(current: &Record, collect_below: u64) -> bool {
    current.is_deleted() && current.mod_ts < collect_below
}

/// Garbage that a walk found in a span.
#[derive(Default)]
pub(crate) struct Garbage {
    /// Stored keys to delete.
    pub(crate) stored: Vec<(ColumnFamily, Bytes)>,
    /// First and last user key with garbage.
    pub(crate) keys: Option<(Bytes, Bytes)>,
    /// User key at which the next walk begins, if a bound ended this one. It is above the start of
    /// the span, unless the walk found garbage there.
    pub(crate) next: Option<Bytes>,
}

impl Garbage {
    /// Finds what may be dropped below `collect_below` at user keys `[start, end)`; an empty end
    /// has no end.
    pub(crate) fn find(
        reader: &dyn Reader,
        (start, end): (&[u8], &[u8]),
        collect_below: u64,
        walk_max: usize,
    ) -> Result<Self> {
        let mut garbage = Garbage::default();
        for cf in [ColumnFamily::Lock, ColumnFamily::History, ColumnFamily::Current] {
            let end = garbage.next.clone().unwrap_or_else(|| Bytes::copy_from_slice(end));
            if !end.is_empty() && start >= &end[..] {
                break;
            }
            let mut pass = Pass {
                reader,
                span: keys::data_span(start, &end),
                collect_below,
                walk_left: walk_max,
                bytes_left: GARBAGE_BYTES_MAX,
                key: None,
                next: None,
                garbage: &mut garbage,
            };
            match cf {
                ColumnFamily::Lock => pass.walk_outcomes()?,
                ColumnFamily::History => pass.walk_history()?,
                _ => pass.walk_current()?,
            }
            if let Some(next) = pass.next {
                garbage.next = Some(next);
            }
        }
        Ok(garbage)
    }
}

/// Result of [`garbage_ahead`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GarbageAhead {
    /// User keys `[start, end)` with garbage: worth a `CollectGarbage`.
    pub worth: Option<(Bytes, Bytes)>,
    /// Key at which to look next, after `worth` was collected; `None` if nothing is left.
    pub next: Option<Bytes>,
}

/// Looks for garbage at user keys `[from, end)` of a range; an empty end has no end. Walks over
/// about `walk_max` records of each family at most.
///
/// # Errors
///
/// Only errors of the storage engine.
pub fn garbage_ahead(
    reader: &dyn Reader,
    from: &[u8],
    end: &[u8],
    collect_below: u64,
    walk_max: usize,
) -> Result<GarbageAhead> {
    let found = Garbage::find(reader, (from, end), collect_below, walk_max.max(1))?;
    let worth = found.keys.map(|(first, last)| (first, successor(&last).into()));
    Ok(GarbageAhead { worth, next: found.next })
}

/// A walk over one family.
struct Pass<'a> {
    reader: &'a dyn Reader,
    span: rangedb_storage::Span,
    collect_below: u64,
    walk_left: usize,
    bytes_left: usize,
    /// The user key at which the walk is.
    key: Option<Bytes>,
    next: Option<Bytes>,
    garbage: &'a mut Garbage,
}

impl<'a> Pass<'a> {
    fn walk_outcomes(&mut self) -> Result<()> {
        let mut records = self.records(ColumnFamily::Lock, &self.span.start)?;
        while let Some((stored_key, stored)) = records.next()? {
            let Ok((key, behind)) = encoding::unescape(stored_key) else { continue };
            let key = Bytes::from(key);
            if !self.may_look_at(&key) {
                break;
            }
            // The key's lock stands before its outcome records, a range record after them. Both are
            // skipped.
            let Some(start_ts) = Outcome::parse_start_ts(behind) else { continue };
            if start_ts < self.collect_below {
                if !self.drop(ColumnFamily::Lock, stored_key, stored) {
                    break;
                }
            } else {
                // The key's remaining outcome records have a higher start_ts.
                records = self.records(ColumnFamily::Lock, &keys::key_span(&key).end)?;
            }
        }
        Ok(())
    }

    fn walk_history(&mut self) -> Result<()> {
        let mut records = self.records(ColumnFamily::History, &self.span.start)?;
        let mut newer = 0;
        while let Some((stored_key, stored)) = records.next()? {
            let Ok(parsed) = keys::parse_history_key(stored_key) else { continue };
            let (HistoryKey::Version { user_key: key, .. }
            | HistoryKey::ByStart { user_key: key, .. }) = &parsed;
            if self.key.as_ref() != Some(key) {
                newer = 0;
            }
            if !self.may_look_at(key) {
                break;
            }
            let (key, mod_ts) = match parsed {
                HistoryKey::Version { user_key, mod_ts } => (user_key, mod_ts),
                HistoryKey::ByStart { user_key, start_ts } => {
                    let found = StartRecord::decode(stored);
                    if found.is_ok_and(|found| found.end_ts < self.collect_below) {
                        if !self.drop(ColumnFamily::History, stored_key, stored) {
                            break;
                        }
                        continue;
                    }
                    // The remaining records of this kind have a higher start_ts, so most of them
                    // stay. A later walk drops the others.
                    newer += 1;
                    if newer == NEWER_VERSIONS_MAX || start_ts >= self.collect_below {
                        newer = 0;
                        let versions = keys::history(&user_key, Timestamp::MAX.0);
                        records = self.records(ColumnFamily::History, &versions)?;
                    }
                    continue;
                }
            };
            let Ok(version) = HistoryRecord::decode_slice(stored) else { continue };
            if version.end_ts < self.collect_below {
                if !self.drop(ColumnFamily::History, stored_key, stored) {
                    break;
                }
                if let RecordValue::Reference { .. } = version.record.value {
                    let value = keys::value(&key, version.record.start_ts);
                    self.garbage.stored.push((ColumnFamily::Value, value));
                }
                continue;
            }
            newer += 1;
            if newer == NEWER_VERSIONS_MAX && mod_ts > self.collect_below {
                let older = keys::history_until(&key, self.collect_below).start;
                records = self.records(ColumnFamily::History, &older)?;
            }
        }
        Ok(())
    }

    fn walk_current(&mut self) -> Result<()> {
        let mut records = self.records(ColumnFamily::Current, &self.span.start)?;
        while let Some((stored_key, stored)) = records.next()? {
            let Ok(key) = keys::parse_user_key(stored_key) else { continue };
            if !self.may_look_at(&key) {
                break;
            }
            let is_spent = Record::decode_slice(stored)
                .is_ok_and(|current| is_spent(&current, self.collect_below));
            if is_spent && !self.drop(ColumnFamily::Current, stored_key, stored) {
                break;
            }
        }
        Ok(())
    }

    /// Returns the family's records from a stored key to the end of the span.
    fn records(&self, cf: ColumnFamily, from: &[u8]) -> Result<Box<dyn Records + 'a>> {
        self.reader.scan(cf, from, &self.span.end, Direction::Forward)
    }

    /// True if the bounds allow one more record. The rest of a key is always looked at, so a walk
    /// that found no garbage ends at a key that it has not seen, and the next walk makes progress.
    fn may_look_at(&mut self, key: &Bytes) -> bool {
        if self.key.as_ref() != Some(key) {
            if self.walk_left == 0 || self.bytes_left == 0 {
                self.next = Some(key.clone());
                return false;
            }
            self.key = Some(key.clone());
        }
        self.walk_left = self.walk_left.saturating_sub(1);
        true
    }

    /// Adds a record of the walk's current key to the garbage. False if a bound ends the walk
    /// before it.
    fn drop(&mut self, cf: ColumnFamily, stored_key: &[u8], stored: &[u8]) -> bool {
        let key = self.key.as_ref().expect("the walk is at a key");
        let bytes = stored_key.len() + stored.len();
        let at_start = self.garbage.keys.is_none();
        if !at_start && (self.walk_left == 0 || self.bytes_left < bytes) {
            self.next = Some(key.clone());
            return false;
        }
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.garbage.stored.push((cf, Bytes::copy_from_slice(stored_key)));
        let (first, last) = self.garbage.keys.take().unwrap_or_else(|| (key.clone(), key.clone()));
        self.garbage.keys = Some((first.min(key.clone()), last.max(key.clone())));
        true
    }
}
