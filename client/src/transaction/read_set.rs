//! Read set of a transaction: keys and spans in which nothing may have changed when it commits.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use rangedb_proto::v1::{self, RangeDescriptor};
use rangedb_proto::{KEY_BYTES_MAX, RangeDescriptorExt};

use super::chunks::Item;
use crate::error::{Error, Result};
use crate::keys::Span;

/// Separate spans that one transaction may read; a single key is one. As many as it may write,
/// about a hundred megabytes of the client's memory with short keys. Adjacent spans count as one.
pub const TRANSACTION_READS_MAX: usize = 1_000_000;

/// Bytes of the bounds of these spans, for the same reason.
pub const TRANSACTION_READ_BYTES_MAX: usize = 100 * 1024 * 1024;

/// Spans that a transaction has read. Invariant: spans neither overlap nor touch, and `bytes` is
/// the size of their bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ReadSet {
    /// End by start; an empty end is behind every key.
    spans: BTreeMap<Bytes, Bytes>,
    bytes: usize,
}

impl ReadSet {
    pub fn add_key(&mut self, key: &Bytes) -> Result<()> {
        self.add(Span::of_key(key))
    }

    pub fn add(&mut self, span: Span) -> Result<()> {
        if span.is_empty() {
            return Ok(());
        }
        let Span { mut start, mut end } = span;
        let below = (Bound::Unbounded, Bound::Included(&start));
        if let Some((first, reach)) = self.spans.range::<Bytes, _>(below).next_back()
            && (reach.is_empty() || *reach >= start)
        {
            start = first.clone();
        }
        loop {
            let up_to = if end.is_empty() { Bound::Unbounded } else { Bound::Included(&end) };
            let touching = self.spans.range::<Bytes, _>((Bound::Included(&start), up_to)).next();
            let Some((key, reach)) = touching.map(|(key, reach)| (key.clone(), reach.clone()))
            else {
                break;
            };
            self.spans.remove(&key);
            self.bytes -= key.len() + reach.len();
            if !end.is_empty() && (reach.is_empty() || reach > end) {
                end = reach;
            }
        }
        self.bytes += start.len() + end.len();
        self.spans.insert(start, end);
        if self.spans.len() > TRANSACTION_READS_MAX {
            let what = format!("a transaction that reads {} spans", self.spans.len());
            return Err(Error::TooLarge { what, limit: TRANSACTION_READS_MAX as u64 });
        }
        if self.bytes > TRANSACTION_READ_BYTES_MAX {
            let what = format!("a transaction that reads spans of {} bytes", self.bytes);
            return Err(Error::TooLarge { what, limit: TRANSACTION_READ_BYTES_MAX as u64 });
        }
        Ok(())
    }

    /// Start and end of each span, in key order.
    pub fn spans(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.spans.iter()
    }

    /// Returns checks of all spans, in key order, as of one timestamp.
    pub fn into_checks(self, read_ts: u64) -> Vec<Check> {
        let check = |(start, end)| Check { span: Span { start, end }, read_ts };
        self.spans.into_iter().map(check).collect()
    }
}

/// Check that a span is unchanged since `read_ts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub span: Span,
    pub read_ts: u64,
}

impl Check {
    /// Converts the check to the wire, where an empty end stands for a single key. So a span
    /// without an end gets one: the longest key's successor, which no key reaches. For the same
    /// reason the least key stands in for an empty start.
    pub fn to_wire(&self) -> v1::ReadCheck {
        let Span { start, end } = &self.span;
        let is_key = end.len() == start.len() + 1 && end.starts_with(start) && end.ends_with(b"\0");
        let start_key = if start.is_empty() { Bytes::from_static(b"\0") } else { start.clone() };
        let end_key = match (is_key && !start.is_empty(), end.is_empty()) {
            (true, _) => Bytes::new(),
            (_, true) => vec![0xff; KEY_BYTES_MAX + 1].into(),
            _ => end.clone(),
        };
        v1::ReadCheck { start_key, end_key, read_ts: self.read_ts }
    }
}

impl Item for Check {
    fn key(&self) -> &Bytes {
        &self.span.start
    }

    fn bytes(&self) -> usize {
        self.span.start.len() + self.span.end.len()
    }

    fn is_in(&self, range: &RangeDescriptor) -> bool {
        range.covers(&self.span.start, &self.span.end)
    }

    fn cut(self, range: &RangeDescriptor) -> (Self, Option<Self>) {
        if self.is_in(range) {
            return (self, None);
        }
        let Check { span, read_ts } = self;
        let inside = Span { start: span.start, end: range.end_key.clone() };
        let rest = Span { start: range.end_key.clone(), end: span.end };
        (Check { span: inside, read_ts }, Some(Check { span: rest, read_ts }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(read: &[(&'static str, &'static str)]) -> Vec<(Bytes, Bytes)> {
        let mut set = ReadSet::default();
        for (start, end) in read {
            set.add(Span::new(*start, *end)).unwrap();
        }
        let bytes: usize = set.spans.iter().map(|(start, end)| start.len() + end.len()).sum();
        assert_eq!(set.bytes, bytes);
        set.spans.into_iter().collect()
    }

    fn expected(spans: &[(&'static str, &'static str)]) -> Vec<(Bytes, Bytes)> {
        spans.iter().map(|(start, end)| ((*start).into(), (*end).into())).collect()
    }

    #[test]
    fn spans_that_overlap_or_touch_become_one() {
        assert_eq!(spans(&[("b", "c"), ("e", "f")]), expected(&[("b", "c"), ("e", "f")]));
        assert_eq!(spans(&[("b", "c"), ("c", "f")]), expected(&[("b", "f")]));
        assert_eq!(spans(&[("c", "f"), ("b", "c")]), expected(&[("b", "f")]));
        assert_eq!(spans(&[("b", "c"), ("d", "e"), ("a", "z")]), expected(&[("a", "z")]));
        assert_eq!(spans(&[("a", "z"), ("b", "c")]), expected(&[("a", "z")]));
        assert_eq!(spans(&[("b", ""), ("a", "c")]), expected(&[("a", "")]));
        assert_eq!(spans(&[("b", "c"), ("a", "")]), expected(&[("a", "")]));
        assert_eq!(spans(&[("c", "b")]), []);
    }

    #[test]
    fn a_scan_that_grows_row_by_row_stays_one_span() {
        let mut set = ReadSet::default();
        for row in ["b", "bb", "c"] {
            set.add(Span::new("a", format!("{row}\0"))).unwrap();
        }
        set.add_key(&"c".into()).unwrap();
        set.add_key(&"d".into()).unwrap();
        assert_eq!(set.spans.len(), 2);
    }

    #[test]
    fn on_the_wire_a_key_has_no_end_and_a_span_always_has_one() {
        let wire = |start: &'static str, end: &'static str| {
            let check = Check { span: Span::new(start, end), read_ts: 1 }.to_wire();
            (check.start_key, check.end_key.len())
        };
        assert_eq!(wire("k", "k\0"), ("k".into(), 0));
        assert_eq!(wire("k", "l"), ("k".into(), 1));
        assert_eq!(wire("k", ""), ("k".into(), KEY_BYTES_MAX + 1));
        assert_eq!(wire("", "b"), ("\0".into(), 1));
    }

    #[test]
    fn a_check_is_cut_at_the_end_of_a_range() {
        let range =
            RangeDescriptor { start_key: "b".into(), end_key: "d".into(), ..Default::default() };
        let check = |start: &'static str, end: &'static str| Check {
            span: Span::new(start, end),
            read_ts: 1,
        };
        assert_eq!(check("c", "f").cut(&range), (check("c", "d"), Some(check("d", "f"))));
        assert_eq!(check("c", "").cut(&range), (check("c", "d"), Some(check("d", ""))));
        assert_eq!(check("c", "d").cut(&range), (check("c", "d"), None));
    }
}
