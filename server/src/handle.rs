//! Access to a node's stores for everything that waits for an answer: events go in, futures come
//! out.
//!
//! Bound to no runtime: the production driver and the simulator both take events from the
//! [`EventSink`]s, and hand answers to [`StoreHandle::answer`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::channel::oneshot;
use parking_lot::{Mutex, MutexGuard};
use prost::Message;
use rangedb_proto::RangeId;
use rangedb_proto::v1::{Command, RangeDescriptor, RangeOperation};
use rangedb_raftstore::{
    Answer, Error, Event, Monotonic, RangeRef, ReadGrant, ReadMode, RequestId, Shard,
};
use rangedb_storage::Reader;
use rangedb_txn::facts;

/// Input queue of a store for its events.
pub trait EventSink: Send + Sync {
    /// Gives the event back if the store's queue is full or the store has stopped.
    fn send(&self, event: Event) -> Result<(), Event>;
}

/// A reader of the state as of the read, and the range's descriptor then.
pub struct ReadView {
    pub reader: Arc<dyn Reader>,
    pub descriptor: Arc<RangeDescriptor>,
}

/// Result of a read under a lease that may have run out.
enum Leased {
    View(ReadView),
    /// The lease ran out before the reader could be used.
    Expired,
}

/// Number of locks over which the waiting requests are spread.
const WAITER_SHARDS: usize = 16;

/// Requests that wait for answers of one type.
struct Waiters<T>([Mutex<BTreeMap<RequestId, Waiter<T>>>; WAITER_SHARDS]);

type Waiter<T> = oneshot::Sender<Result<T, Error>>;

/// Access to a node's stores. Cheap to clone.
#[derive(Clone)]
pub struct StoreHandle(Arc<Inner>);

struct Inner {
    sinks: Vec<Arc<dyn EventSink>>,
    last_request: AtomicU64,
    replies: Waiters<Bytes>,
    reads: Waiters<Leased>,
}

impl StoreHandle {
    /// Takes the stores by shard index. A range belongs to the shard `range id % number of stores`.
    pub fn new(sinks: Vec<Arc<dyn EventSink>>) -> Self {
        assert!(!sinks.is_empty(), "a node has at least one store");
        StoreHandle(Arc::new(Inner {
            sinks,
            last_request: AtomicU64::new(0),
            replies: Waiters::default(),
            reads: Waiters::default(),
        }))
    }

    /// Replicates a command. Returns the state machine's reply once the command is applied.
    ///
    /// Dropping the future does not take the command back.
    pub async fn propose(&self, range: RangeRef, command: &Command) -> Result<Bytes, Error> {
        // A command of an unknown kind is refused before it touches anything.
        let cost = command.body.as_ref().map(|body| facts(body).cost()).unwrap_or_default();
        let command = command.encode_to_vec().into();
        let event = |request| Event::Propose {
            request,
            range,
            command,
            cost: cost.records,
            frees_space: cost.frees_space,
        };
        self.ask(&self.0.replies, range.id, event).await
    }

    /// Returns a reader that shows everything that the read must see. If the lease ran out
    /// meanwhile, the read is repeated with a confirmation by a quorum.
    pub async fn read(&self, range: RangeRef, at: ReadMode) -> Result<ReadView, Error> {
        let mut confirm = false;
        loop {
            let read = |request| Event::Read { request, range, at, confirm };
            match self.ask(&self.0.reads, range.id, read).await? {
                Leased::View(view) => return Ok(view),
                Leased::Expired => confirm = true,
            }
        }
    }

    /// Carries out a step of the scheduler. Returns once the step took effect.
    pub async fn operate(&self, operation: RangeOperation) -> Result<(), Error> {
        let range = RangeId(operation.range_id);
        let operate = |request| Event::Operate { request, operation };
        self.ask(&self.0.replies, range, operate).await.map(drop)
    }

    /// Makes the entry at which the range's replica stands have no effect. Returns once the replica
    /// goes on.
    pub async fn skip_entry(&self, range: RangeId, index: u64) -> Result<(), Error> {
        let skip = |request| Event::SkipEntry { request, range, index };
        self.ask(&self.0.replies, range, skip).await.map(drop)
    }

    /// Sends an event that has no answer. False if the store could not take it.
    pub fn send(&self, range: RangeId, event: Event) -> bool {
        self.sink(range).send(event).is_ok()
    }

    /// Sends the same event to every store, for events that no store's queue refuses. A store that has
    /// stopped does not get it.
    pub fn send_to_all(&self, event: &Event) {
        for sink in &self.0.sinks {
            let _ = sink.send(event.clone());
        }
    }

    /// Hands an answer to the future that waits for it. The caller must read `now` after the answer
    /// came out of the store.
    pub fn answer(&self, answer: Answer, now: Monotonic) {
        match answer {
            Answer::Reply { request, result } => self.reply(request, result),
            Answer::Read { request, result } => {
                let leased = result.map(|grant| {
                    let ReadGrant { reader, descriptor, lease_until } = grant;
                    match lease_until.is_some_and(|until| until <= now) {
                        true => Leased::Expired,
                        false => Leased::View(ReadView { reader, descriptor }),
                    }
                });
                self.0.reads.complete(request, leased);
            }
        }
    }

    /// Completes the future that waits for the reply.
    pub fn reply(&self, request: RequestId, result: Result<Bytes, Error>) {
        self.0.replies.complete(request, result);
    }

    fn sink(&self, range: RangeId) -> &Arc<dyn EventSink> {
        &self.0.sinks[Shard::of(range, self.0.sinks.len()).place()]
    }

    async fn ask<T>(
        &self,
        waiters: &Waiters<T>,
        range: RangeId,
        event: impl FnOnce(RequestId) -> Event,
    ) -> Result<T, Error> {
        let request = self.0.last_request.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = oneshot::channel();
        waiters.of(request).insert(request, sender);
        let forget = Forget { waiters, request };
        if self.sink(range).send(event(request)).is_err() {
            return Err(Error::TooBusy { range, reason: "the store's queue is full" });
        }
        let answer = receiver.await;
        drop(forget);
        // The sender is dropped unused only when the node is being taken down.
        answer.unwrap_or(Err(Error::Undetermined(range)))
    }
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Waiters(std::array::from_fn(|_| Mutex::default()))
    }
}

impl<T> Waiters<T> {
    fn of(&self, request: RequestId) -> MutexGuard<'_, BTreeMap<RequestId, Waiter<T>>> {
        let shard = &self.0[(request % WAITER_SHARDS as u64) as usize];
        shard.lock()
    }

    fn complete(&self, request: RequestId, result: Result<T, Error>) {
        let waiter = self.of(request).remove(&request);
        if let Some(waiter) = waiter {
            // The future may have been dropped meanwhile.
            let _ = waiter.send(result);
        }
    }
}

/// Forgets a request whose future was dropped or is answered.
struct Forget<'a, T> {
    waiters: &'a Waiters<T>,
    request: RequestId,
}

impl<T> Drop for Forget<'_, T> {
    fn drop(&mut self) {
        self.waiters.of(self.request).remove(&self.request);
    }
}
