//! Scan inside a transaction: rows as of its start, merged with its own writes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::poll_fn;
use futures::{Stream, StreamExt};
use rangedb_proto::Timestamp;

use super::Inner;
use super::buffer::Write;
use super::phases::Phase;
use crate::error::{Error, Result};
use crate::key_value::KeyValue;
use crate::keys::Span;
use crate::range::{RangeOptions, RangeStream};

/// Rows of a scan inside a transaction: a [`Stream`], or [`TransactionRange::next`] for callers
/// without stream adapters. Ends after the first error.
///
/// The scan shows the writes that the transaction had made when the scan was created; later writes
/// are not in it.
pub struct TransactionRange {
    transaction: Arc<Inner>,
    rows: RangeStream,
    /// The next of `rows`, once it has arrived.
    row: Option<KeyValue>,
    rows_ended: bool,
    /// The transaction's own writes that are still ahead, in the order of the scan.
    own: VecDeque<(Bytes, Write)>,
    wanted: u64,
    reverse: bool,
    keys_only: bool,
    /// Spans that the scan reads, without the system's keys.
    pieces: Vec<Span>,
    failed: Option<Error>,
    ended: bool,
    waits_since: Option<Duration>,
}

impl TransactionRange {
    pub(super) fn new(transaction: Arc<Inner>, options: RangeOptions) -> Self {
        let (pieces, mut failed) = match transaction.client.view.check_scan(&options.span) {
            Ok(pieces) => (pieces, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let mut own = VecDeque::new();
        match transaction.open() {
            Ok(state) => own = state.buffer.in_span(&options.span),
            Err(error) => failed = Some(error),
        }
        if options.read_ts != 0 {
            let message = "a transaction reads at its own timestamp";
            failed = Some(Error::invalid("at", message));
        }
        // Rows that the transaction has deleted do not count towards the caller's limit.
        let deleted = own.iter().filter(|(_, write)| *write == Write::Delete).count() as u64;
        let wanted = options.limit.unwrap_or(u64::MAX);
        let (reverse, keys_only) = (options.reverse, options.keys_only);
        if reverse {
            own = own.into_iter().rev().collect();
        }
        let mut below = options.at(Timestamp(transaction.start_ts()));
        if wanted != u64::MAX {
            below = below.limit(wanted.saturating_add(deleted));
        }
        let rows = RangeStream::new(transaction.client.clone(), below);
        TransactionRange {
            transaction,
            rows,
            row: None,
            rows_ended: false,
            own,
            wanted,
            reverse,
            keys_only,
            pieces,
            failed,
            ended: false,
            waits_since: None,
        }
    }

    /// Returns the next row; none at the end.
    pub async fn next(&mut self) -> Option<Result<KeyValue>> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    fn poll_row(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<KeyValue>>> {
        loop {
            if self.row.is_none() && !self.rows_ended {
                let polled = self.rows.poll_next_unpin(context);
                self.note_time(polled.is_pending());
                match polled {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(None) => self.rows_ended = true,
                    Poll::Ready(Some(row)) => self.row = Some(row?),
                }
            }
            if let Some(row) = self.step() {
                return Poll::Ready(Ok(row));
            }
        }
    }

    fn note_time(&mut self, waits: bool) {
        if waits || self.waits_since.is_some() {
            let now = self.transaction.client.sender.net.now();
            let since = *self.waits_since.get_or_insert(now);
            if !waits {
                self.waits_since = None;
                self.transaction.phases.add(Phase::Reads, now.saturating_sub(since));
            }
        }
    }

    /// Returns the nearer of the next row and the next own write. Outer none: a deleted key was
    /// skipped; inner none: the end.
    fn step(&mut self) -> Option<Option<KeyValue>> {
        let own_first = match (&self.row, self.own.front()) {
            (None, None) => return Some(None),
            (Some(_), None) => false,
            (None, Some(_)) => true,
            (Some(row), Some((key, _))) if row.key == *key => {
                self.row = None;
                true
            }
            (Some(row), Some((key, _))) => (*key < row.key) != self.reverse,
        };
        if !own_first {
            return Some(self.row.take());
        }
        let (key, write) = self.own.pop_front().expect("looked at just now");
        let mut row = write.row(&key)?;
        if self.keys_only {
            row.value = Bytes::new();
        }
        Some(Some(row))
    }

    /// Adds to the read set everything up to this row, or (none) to the end, including that there
    /// is nothing else up to there.
    fn remember(&self, row: Option<&KeyValue>) -> Result<()> {
        if !self.transaction.remembers_reads() {
            return Ok(());
        }
        let read = match row {
            None => Span::new(Bytes::new(), Bytes::new()),
            Some(row) if self.reverse => Span::new(row.key.clone(), Bytes::new()),
            Some(row) => Span::new(Bytes::new(), Span::of_key(&row.key).end),
        };
        let mut state = self.transaction.open()?;
        self.pieces.iter().try_for_each(|piece| state.reads.add(piece.and(&read)))
    }

    fn end_with(&mut self, error: Option<Error>) -> Poll<Option<Result<KeyValue>>> {
        self.ended = true;
        Poll::Ready(error.map(Err))
    }
}

impl Stream for TransactionRange {
    type Item = Result<KeyValue>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let scan = self.get_mut();
        if scan.ended || scan.wanted == 0 {
            return scan.end_with(None);
        }
        if let Some(error) = scan.failed.take() {
            return scan.end_with(Some(error));
        }
        let row = match scan.poll_row(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return scan.end_with(Some(error)),
            Poll::Ready(Ok(row)) => row,
        };
        if let Err(error) = scan.remember(row.as_ref()) {
            return scan.end_with(Some(error));
        }
        match row {
            None => scan.end_with(None),
            Some(row) => {
                scan.wanted -= 1;
                Poll::Ready(Some(Ok(row)))
            }
        }
    }
}
