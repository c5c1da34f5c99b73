//! Garbage of a range: records that nobody asks for any more, and where they stand.
//!
//! Two timestamps rule this (`floors.rs`). Nothing is read below the floor, and below
//! *collect_below*, which is never above it, no transaction has a lock in any range and none can
//! take one. So a range drops what no read at or above collect_below sees and what only transactions
//! from below it could ask for:
//!
//! ```text
//! history   a version that ended below, with its value if that stands apart, and what tells
//!           which command wrote it
//! current   a deleted version from below; its older versions ended below too
//! lock      an outcome record of a transaction that started below
//! ```
//!
//! All three are *strictly* below. A command that started at collect_below itself may still be
//! repeated, and what it replaced is needed to answer it as the first time.
//!
//! # Replicas may differ in this
//!
//! A compaction may drop records of `history` and `current` by the same rule on one replica and not
//! yet on another (give it `collect_below - 1`, the last timestamp that nobody reads at). So nothing
//! that a command decides may rest on them: commands take a deleted version from below for none, and
//! count it nowhere. Records of the lock family are dropped here alone; therefore a walk looks for
//! them first, with a bound of its own that the other families have no part in, and every replica
//! drops the same.
//!
//! # The walk
//!
//! A record that is damaged stays where it is, for somebody to find, and holds up nothing.
//!
//! It costs a few records for each key, however many versions from above a key has: of its versions
//! a walk looks at the newest few and then seeks those from below.

use bytes::Bytes;
use rangedb_proto::Timestamp;
use rangedb_storage::keys::{self, HistoryKey};
use rangedb_storage::{
    ColumnFamily, Direction, HistoryRecord, Reader, Record, RecordValue, Records, Result,
    StartRecord, encoding,
};

use crate::outcome_record::Outcome;

/// Records of one family that one command may walk over: with three families, some milliseconds of
/// apply.
pub const GARBAGE_WALK_MAX: usize = 1024;

/// Bytes of the records that one command may drop from one family: each is read before it goes, and
/// its key stands in the write batch.
pub const GARBAGE_BYTES_MAX: usize = 1024 * 1024;

/// Versions of a key that a walk looks at before it seeks those that may be dropped: few enough to
/// make a hot key cheap, enough to spare most keys the seek.
const NEWER_VERSIONS_MAX: usize = 4;

/// True if a deleted version, the newest of its key, is as good as none.
pub(crate) fn is_spent(current: &Record, collect_below: u64) -> bool {
    current.is_deleted() && current.mod_ts < collect_below
}

/// What a walk found in a span.
#[derive(Default)]
pub(crate) struct Garbage {
    /// Stored keys to delete.
    pub(crate) stored: Vec<(ColumnFamily, Bytes)>,
    /// The first and the last user key that something was found at.
    pub(crate) keys: Option<(Bytes, Bytes)>,
    /// Where to go on, if a bound ended the walk. Either behind the span's start, or something was
    /// found at it.
    pub(crate) next: Option<Bytes>,
}

impl Garbage {
    /// What may be dropped below `collect_below` at user keys `[start, end)`; an empty end has no
    /// end.
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

/// What [`garbage_ahead`] found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GarbageAhead {
    /// User keys `[start, end)` with something to drop: worth a `CollectGarbage`.
    pub worth: Option<(Bytes, Bytes)>,
    /// Where to look next, once what is worth it was collected. `None`: that was all.
    pub next: Option<Bytes>,
}

/// Looks whether there is anything to collect at user keys `[from, end)` of a range; an empty end is
/// the last key of all. Walks over about `walk_max` records of each family at most.
///
/// # Errors
///
/// The engine's alone.
pub fn garbage_ahead(
    reader: &dyn Reader,
    from: &[u8],
    end: &[u8],
    collect_below: u64,
    walk_max: usize,
) -> Result<GarbageAhead> {
    let found = Garbage::find(reader, (from, end), collect_below, walk_max.max(1))?;
    let worth = found.keys.map(|(first, last)| (first, [&last[..], &[0]].concat().into()));
    Ok(GarbageAhead { worth, next: found.next })
}

/// A walk over one family.
struct Pass<'a> {
    reader: &'a dyn Reader,
    span: rangedb_storage::Span,
    collect_below: u64,
    walk_left: usize,
    bytes_left: usize,
    /// The user key that the walk is at.
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
            // In front of outcome records stands the lock; behind them, a range's record.
            let Some(start_ts) = Outcome::parse_start_ts(behind) else { continue };
            if start_ts < self.collect_below {
                if !self.drop(ColumnFamily::Lock, stored_key, stored) {
                    break;
                }
            } else {
                // The others of the key started later still.
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
                    // Most others started later still; those that did not go with the next walk.
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

    /// The family's records from a stored key to the end of the span.
    fn records(&self, cf: ColumnFamily, from: &[u8]) -> Result<Box<dyn Records + 'a>> {
        self.reader.scan(cf, from, &self.span.end, Direction::Forward)
    }

    /// True if the bounds allow one more record. What is left of a key is always looked at, so that the
    /// next walk begins at a key that this one has not seen, unless it found something there.
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

    /// Notes a record of the key that the walk is at. False: the bounds end the walk in front of it.
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
