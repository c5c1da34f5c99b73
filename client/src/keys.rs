//! Checks of the keys, values and spans that a request names, before anything is sent.
//!
//! `_/` is the system's own key space. A user's key may not lie there, and a user's span skips it:
//! `["", "")` covers every user key, below and above `_/`. A span wholly inside `_/` is refused.

use bytes::Bytes;
use rangedb_proto::{COMMAND_BYTES_MAX, KEY_BYTES_MAX, SYSTEM_PREFIX, VALUE_BYTES_MAX, prefix_end};

use crate::error::{Error, Result};

/// Keys that a client may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// All keys but those under `_/`.
    User,
    /// Every key: for the control plane inside a node.
    System,
}

/// Keys from `start` to before `end`; an empty `end` is behind every key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub start: Bytes,
    pub end: Bytes,
}

impl Span {
    pub fn new(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Span { start: start.into(), end: end.into() }
    }

    /// Span of a single key.
    pub fn of_key(key: &Bytes) -> Self {
        Span::new(key.clone(), [key, &b"\0"[..]].concat())
    }

    /// The least span that holds both.
    pub fn hull(self, other: Span) -> Span {
        let end = match self.end.is_empty() || other.end.is_empty() {
            true => Bytes::new(),
            false => self.end.max(other.end),
        };
        Span { start: self.start.min(other.start), end }
    }

    pub fn is_empty(&self) -> bool {
        !self.end.is_empty() && self.end <= self.start
    }

    pub fn holds(&self, key: &[u8]) -> bool {
        self.start <= key && (self.end.is_empty() || key < &self.end[..])
    }

    /// Intersection of two spans; may be empty.
    pub fn and(&self, other: &Span) -> Span {
        let start = self.start.clone().max(other.start.clone());
        let end = match (self.end.is_empty(), other.end.is_empty()) {
            (true, _) => other.end.clone(),
            (_, true) => self.end.clone(),
            _ => self.end.clone().min(other.end.clone()),
        };
        Span { start, end }
    }

    fn system() -> Span {
        Span::new(SYSTEM_PREFIX, prefix_end(SYSTEM_PREFIX))
    }
}

impl View {
    pub fn check_key(self, key: &[u8]) -> Result<()> {
        if key.is_empty() {
            return Err(Error::invalid("key", "a key has at least one byte"));
        }
        check_bytes("key", key, KEY_BYTES_MAX)?;
        if self == View::User && key.starts_with(SYSTEM_PREFIX) {
            return Err(denied(key));
        }
        Ok(())
    }

    /// Returns the parts of a span that a scan may read: in key order, none of them empty.
    pub fn check_scan(self, span: &Span) -> Result<Vec<Span>> {
        check_span_bytes(span)?;
        if span.is_empty() {
            return Ok(Vec::new());
        }
        if self == View::System {
            return Ok(vec![span.clone()]);
        }
        let system = Span::system();
        let below = Span::new(Bytes::new(), system.start);
        let above = Span::new(system.end, Bytes::new());
        let pieces: Vec<Span> =
            [below, above].iter().map(|side| span.and(side)).filter(|s| !s.is_empty()).collect();
        if pieces.is_empty() {
            return Err(denied(&span.start));
        }
        Ok(pieces)
    }

    /// Checks that a span may be deleted. A user's span may hold nothing under `_/`, because a
    /// delete covers the whole span or nothing.
    pub fn check_delete_range(self, span: &Span) -> Result<()> {
        check_span_bytes(span)?;
        if span.is_empty() {
            return Err(Error::invalid("end_key", "it is not behind the start key"));
        }
        if self == View::User && !span.and(&Span::system()).is_empty() {
            return Err(denied(&span.start));
        }
        Ok(())
    }
}

pub(crate) fn check_value(value: &[u8]) -> Result<()> {
    check_bytes("value", value, VALUE_BYTES_MAX)
}

/// Checks the size of a command; `bytes` is that of all its keys and values.
pub(crate) fn check_command_bytes(bytes: usize) -> Result<()> {
    if bytes > COMMAND_BYTES_MAX {
        let message = format!("{bytes} bytes of keys and values; {COMMAND_BYTES_MAX} at most");
        return Err(Error::invalid("operations", message));
    }
    Ok(())
}

fn check_span_bytes(span: &Span) -> Result<()> {
    // One more than a key: the first key behind the longest key is that key and a zero byte.
    check_bytes("start_key", &span.start, KEY_BYTES_MAX + 1)?;
    check_bytes("end_key", &span.end, KEY_BYTES_MAX + 1)
}

fn check_bytes(argument: &str, bytes: &[u8], bytes_max: usize) -> Result<()> {
    if bytes.len() > bytes_max {
        let message = format!("{} bytes long; {bytes_max} at most", bytes.len());
        return Err(Error::invalid(argument, message));
    }
    Ok(())
}

fn denied(key: &[u8]) -> Error {
    let key = key.escape_ascii();
    Error::PermissionDenied(format!("`{key}`: keys under `_/` belong to the system"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: &'static str, end: &'static str) -> Span {
        Span::new(start, end)
    }

    #[test]
    fn a_user_span_skips_the_system_keys() {
        let all = View::User.check_scan(&span("", "")).unwrap();
        assert_eq!(all, [span("", "_/"), span("_0", "")]);
        assert_eq!(View::User.check_scan(&span("_/x", "b")).unwrap(), [span("_0", "b")]);
        assert_eq!(View::User.check_scan(&span("A", "_/x")).unwrap(), [span("A", "_/")]);
        assert_eq!(View::User.check_scan(&span("b", "a")).unwrap(), []);
        assert_eq!(View::System.check_scan(&span("", "")).unwrap(), [span("", "")]);
    }

    #[test]
    fn a_scan_inside_the_system_keys_and_a_delete_that_touches_them_are_denied() {
        let denied = View::User.check_scan(&span("_/a", "_/b"));
        assert!(matches!(denied, Err(Error::PermissionDenied(_))));
        assert!(View::User.check_delete_range(&span("a", "b")).is_ok());
        for touching in [span("", ""), span("Z", "_/a"), span("_/a", "_/b")] {
            let denied = View::User.check_delete_range(&touching);
            assert!(matches!(denied, Err(Error::PermissionDenied(_))), "{touching:?}");
        }
    }

    #[test]
    fn keys_and_values_are_held_to_their_limits() {
        assert!(View::User.check_key(&[b'k'; KEY_BYTES_MAX]).is_ok());
        for bad in [&[b'k'; KEY_BYTES_MAX + 1][..], b""] {
            assert!(matches!(View::User.check_key(bad), Err(Error::Invalid { .. })));
        }
        assert!(matches!(View::User.check_key(b"_/x"), Err(Error::PermissionDenied(_))));
        assert!(View::System.check_key(b"_/x").is_ok());
        assert!(check_value(&vec![0; VALUE_BYTES_MAX]).is_ok());
        assert!(check_value(&vec![0; VALUE_BYTES_MAX + 1]).is_err());
        assert!(check_command_bytes(COMMAND_BYTES_MAX + 1).is_err());
    }
}
