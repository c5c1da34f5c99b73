//! [`Net`] inside the world: calls over the simulated network, sleep on the host's own clock.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::{Either, select};
use parking_lot::Mutex;
use rangedb_client::net::{BoxFuture, CallError, Net};
use rangedb_proto::v1::{request, response};
use rangedb_server::node::CallerKind;

use crate::check::Watch;
use crate::check::floor::Held;
use crate::clock::{Clock, true_millis};
use crate::executor::Sleep;
use crate::occurrence::{Host, Occurrence};
use crate::schedule::{MILLISECOND, Micros, Schedule};

const PEER_PORT: &str = "8080";
const CLIENT_PORT: &str = "8081";

/// Least true time in a millisecond of a hold's life, in microseconds: the clock that counts it may
/// run fast.
const SAFE_MILLI: Micros = 940;

/// Maximum time until a broken connection is noticed.
const BREAK_NOTICED_MAX: Micros = 20 * MILLISECOND;

pub fn peer_address(slot: usize) -> String {
    format!("node-{slot}:{PEER_PORT}")
}

pub fn client_address(slot: usize) -> String {
    format!("node-{slot}:{CLIENT_PORT}")
}

/// The slot that an address names.
pub fn slot_of(address: &str) -> Option<usize> {
    address.strip_prefix("node-")?.split_once(':')?.0.parse().ok()
}

type CallResult = Result<response::Body, CallError>;

#[derive(Default)]
struct CallState {
    result: Option<CallResult>,
    waker: Option<Waker>,
}

/// A call that waits for its result.
#[derive(Clone, Default)]
pub struct PendingCall(Arc<Mutex<CallState>>);

impl PendingCall {
    pub fn complete(&self, result: CallResult) {
        let waker = {
            let mut state = self.0.lock();
            state.result.get_or_insert(result);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Future for PendingCall {
    type Output = CallResult;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<CallResult> {
        let mut state = self.0.lock();
        match state.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Callee's end of a call. Dropping it without an answer breaks the connection.
pub struct Responder {
    call: PendingCall,
    schedule: Schedule,
    caller: Host,
    /// Places of the callee and the caller in the network.
    link: (usize, usize),
    answered: bool,
}

impl Responder {
    /// Returns the kind of the caller. A node that is about to join counts as a node.
    pub fn caller_kind(&self) -> CallerKind {
        match self.caller {
            Host::Client { .. } => CallerKind::User,
            _ => CallerKind::Node,
        }
    }

    /// Sends an answer, which may be lost.
    pub fn answer(mut self, body: response::Body) {
        let answer = Occurrence::Return { call: self.call.clone(), result: Ok(body) };
        // A lost answer breaks the connection: `drop` reports the break if nothing was answered.
        self.answered = self.schedule.send(self.link.0, self.link.1, self.caller, answer);
    }

    /// Refuses the request before it is read. The caller learns of it, unless the refusal is lost.
    pub fn refuse(mut self, reason: &str) {
        self.answered = true;
        let result = Err(CallError::NotSent(reason.to_owned()));
        let answer = Occurrence::Return { call: self.call.clone(), result };
        self.schedule.send(self.link.0, self.link.1, self.caller, answer);
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.answered {
            let (from, to) = self.link;
            if self.schedule.network(|network, _| network.is_cut(from, to)) {
                // A cut link reports nothing: the caller's time runs out.
                return;
            }
            let result = Err(CallError::Lost("the connection broke".to_owned()));
            let noticed = self.schedule.between(0, BREAK_NOTICED_MAX);
            let call = self.call.clone();
            self.schedule.after(noticed, self.caller, Occurrence::Return { call, result });
        }
    }
}

/// Network, clock and randomness of the world, as the code of one host sees them.
pub struct SimNet {
    pub host: Host,
    pub clock: Clock,
    pub schedule: Schedule,
    pub watch: Watch,
    /// Number of nodes in the world. In the network, the places of clients follow those of nodes.
    pub slots: usize,
}

impl SimNet {
    async fn call_slot(
        &self,
        slot: usize,
        request: request::Body,
        timeout: Duration,
    ) -> CallResult {
        let timeout_us = timeout.as_micros() as Micros;
        let call = PendingCall::default();
        let from = self.host.place(self.slots);
        let responder = Responder {
            call: call.clone(),
            schedule: self.schedule.clone(),
            caller: self.host,
            link: (slot, from),
            answered: false,
        };
        if self.schedule.network(|network, _| network.is_cut(from, slot)) {
            self.no_connection(timeout_us, responder);
        } else {
            let request = Occurrence::Call { request, timeout_us, responder };
            self.schedule.send(from, slot, Host::Slot(slot), request);
        }
        match select(call, self.sleep(timeout)).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(CallError::Lost("no answer in time".to_owned())),
        }
    }

    /// Notes that a client asks for a hold. Once the request is answered, the hold is in force.
    fn told_by_client(&self, request: &request::Body, asked: u64) -> Option<Held> {
        let (request::Body::HoldFloor(hold), Host::Client { .. }) = (request, self.host) else {
            return None;
        };
        let (name, timestamp, now) = (hold.name.clone(), hold.timestamp, self.schedule.now());
        let held =
            Held { name, timestamp, asked, until: now + u64::from(hold.ttl_ms) * SAFE_MILLI };
        self.watch.note(|checks| checks.floor.asked_for(&held));
        Some(held)
    }

    /// Fails a call over a cut link. Half of the time the caller had a connection: the request is
    /// lost, and the call times out. Otherwise no connection can be made, which takes its time.
    fn no_connection(&self, timeout_us: Micros, mut responder: Responder) {
        responder.answered = true;
        let noticed = self.schedule.between(1, 2 * timeout_us.max(1));
        let result = Err(CallError::NotSent("no connection".to_owned()));
        let call = responder.call.clone();
        self.schedule.after(noticed, self.host, Occurrence::Return { call, result });
    }
}

impl Net for SimNet {
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: request::Body,
        timeout: Duration,
    ) -> BoxFuture<'a, CallResult> {
        Box::pin(async move {
            let Some(slot) = slot_of(address) else {
                return Err(CallError::NotSent(format!("no host is called {address}")));
            };
            let wanted = matches!(request, request::Body::Timestamps(_));
            let asked = self.schedule.stamp();
            let hold = self.told_by_client(&request, asked);
            let result = self.call_slot(slot, request, timeout).await;
            if let (Some(hold), Ok(response::Body::HoldFloor(_))) = (hold, &result) {
                self.watch.note(|checks| checks.floor.held(hold));
            }
            if let (true, Ok(response::Body::Timestamps(reply))) = (wanted, &result) {
                let received = self.schedule.stamp();
                self.watch.note(|checks| checks.timestamps.received(asked, received, reply));
                let true_ms = true_millis(&self.schedule);
                self.watch.note(|checks| checks.timestamps.at(true_ms, reply));
            }
            result
        })
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let micros = self.clock.until(duration.as_micros() as Micros);
        Box::pin(Sleep::new(&self.schedule, self.host, micros))
    }

    fn now(&self) -> Duration {
        self.clock.duration(self.schedule.now())
    }

    fn random_below(&self, bound: u64) -> u64 {
        self.schedule.random(|rng| rng.u64(0..bound))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.schedule.after(0, self.host, Occurrence::Spawn(task));
    }
}
