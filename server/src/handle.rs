//! Access to a node's stores for everything that waits for an answer: events go in, futures come
//! out.
//!
//! Bound to no runtime: the production driver and the simulator both take events from the
//! [`EventSink`]s. They hand effects that answer a request to [`StoreHandle::complete`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::channel::oneshot;
use prost::Message;
use rangedb_proto::RangeId;
use rangedb_proto::v1::{Command, RangeDescriptor, RangeOperation};
use rangedb_raftstore::{Effect, Error, Event, Monotonic, RangeRef, ReadMode, RequestId, Shard};
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

enum Answer {
    Reply(Bytes),
    Read(ReadView),
    /// The lease ran out before the reader could be used.
    LeaseExpired,
}

type Waiter = oneshot::Sender<Result<Answer, Error>>;

/// Number of locks over which the waiting requests are spread.
const WAITER_SHARDS: usize = 16;

/// Access to a node's stores. Cheap to clone.
#[derive(Clone)]
pub struct StoreHandle(Arc<Inner>);

struct Inner {
    sinks: Vec<Arc<dyn EventSink>>,
    last_request: AtomicU64,
    waiters: [Mutex<BTreeMap<RequestId, Waiter>>; WAITER_SHARDS],
}

impl StoreHandle {
    /// Takes the stores by shard index. A range belongs to the shard `range id % number of stores`.
    pub fn new(sinks: Vec<Arc<dyn EventSink>>) -> Self {
        assert!(!sinks.is_empty(), "a node has at least one store");
        StoreHandle(Arc::new(Inner {
            sinks,
            last_request: AtomicU64::new(0),
            waiters: Default::default(),
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
        match self.ask(range.id, event).await? {
            Answer::Reply(reply) => Ok(reply),
            Answer::Read(_) | Answer::LeaseExpired => unreachable!("a proposal is not read"),
        }
    }

    /// Returns a reader that shows everything that the read must see. If the lease ran out
    /// meanwhile, the read is repeated with a confirmation by a quorum.
    pub async fn read(&self, range: RangeRef, at: ReadMode) -> Result<ReadView, Error> {
        let mut confirm = false;
        loop {
            match self.ask(range.id, |request| Event::Read { request, range, at, confirm }).await? {
                Answer::Read(view) => return Ok(view),
                Answer::LeaseExpired => confirm = true,
                Answer::Reply(_) => unreachable!("a read is not replied to"),
            }
        }
    }

    /// Carries out a step of the scheduler. Returns once the step took effect.
    pub async fn operate(&self, operation: RangeOperation) -> Result<(), Error> {
        let range = RangeId(operation.range_id);
        self.ask(range, |request| Event::Operate { request, operation }).await.map(drop)
    }

    /// Makes the entry at which the range's replica stands have no effect. Returns once the replica
    /// goes on.
    pub async fn skip_entry(&self, range: RangeId, index: u64) -> Result<(), Error> {
        self.ask(range, |request| Event::SkipEntry { request, range, index }).await.map(drop)
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

    /// Hands an effect that answers a request to the future that waits for it. Returns other
    /// effects. The caller must read `now` after the effect came out of the store.
    pub fn complete(&self, effect: Effect, now: Monotonic) -> Option<Effect> {
        match effect {
            Effect::Reply { request, result } => {
                self.reply(request, result);
                None
            }
            Effect::ReadReady { request, reader, descriptor, lease_until } => {
                let expired = lease_until.is_some_and(|until| until <= now);
                let view = ReadView { reader, descriptor };
                let answer = if expired { Answer::LeaseExpired } else { Answer::Read(view) };
                self.answer(request, Ok(answer));
                None
            }
            other => Some(other),
        }
    }

    /// Completes the future that waits for the request.
    pub fn reply(&self, request: RequestId, result: Result<Bytes, Error>) {
        self.answer(request, result.map(Answer::Reply));
    }

    fn sink(&self, range: RangeId) -> &Arc<dyn EventSink> {
        &self.0.sinks[Shard::of(range, self.0.sinks.len()).place()]
    }

    async fn ask(
        &self,
        range: RangeId,
        event: impl FnOnce(RequestId) -> Event,
    ) -> Result<Answer, Error> {
        let request = self.0.last_request.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = oneshot::channel();
        self.waiters(request).lock().expect("no panic holds it").insert(request, sender);
        let forget = Forget { handle: self, request };
        if self.sink(range).send(event(request)).is_err() {
            return Err(Error::TooBusy { range, reason: "the store's queue is full" });
        }
        let answer = receiver.await;
        drop(forget);
        // The sender is dropped unused only when the node is being taken down.
        answer.unwrap_or(Err(Error::Undetermined(range)))
    }

    fn answer(&self, request: RequestId, result: Result<Answer, Error>) {
        let waiter = self.waiters(request).lock().expect("no panic holds it").remove(&request);
        if let Some(waiter) = waiter {
            // The future may have been dropped meanwhile.
            let _ = waiter.send(result);
        }
    }

    fn waiters(&self, request: RequestId) -> &Mutex<BTreeMap<RequestId, Waiter>> {
        &self.0.waiters[(request % WAITER_SHARDS as u64) as usize]
    }
}

/// Forgets a request whose future was dropped or is answered.
struct Forget<'a> {
    handle: &'a StoreHandle,
    request: RequestId,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        let mut waiters = self.handle.waiters(self.request).lock().expect("no panic holds it");
        waiters.remove(&self.request);
    }
}
