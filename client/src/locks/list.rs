//! Listing of the locks that stand in the ranges, for operators who look for the transaction that
//! blocks others.

use bytes::Bytes;
use futures::{Stream, TryStreamExt, stream};
use rangedb_proto::prefix_end;
use rangedb_proto::v1::{self, RangeDescriptor, request, response};

use crate::admin::Admin;
use crate::client::{Client, header};
use crate::error::{Error, Result};
use crate::keys::Span;
use crate::routing::retry::{Retry, RetrySafety};
use crate::routing::router::RouteTarget;
use crate::routing::sender::{Reached, unexpected_response};

/// Locks in one page of a listing.
const PAGE_LOCKS: u64 = 500;

impl Admin<'_> {
    /// Lists locks on keys that start with `prefix`, in key order, page by page. Each page shows
    /// its range at the time when the page is fetched.
    pub fn locks(&self, prefix: &[u8]) -> impl Stream<Item = Result<v1::LockInfo>> + Send + use<> {
        let prefix = Bytes::copy_from_slice(prefix);
        let end = prefix_end(&prefix);
        // No lock stands under `_/`, and only the system may look there.
        let pieces = self.client.view.check_scan(&Span::new(prefix, end)).map(|mut pieces| {
            pieces.reverse();
            pieces
        });
        let start = (self.client.clone(), pieces);
        let pages = stream::try_unfold(start, |(client, pieces)| async move {
            let mut pieces = pieces?;
            let Some(span) = pieces.pop() else { return Ok::<_, Error>(None) };
            let (locks, rest) = page(&client, span).await?;
            pieces.extend(rest);
            Ok(Some((stream::iter(locks.into_iter().map(Ok::<_, Error>)), (client, Ok(pieces)))))
        });
        pages.try_flatten()
    }
}

/// Returns the first locks of a span, and the rest of the span behind them.
async fn page(client: &Client, span: Span) -> Result<(Vec<v1::LockInfo>, Option<Span>)> {
    let build = |range: &RangeDescriptor| {
        let part = span.and(&Span::new(range.start_key.clone(), range.end_key.clone()));
        request::Body::ListLocks(v1::ListLocks {
            range: Some(header(range)),
            start_key: part.start,
            end_key: part.end,
            limit: PAGE_LOCKS,
            started_below_ts: 0,
        })
    };
    let sender = &client.sender;
    let mut retry = Retry::new(&*sender.net, RetrySafety::Repeatable, client.deadline());
    let response = sender.to_range(RouteTarget::Key(&span.start), &build, &mut retry).await?;
    let (range, Reached::Response(response::Body::ListLocks(reply))) = response else {
        return Err(unexpected_response("the range's leader"));
    };
    let next = match reply.resume_key.is_empty() {
        true => range.end_key.clone(),
        false => reply.resume_key,
    };
    if next.is_empty() {
        return Ok((reply.locks, None));
    }
    if next <= span.start {
        return Err(Error::protocol("a page of locks ended where it began"));
    }
    let rest = Span::new(next, span.end);
    Ok((reply.locks, (!rest.is_empty()).then_some(rest)))
}
