//! Chunks of a transaction: commands for one range each, of bounded size, few in flight at a time.
//!
//! Ranges change while a transaction is under way. The sender of a chunk notices, because its
//! request is never sent to a range that does not hold the whole chunk. It then returns the chunk,
//! to be cut again.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::RangeDescriptor;

use rangedb_proto::limits::COMMAND_ITEMS_MAX;

use crate::error::Result;
use crate::net::BoxFuture;
use crate::routing::router::RouteTarget;
use crate::routing::sender::Sender;

/// Bytes of one chunk: large enough that its round trip no longer dominates its cost, small enough
/// that a large transaction does not block the log that it shares with others. A single larger item
/// makes a chunk of its own.
const CHUNK_BYTES_MAX: usize = 1024 * 1024;

/// Chunks of one transaction in flight at once; with their bytes, the window of a large
/// transaction.
const CHUNKS_IN_FLIGHT: usize = 8;

/// Part of a transaction that belongs to a key.
pub(crate) trait Item: Sized {
    fn key(&self) -> &Bytes;

    /// Bytes that the item adds to a command.
    fn bytes(&self) -> usize;

    /// True if all of the item lies in the range.
    fn is_in(&self, range: &RangeDescriptor) -> bool {
        range.contains(self.key())
    }

    /// Splits the item into the part in the range that holds its key, and the rest behind that
    /// range.
    fn cut(self, _range: &RangeDescriptor) -> (Self, Option<Self>) {
        (self, None)
    }
}

impl Item for Bytes {
    fn key(&self) -> &Bytes {
        self
    }

    fn bytes(&self) -> usize {
        self.len()
    }
}

/// Outcome of sending a chunk.
pub(crate) enum Sent<T, R> {
    Done(R),
    /// The chunk's range changed; these are the chunk's items.
    Regroup(Vec<T>),
}

/// Sends items, which are in key order, chunk by chunk. Ends with the first error, and gives up the
/// chunks in flight.
pub(crate) async fn send_all<'a, T, R, F>(
    sender: &Sender,
    items: Vec<T>,
    deadline: Duration,
    send: impl Fn(Vec<T>) -> F,
) -> Result<Vec<R>>
where
    T: Item + Send + 'a,
    R: Send + 'a,
    F: Future<Output = Result<Sent<T, R>>> + Send + 'a,
{
    let mut results = Vec::new();
    let mut left = items;
    while !left.is_empty() {
        let chunks = group(sender, left, deadline).await?;
        left = Vec::new();
        let sends: Vec<BoxFuture<'a, Result<Sent<T, R>>>> =
            chunks.into_iter().map(|chunk| Box::pin(send(chunk)) as BoxFuture<'a, _>).collect();
        let mut sends = stream::iter(sends).buffer_unordered(CHUNKS_IN_FLIGHT);
        while let Some(sent) = sends.try_next().await? {
            match sent {
                Sent::Done(result) => results.push(result),
                Sent::Regroup(items) => left.extend(items),
            }
        }
        left.sort_by(|a, b| a.key().cmp(b.key()));
    }
    Ok(results)
}

/// Groups items, which are in key order, into chunks by the known ranges.
async fn group<T: Item>(sender: &Sender, items: Vec<T>, deadline: Duration) -> Result<Vec<Vec<T>>> {
    let mut chunks: Vec<Vec<T>> = Vec::new();
    let mut range: Option<Arc<RangeDescriptor>> = None;
    let mut chunk: Vec<T> = Vec::new();
    let mut room = CHUNK_BYTES_MAX;
    let mut left: VecDeque<T> = items.into();
    while let Some(item) = left.pop_front() {
        let known = range.as_ref().filter(|range| range.contains(item.key()));
        let fits = known.is_some() && item.bytes() <= room && chunk.len() < COMMAND_ITEMS_MAX;
        let holder = match known {
            Some(range) => range.clone(),
            None => sender.locate(RouteTarget::Key(item.key()), deadline).await?,
        };
        if !fits {
            chunks.push(std::mem::take(&mut chunk));
            room = CHUNK_BYTES_MAX;
        }
        let (item, rest) = item.cut(&holder);
        room = room.saturating_sub(item.bytes());
        chunk.push(item);
        if let Some(rest) = rest {
            left.push_front(rest);
        }
        range = Some(holder);
    }
    chunks.push(chunk);
    chunks.retain(|chunk| !chunk.is_empty());
    Ok(chunks)
}

/// Time for `items` items, if each chunk may take `chunk_timeout` and chunks go one after the
/// other. Background work after a transaction may take as long as the transaction is large.
pub(crate) fn time_for(items: usize, chunk_timeout: Duration) -> Duration {
    // Items that are large, each a chunk of its own, are few.
    let chunks = items / COMMAND_ITEMS_MAX + 2 * CHUNKS_IN_FLIGHT;
    chunk_timeout.saturating_mul(u32::try_from(chunks).unwrap_or(u32::MAX))
}

/// The first items of a sorted slice that one command to this range may name.
pub(crate) fn first_chunk<'a, T: Item>(items: &'a [T], range: &RangeDescriptor) -> &'a [T] {
    let mut room = CHUNK_BYTES_MAX;
    let fits = |item: &&T| {
        let fits = item.is_in(range) && item.bytes() <= room;
        room = room.saturating_sub(item.bytes());
        fits
    };
    let count = items.iter().take(COMMAND_ITEMS_MAX).take_while(fits).count();
    &items[..count]
}
