//! Delete of a span of any size, as a sequence of bounded steps.
//!
//! A range only takes commands of bounded cost, because a command delays all other requests of the
//! range while it is evaluated. So a span that holds more than one command may delete is deleted
//! page by page. The keys of a page are read, and one commit in their range deletes them; a page
//! without keys only advances. A page is also bounded in the records that it reads, so a span that
//! holds only remains of deleted keys takes the same steps.

use std::time::Duration;

use bytes::Bytes;
use rangedb_proto::Timestamp;
use rangedb_proto::v1::{self, operation};

use crate::client::Client;
use crate::error::{Error, Result};
use crate::keys::Span;
use crate::one_range;
use crate::range::{self, RangeOptions};

/// Keys of one step. Far fewer than a range takes in one command, because all other work that its
/// node applies waits for the step: with sixteen times as many keys, concurrent puts to other
/// ranges took five times as long.
const STEP_KEYS_MAX: u64 = 64;

/// Result of a delete of a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeletedRange {
    /// Keys that had a value and now have none.
    pub deleted: u64,
    /// Commit timestamp of the last deletes. For an empty span, a timestamp at which it was empty.
    pub commit_ts: Timestamp,
    /// Number of commits. With one, all deletes happened at once.
    pub commits: u64,
}

pub(crate) async fn delete_range(client: &Client, span: Span) -> Result<DeletedRange> {
    client.view.check_delete_range(&span)?;
    let deadline = client.deadline();
    let whole = vec![operation::Body::DeleteRange(v1::DeleteRange {
        start_key: span.start.clone(),
        end_key: span.end.clone(),
    })];
    let mut done = DeletedRange::default();
    if done.commit(client, whole, &span, deadline).await? {
        return Ok(done);
    }
    let mut left = Some(span);
    while let Some(span) = left {
        match done.step(client, &span, deadline).await {
            Ok(rest) => left = rest,
            Err(error) => return Err(done.so_far(error, &span.start)),
        }
    }
    if done.commits == 0 {
        done.commit_ts = client.timestamps.next(deadline).await?;
    }
    Ok(done)
}

impl DeletedRange {
    /// Deletes the keys of one page of the span. Returns the rest of the span.
    async fn step(
        &mut self,
        client: &Client,
        span: &Span,
        deadline: Duration,
    ) -> Result<Option<Span>> {
        loop {
            let left = deadline.saturating_sub(client.sender.net.now());
            let options = RangeOptions::new(span.start.clone(), span.end.clone()).keys_only();
            let page =
                range::fetch(client.with_timeout(left), options, span.clone(), STEP_KEYS_MAX);
            let page = page.await?;
            let keys: Vec<Bytes> = page.rows.into_iter().map(|row| row.key).collect();
            let (Some(first), Some(last)) = (keys.first(), keys.last()) else {
                return Ok(page.rest);
            };
            let hull = Span::of_key(first).hull(Span::of_key(last));
            let delete = |key| operation::Body::Delete(v1::Delete { key });
            let deletes = keys.into_iter().map(delete).collect();
            if self.commit(client, deletes, &hull, deadline).await? {
                return Ok(page.rest);
            }
            // The range split after the page was read: the next page is of a smaller range.
        }
    }

    /// Commits the operations in one range. False if the keys do not lie in one range, or are too
    /// many for one command; then nothing was done.
    async fn commit(
        &mut self,
        client: &Client,
        operations: Vec<operation::Body>,
        hull: &Span,
        deadline: Duration,
    ) -> Result<bool> {
        let operation = |body| v1::Operation { body: Some(body) };
        let operations = operations.into_iter().map(operation).collect();
        let command = v1::CommitOneRange { operations, ..Default::default() };
        let Some(committed) = one_range::commit(client, command, hull, deadline).await? else {
            return Ok(false);
        };
        self.deleted += committed.results.iter().map(|result| result.deleted).sum::<u64>();
        self.commit_ts = Timestamp(committed.commit_ts);
        self.commits += 1;
        Ok(true)
    }

    /// Adds the progress so far to the error of a step. Repeating the request continues from there.
    fn so_far(&self, error: Error, next: &Bytes) -> Error {
        let with_progress = |message: String| {
            let (deleted, next) = (self.deleted, next.escape_ascii());
            format!("{deleted} keys are deleted, all in front of \"{next}\"; then: {message}")
        };
        match error {
            _ if self.commits == 0 => error,
            Error::Unavailable(message) => Error::Unavailable(with_progress(message)),
            Error::Undetermined(message) => Error::Undetermined(with_progress(message)),
            Error::DiskFull(message) => Error::DiskFull(with_progress(message)),
            Error::TooBusy { message, retry_after } => {
                Error::TooBusy { message: with_progress(message), retry_after }
            }
            Error::Corruption { message, file } => {
                Error::Corruption { message: with_progress(message), file }
            }
            error => error,
        }
    }
}
