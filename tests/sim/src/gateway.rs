//! Clients without the SDK: they ask a node, and its gateway coordinates for them. If the node ends
//! in the middle, or the answer is lost, the outcome is unknown to the client.

use std::sync::Arc;

use futures::channel::oneshot;
use futures::future::{Either, select};
use parking_lot::Mutex;
use rangedb_client::{Client, Error, Result};

use crate::executor::Sleep;
use crate::occurrence::{Host, Occurrence};
use crate::schedule::{Micros, SECOND, Schedule};

/// Time for which a client waits beyond the gateway's timeout.
const ANSWER_LATE_MAX: Micros = SECOND;

/// A process and its gateway.
type Running = (Host, Client);

/// Gateways of the running nodes, by slot. Clones share the state.
#[derive(Clone)]
pub struct Gateways {
    schedule: Schedule,
    running: Arc<Mutex<Vec<Option<Running>>>>,
}

impl Gateways {
    pub fn new(schedule: Schedule, slots: usize) -> Self {
        Gateways { schedule, running: Arc::new(Mutex::new(vec![None; slots])) }
    }

    /// Sets the process and gateway that run in a slot; `None` if none runs.
    pub fn set(&self, slot: usize, gateway: Option<Running>) {
        self.running.lock()[slot] = gateway;
    }

    /// Executes an operation through some node's gateway, with a timeout.
    ///
    /// # Errors
    /// Those of the gateway; [`Error::Unavailable`] if no node runs in the slot that was drawn, and
    /// [`Error::Undetermined`] without an answer.
    pub async fn ask<T, F>(
        &self,
        client: Host,
        timeout: Micros,
        what: impl FnOnce(Client) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (slots, drawn) = {
            let running = self.running.lock();
            let slot = self.schedule.random(|rng| rng.usize(0..running.len()));
            (running.len(), running[slot].clone().map(|(host, gateway)| (slot, host, gateway)))
        };
        let Some((slot, host, gateway)) = drawn else {
            return Err(Error::Unavailable("connection refused".into()));
        };
        let (tell, answer) = oneshot::channel();
        let (schedule, place) = (self.schedule.clone(), client.place(slots));
        let gateway = gateway.with_timeout(std::time::Duration::from_micros(timeout));
        let doing = async move {
            let result = what(gateway).await;
            // The client may have stopped waiting.
            let telling = async move { drop(tell.send(result)) };
            let telling = Occurrence::Spawn(Box::pin(telling));
            schedule.send(slot, place, client, telling);
        };
        self.schedule.send(place, slot, host, Occurrence::Spawn(Box::pin(doing)));
        let patience = Sleep::new(&self.schedule, client, timeout + ANSWER_LATE_MAX);
        match select(answer, patience).await {
            Either::Left((Ok(result), _)) => result,
            Either::Left((Err(_), _)) => Err(Error::Undetermined("the connection broke".into())),
            Either::Right(_) => Err(Error::Undetermined("no answer in time".into())),
        }
    }
}
