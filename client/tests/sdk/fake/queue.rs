//! Requests that a node holds back for a lock, and deadlocks among them.

use std::time::Duration;

use bytes::Bytes;
use rangedb_client::net::Net;
use rangedb_client::v1::{self, KeyLocked, command, command_reply, error::Kind, request, response};

use super::ranges::Answer;
use super::{Cluster, Mode, State};

/// Interval at which a request that is held back is served again.
const LOOK_EVERY: Duration = Duration::from_micros(200);

impl Cluster {
    pub(super) async fn serve_or_wait(
        &self,
        node: u64,
        mode: Mode,
        request: request::Body,
    ) -> (Answer, bool) {
        let until = self.now() + Duration::from_millis(lock_wait_ms(&request).into());
        let waiter = start_ts(&request);
        self.state.lock().note(node, &request);
        loop {
            let answer = self.state.lock().serve(node, mode, request.clone());
            let lock = lock_in(&answer.0).filter(|_| self.state.lock().queues);
            let (Some(lock), true) = (lock, self.now() < until) else {
                self.state.lock().lock_waits.remove(&waiter);
                return answer;
            };
            if let Some(deadlock) = self.state.lock().wait(waiter, &lock) {
                return (Err(v1::Error::new(Kind::Deadlock(deadlock), "deadlock")), false);
            }
            self.sleep(LOOK_EVERY).await;
        }
    }
}

impl State {
    /// Notes a wait, and returns the cycle that it closes, if there is one.
    fn wait(&mut self, waiter: u64, lock: &KeyLocked) -> Option<v1::Deadlock> {
        self.lock_waits.insert(waiter, (lock.start_ts, lock.key.clone()));
        let mut cycle = Vec::new();
        let mut at = waiter;
        while let Some((holder, key)) = self.lock_waits.get(&at) {
            cycle.push(wait(at, *holder, key));
            at = *holder;
            if at == waiter {
                self.lock_waits.remove(&waiter);
                return Some(v1::Deadlock { cycle });
            }
            if cycle.len() > self.lock_waits.len() {
                return None;
            }
        }
        None
    }
}

fn wait(waiter_start_ts: u64, holder_start_ts: u64, key: &Bytes) -> v1::LockWait {
    v1::LockWait { waiter_start_ts, holder_start_ts, key: key.clone() }
}

fn lock_wait_ms(request: &request::Body) -> u32 {
    match request {
        request::Body::Write(write) => write.lock_wait_ms,
        request::Body::TransactionCommand(command) => command.lock_wait_ms,
        _ => 0,
    }
}

fn start_ts(request: &request::Body) -> u64 {
    match request {
        request::Body::Write(write) => write.commit.as_ref().unwrap().start_ts,
        request::Body::TransactionCommand(transaction) => {
            match transaction.command.as_ref().and_then(|command| command.body.as_ref()).unwrap() {
                command::Body::AcquireLocks(acquire) => acquire.start_ts,
                command::Body::Prewrite(prewrite) => prewrite.start_ts,
                _ => 0,
            }
        }
        _ => 0,
    }
}

fn lock_in(answer: &Answer) -> Option<KeyLocked> {
    match answer {
        Err(v1::Error { kind: Some(Kind::KeyLocked(lock)), .. }) => Some(lock.clone()),
        Ok(response::Body::TransactionCommand(reply)) => {
            match reply.reply.as_ref()?.body.as_ref()? {
                command_reply::Body::Locked(lock) => Some(lock.clone()),
                _ => None,
            }
        }
        _ => None,
    }
}
