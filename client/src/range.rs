//! Scans: rows in key order over any number of ranges, with memory for two pages.
//!
//! A scan is a list of spans still to read. Each page is one request to one range. The part of a
//! span that a page did not reach, behind a bound or in the next range, goes back to the front of
//! the list. The next page is fetched once half of this one is read: a steady reader then does not
//! wait, and a reader that stops early has fetched little too much.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use futures::future::poll_fn;
use rangedb_proto::v1::{self, RangeDescriptor, request, response};
use rangedb_proto::{Timestamp, prefix_end, successor};

use crate::client::{Client, header};
use crate::error::{Error, Result};
use crate::holds::Hold;
use crate::key_value::KeyValue;
use crate::keys::Span;
use crate::locks::resolve::Extent;
use crate::net::BoxFuture;
use crate::routing::router::RouteTarget;
use crate::routing::sender::unexpected_response;

/// Bytes after which a page ends: some milliseconds of network time, so that a scan does not delay
/// other requests on its connection.
const PAGE_BYTES: u64 = 1024 * 1024;

/// Options of a scan: its span, row limit, direction and timestamp, and the omission of values.
///
/// Keys under `_/` belong to the system and are skipped: `RangeOptions::new("", "")` reads all
/// others. A span wholly under `_/` is refused.
#[derive(Clone, Debug)]
pub struct RangeOptions {
    pub(crate) span: Span,
    pub(crate) limit: Option<u64>,
    pub(crate) reverse: bool,
    pub(crate) keys_only: bool,
    pub(crate) read_ts: u64,
}

impl RangeOptions {
    /// Keys from `start` to before `end`; an empty `end` is behind every key.
    pub fn new(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        let span = Span::new(start, end);
        RangeOptions { span, limit: None, reverse: false, keys_only: false, read_ts: 0 }
    }

    /// Every key that starts with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let prefix = prefix.into();
        let end = prefix_end(&prefix);
        Self::new(prefix, end)
    }

    /// Reads at most this many rows; with 0, none.
    pub fn limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Reads from the last key to the first.
    pub fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// Leaves the values out.
    pub fn keys_only(mut self) -> Self {
        self.keys_only = true;
        self
    }

    /// Reads as of a timestamp: one snapshot of all rows. Without a timestamp, each page shows the
    /// newest committed values at the time it is fetched.
    pub fn at(mut self, at: Timestamp) -> Self {
        self.read_ts = at.0;
        self
    }
}

/// Rows of a scan: a [`Stream`], or [`RangeStream::next`] for callers without stream adapters. Ends
/// after the first error. Dropping it ends the scan.
pub struct RangeStream {
    client: Client,
    options: RangeOptions,
    /// Spans still to read, the next one first. Empty while the first page of the last span is in
    /// flight.
    spans: VecDeque<Span>,
    /// Rows still wanted from pages that are not fetched yet.
    wanted: u64,
    /// Rows of the page that is being read.
    rows: std::vec::IntoIter<v1::KeyValue>,
    page_rows: usize,
    next_page: Option<BoxFuture<'static, Result<Page>>>,
    /// The next page, once it has arrived.
    fetched: Option<Result<Page>>,
    /// Keeps the versions at the read timestamp from garbage collection.
    _hold: Option<Hold>,
}

pub(crate) struct Page {
    pub rows: Vec<v1::KeyValue>,
    /// The part of the span that the page did not reach.
    pub rest: Option<Span>,
}

impl RangeStream {
    pub(crate) fn new(client: Client, options: RangeOptions) -> Self {
        let (mut spans, fetched) = match client.view.check_scan(&options.span) {
            Ok(spans) => (spans, None),
            Err(error) => (Vec::new(), Some(Err(error))),
        };
        if options.reverse {
            spans.reverse();
        }
        let _hold = (options.read_ts > 0).then(|| client.holds.hold(options.read_ts));
        RangeStream {
            wanted: options.limit.unwrap_or(u64::MAX),
            client,
            options,
            spans: spans.into(),
            rows: Vec::new().into_iter(),
            page_rows: 0,
            next_page: None,
            fetched,
            _hold,
        }
    }

    /// Returns the next row; none at the end.
    pub async fn next(&mut self) -> Option<Result<KeyValue>> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// Begins to fetch the next page, if there is one and none is in flight.
    fn begin_page(&mut self) {
        if self.next_page.is_some() || self.fetched.is_some() || self.wanted == 0 {
            return;
        }
        if let Some(span) = self.spans.pop_front() {
            let page = fetch(self.client.clone(), self.options.clone(), span, self.wanted);
            self.next_page = Some(Box::pin(page));
        }
    }

    fn on_page(&mut self, page: Page) {
        if let Some(rest) = page.rest {
            self.spans.push_front(rest);
        }
        self.wanted = self.wanted.saturating_sub(page.rows.len() as u64);
        self.page_rows = page.rows.len();
        self.rows = page.rows.into_iter();
    }
}

impl Stream for RangeStream {
    type Item = Result<KeyValue>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let scan = self.get_mut();
        loop {
            if scan.rows.len() <= scan.page_rows / 2 {
                scan.begin_page();
            }
            if let Some(page) = &mut scan.next_page
                && let Poll::Ready(page) = page.as_mut().poll(context)
            {
                scan.next_page = None;
                scan.fetched = Some(page);
            }
            if let Some(row) = scan.rows.next() {
                return Poll::Ready(Some(Ok(row.into())));
            }
            match scan.fetched.take() {
                Some(Ok(page)) => scan.on_page(page),
                Some(Err(error)) => {
                    scan.spans.clear();
                    return Poll::Ready(Some(Err(error)));
                }
                None if scan.next_page.is_some() => return Poll::Pending,
                None => return Poll::Ready(None),
            }
        }
    }
}

/// Fetches one page of a span: from its start, or from its end if the scan is reversed.
pub(crate) async fn fetch(
    client: Client,
    options: RangeOptions,
    span: Span,
    limit: u64,
) -> Result<Page> {
    let build = |descriptor: &RangeDescriptor, read_ts: u64, passed: &[u64]| {
        let part = part_in(descriptor, &span);
        request::Body::Scan(v1::Scan {
            range: Some(header(descriptor)),
            start_key: part.start,
            end_key: part.end,
            limit: if limit == u64::MAX { 0 } else { limit },
            bytes_max: PAGE_BYTES,
            reverse: options.reverse,
            keys_only: options.keys_only,
            read_ts,
            pass_locks_of: passed.to_vec(),
        })
    };
    let target =
        if options.reverse { RouteTarget::Below(&span.end) } else { RouteTarget::Key(&span.start) };
    let deadline = client.deadline();
    let read_ts = options.read_ts;
    let response = client.resolver.read(target, Extent::Page, read_ts, deadline, &build).await?;
    let (descriptor, response::Body::Scan(reply)) = response else {
        return Err(unexpected_response("the range's leader"));
    };
    let part = part_in(&descriptor, &span);
    let inside = |row: &v1::KeyValue| part.holds(&row.key);
    if !reply.kvs.iter().all(inside) || reply.kvs.len() as u64 > limit {
        return Err(unexpected_response("the range's leader"));
    }
    let rest = rest_of(&span, &part, &reply, options.reverse)?;
    Ok(Page { rows: reply.kvs, rest })
}

fn part_in(descriptor: &RangeDescriptor, span: &Span) -> Span {
    span.and(&Span::new(descriptor.start_key.clone(), descriptor.end_key.clone()))
}

/// Rest of `span` after a page of `part`, the portion of `span` in one range.
fn rest_of(span: &Span, part: &Span, reply: &v1::ScanReply, reverse: bool) -> Result<Option<Span>> {
    let edge = match (reply.more, reply.kvs.last()) {
        (false, _) if reverse => part.start.clone(),
        (false, _) => part.end.clone(),
        (true, _) if !reply.resume_key.is_empty() => reply.resume_key.clone(),
        (true, Some(last)) if reverse => last.key.clone(),
        (true, Some(last)) => successor(&last.key).into(),
        (true, None) => return Err(no_progress()),
    };
    // An empty edge is the end of the key space; nothing lies behind it.
    let done = if reverse { edge <= span.start } else { edge.is_empty() };
    if done {
        return Ok(None);
    }
    let rest = if reverse {
        Span::new(span.start.clone(), edge)
    } else {
        Span::new(edge, span.end.clone())
    };
    let progressed =
        if reverse { span.end.is_empty() || rest.end < span.end } else { rest.start > span.start };
    if !progressed {
        return Err(no_progress());
    }
    Ok((!rest.is_empty()).then_some(rest))
}

fn no_progress() -> Error {
    Error::protocol("a page of a scan ended where it began")
}
