//! Keys of all stored records. The formats never change (`docs/storage-format.md`).
//!
//! ```text
//! current   escaped user key
//! history   escaped user key, !mod_ts as 8 big-endian bytes: the newest comes first
//!           escaped user key, "s", start_ts as 8 big-endian bytes: start record of a version
//! value     escaped user key, start_ts as 8 big-endian bytes
//! lock      escaped user key
//! meta      "r/" range id as 8 big-endian bytes: state of a range with a replica on this node
//!           "t/" range id as 8 big-endian bytes: tombstone of the range's destroyed replicas
//!           "s/" range id and index as 8 big-endian bytes each: entry skipped by an operator
//! ```
//!
//! All data families begin with the escaped user key, so one [`Span`] cuts a range out of each.

use bytes::Bytes;

use crate::encoding::{escape, escaped_successor, malformed, unescape};
use crate::{Result, Span};

/// Prefix of a start_ts in `history`. Sorts below the first byte of every `!mod_ts`: a timestamp is
/// a positive number of 63 bits.
const BY_START: u8 = b's';
const RANGE_STATE: &[u8; 2] = b"r/";
const TOMBSTONE: &[u8; 2] = b"t/";
const SKIPPED_ENTRY: &[u8; 2] = b"s/";

/// Key of a user key's newest committed version, in [`crate::ColumnFamily::Current`].
pub fn current(user_key: &[u8]) -> Bytes {
    escape(user_key, 0).into()
}

/// Key of a user key's uncommitted write, in [`crate::ColumnFamily::Lock`].
pub fn lock(user_key: &[u8]) -> Bytes {
    escape(user_key, 0).into()
}

/// Key of the version with this mod_ts, in [`crate::ColumnFamily::History`].
pub fn history(user_key: &[u8], mod_ts: u64) -> Bytes {
    with_number(user_key, !mod_ts)
}

/// Key of the start record of the command with this start_ts, in [`crate::ColumnFamily::History`].
/// It sorts before all versions of the user key, so that no walk over these meets it.
pub fn by_start(user_key: &[u8], start_ts: u64) -> Bytes {
    let mut key = escape(user_key, 1 + size_of::<u64>());
    key.push(BY_START);
    key.extend_from_slice(&start_ts.to_be_bytes());
    key.into()
}

/// Key of the value written at this start_ts, in [`crate::ColumnFamily::Value`].
pub fn value(user_key: &[u8], start_ts: u64) -> Bytes {
    with_number(user_key, start_ts)
}

/// Span of a key's versions in history whose mod_ts is at most `ts`, the newest first.
pub fn history_until(user_key: &[u8], ts: u64) -> Span {
    Span { start: history(user_key, ts), end: escaped_successor(user_key).into() }
}

/// Span of everything stored for user keys `[start, end)`, in each of
/// [`crate::ColumnFamily::DATA`]. An empty `end` has no end.
pub fn data_span(start: &[u8], end: &[u8]) -> Span {
    let bound = |key: &[u8]| if key.is_empty() { Bytes::new() } else { escape(key, 0).into() };
    Span { start: bound(start), end: bound(end) }
}

/// Span of everything stored for one user key, in each of [`crate::ColumnFamily::DATA`].
pub fn key_span(user_key: &[u8]) -> Span {
    Span { start: current(user_key), end: escaped_successor(user_key).into() }
}

/// Parses a key in `current` or `lock`. Returns the user key.
///
/// # Errors
/// [`crate::Error::Damaged`] if it is not such a key; so for all parsers in this file.
pub fn parse_user_key(stored: &[u8]) -> Result<Bytes> {
    match unescape(stored)? {
        (user_key, []) => Ok(user_key.into()),
        _ => Err(malformed(stored, "goes on behind its end")),
    }
}

/// Parses the key of a version in `history`. Returns user key and mod_ts.
pub fn parse_history(stored: &[u8]) -> Result<(Bytes, u64)> {
    parse_with_number(stored).map(|(user_key, number)| (user_key, !number))
}

/// Kinds of keys in `history`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HistoryKey {
    /// A superseded version.
    Version { user_key: Bytes, mod_ts: u64 },
    /// Start record of a superseded version, by the command that wrote the version.
    ByStart { user_key: Bytes, start_ts: u64 },
}

pub fn parse_history_key(stored: &[u8]) -> Result<HistoryKey> {
    let (user_key, rest) = unescape(stored)?;
    if let [BY_START, number @ ..] = rest
        && let Ok(number) = number.try_into()
    {
        let start_ts = u64::from_be_bytes(number);
        return Ok(HistoryKey::ByStart { user_key: user_key.into(), start_ts });
    }
    parse_history(stored).map(|(user_key, mod_ts)| HistoryKey::Version { user_key, mod_ts })
}

/// Parses a key in `value`. Returns user key and start_ts.
pub fn parse_value(stored: &[u8]) -> Result<(Bytes, u64)> {
    parse_with_number(stored)
}

/// Key of a range's descriptor and applied index, in [`crate::ColumnFamily::Meta`].
pub fn range_state(range_id: u64) -> Bytes {
    meta(RANGE_STATE, range_id)
}

/// Key of the tombstone of a range's destroyed replicas, in [`crate::ColumnFamily::Meta`].
pub fn tombstone(range_id: u64) -> Bytes {
    meta(TOMBSTONE, range_id)
}

/// Key of the note that an operator declared an entry without effect, in
/// [`crate::ColumnFamily::Meta`].
pub fn skipped_entry(range_id: u64, index: u64) -> Bytes {
    [&meta(SKIPPED_ENTRY, range_id)[..], &index.to_be_bytes()].concat().into()
}

/// Span of all keys of [`skipped_entry`] for a range.
pub fn skipped_entries(range_id: u64) -> Span {
    let end = [&meta(SKIPPED_ENTRY, range_id)[..], &[0xff; 9]].concat();
    Span { start: skipped_entry(range_id, 0), end: end.into() }
}

/// Span of all keys of [`range_state`].
pub fn range_states() -> Span {
    Span { start: Bytes::from_static(RANGE_STATE), end: Bytes::from_static(b"r0") }
}

/// Span of all keys of [`tombstone`].
pub fn tombstones() -> Span {
    Span { start: Bytes::from_static(TOMBSTONE), end: Bytes::from_static(b"t0") }
}

/// Kinds of keys in `meta`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetaKey {
    RangeState { range_id: u64 },
    Tombstone { range_id: u64 },
    SkippedEntry { range_id: u64, index: u64 },
}

pub fn parse_meta(stored: &[u8]) -> Result<MetaKey> {
    let parsed = stored.split_first_chunk::<2>().and_then(|(kind, numbers)| {
        let (id, rest) = numbers.split_first_chunk::<8>()?;
        let range_id = u64::from_be_bytes(*id);
        match (kind, rest) {
            (RANGE_STATE, []) => Some(MetaKey::RangeState { range_id }),
            (TOMBSTONE, []) => Some(MetaKey::Tombstone { range_id }),
            (SKIPPED_ENTRY, index) => {
                let index = u64::from_be_bytes(index.try_into().ok()?);
                Some(MetaKey::SkippedEntry { range_id, index })
            }
            _ => None,
        }
    });
    parsed.ok_or_else(|| malformed(stored, "is not a meta key"))
}

fn with_number(user_key: &[u8], number: u64) -> Bytes {
    let mut key = escape(user_key, size_of::<u64>());
    key.extend_from_slice(&number.to_be_bytes());
    key.into()
}

fn parse_with_number(stored: &[u8]) -> Result<(Bytes, u64)> {
    let (user_key, rest) = unescape(stored)?;
    match rest.try_into() {
        Ok(number) => Ok((user_key.into(), u64::from_be_bytes(number))),
        Err(_) => Err(malformed(stored, "does not end in a timestamp")),
    }
}

fn meta(kind: &[u8; 2], range_id: u64) -> Bytes {
    [&kind[..], &range_id.to_be_bytes()].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&[u8]; 8] =
        [b"", b"\x00", b"\x00\x01", b"a", b"a\x00", b"a\x00\xff", b"a\x01", b"\xff\xff"];
    const TIMES: [u64; 6] = [0, 1, 255, 256, 1 << 62, u64::MAX];

    #[test]
    fn history_runs_from_the_newest_to_the_oldest_within_a_key() {
        for (place, key) in KEYS.iter().enumerate() {
            for pair in TIMES.windows(2) {
                assert!(history(key, pair[1]) < history(key, pair[0]));
            }
            for above in &KEYS[place + 1..] {
                assert!(history(key, 0) < history(above, u64::MAX), "{key:?} {above:?}");
            }
        }
    }

    #[test]
    fn history_until_holds_the_keys_versions_up_to_the_timestamp_and_nothing_else() {
        for key in KEYS {
            for ts in TIMES {
                let span = history_until(key, ts);
                for other in KEYS {
                    for mod_ts in TIMES {
                        let inside = span.contains(&history(other, mod_ts));
                        assert_eq!(inside, other == key && mod_ts <= ts, "{key:?}@{ts} {other:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn who_wrote_a_version_stands_within_its_key_and_before_all_versions() {
        let timestamps = TIMES.map(|ts| ts >> 1);
        for key in KEYS {
            for start_ts in timestamps {
                let by_start = by_start(key, start_ts);
                assert!(key_span(key).contains(&by_start), "{key:?} {start_ts}");
                assert!(data_span(key, b"").contains(&by_start), "{key:?} {start_ts}");
                for mod_ts in timestamps {
                    assert!(by_start < history(key, mod_ts), "{key:?} {start_ts} {mod_ts}");
                    assert!(!history_until(key, mod_ts).contains(&by_start), "{key:?} {start_ts}");
                }
                let parsed = parse_history_key(&by_start).unwrap();
                assert_eq!(parsed, HistoryKey::ByStart { user_key: key.into(), start_ts });
                let parsed = parse_history_key(&history(key, start_ts)).unwrap();
                assert_eq!(parsed, HistoryKey::Version { user_key: key.into(), mod_ts: start_ts });
                assert!(parse_history(&by_start).is_err(), "{key:?} {start_ts}");
            }
        }
    }

    #[test]
    fn a_data_span_holds_all_records_of_its_user_keys_and_no_others() {
        for start in KEYS {
            for end in KEYS {
                let span = data_span(start, end);
                for key in KEYS {
                    let expected = start <= key && (end.is_empty() || key < end);
                    for stored in [current(key), lock(key), history(key, 0), value(key, u64::MAX)] {
                        assert_eq!(span.contains(&stored), expected, "{start:?} {end:?} {key:?}");
                    }
                }
            }
        }
        for key in KEYS {
            for other in KEYS {
                assert_eq!(key_span(key).contains(&value(other, u64::MAX)), key == other);
            }
        }
    }

    #[test]
    fn keys_parse_to_what_they_were_made_of() {
        for key in KEYS {
            assert_eq!(parse_user_key(&current(key)).unwrap(), key);
            for ts in TIMES {
                assert_eq!(parse_history(&history(key, ts)).unwrap(), (key.into(), ts));
                assert_eq!(parse_value(&value(key, ts)).unwrap(), (key.into(), ts));
                assert_eq!(
                    parse_meta(&range_state(ts)).unwrap(),
                    MetaKey::RangeState { range_id: ts }
                );
                assert_eq!(
                    parse_meta(&tombstone(ts)).unwrap(),
                    MetaKey::Tombstone { range_id: ts }
                );
                assert_eq!(
                    parse_meta(&skipped_entry(ts, ts)).unwrap(),
                    MetaKey::SkippedEntry { range_id: ts, index: ts }
                );
                for index in [0, ts, u64::MAX] {
                    assert!(skipped_entries(ts).contains(&skipped_entry(ts, index)));
                }
                assert!(!skipped_entries(ts).contains(&skipped_entry(ts ^ 1, ts)));
                assert!(range_states().contains(&range_state(ts)));
                assert!(!range_states().contains(&tombstone(ts)));
                assert!(tombstones().contains(&tombstone(ts)));
            }
        }
    }

    #[test]
    fn keys_of_another_kind_are_refused() {
        assert!(parse_user_key(&history(b"a", 1)).is_err());
        assert!(parse_history(&current(b"a")).is_err());
        assert!(parse_value(&[&value(b"a", 1)[..], b"x"].concat()).is_err());
        for stored in
            [&b""[..], b"r", b"r/", b"r/1234567", b"r/123456789", b"x/12345678", b"s/12345678"]
        {
            assert!(parse_meta(stored).is_err(), "{stored:?}");
        }
    }
}
