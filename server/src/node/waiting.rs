//! Lock waits: commands that wait for another transaction's lock, and reports of these waits to the
//! control plane.
//!
//! A command with `lock_wait_ms` is not answered with a lock at once. It enters the key's queue
//! (`lock_queue.rs`) and is proposed again when it is its turn. This node does not check whether
//! the holder's client is still alive. The coordinator does so when its wait is over.
//!
//! # Deadlocks
//!
//! Waits may close a cycle over several nodes, so the control plane looks for cycles
//! (`control/deadlocks.rs`). Each node reports the waits that began and ended, a moment later: most
//! waits are over by then. A wait that closes a cycle ends with `Deadlock`. The transaction that
//! gets this error rolls back and lets the others go on. While the control plane cannot be reached,
//! a deadlock ends by the time-outs of the waiters.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{self, Either};
use rangedb_proto::Timestamp;
use rangedb_proto::v1::{
    self, CommandReply, KeyLocked, LockWaits, RangeHeader, command, command_reply, error::Kind,
    request, response,
};

use rangedb_txn::{LockChange, facts};

use super::lock_queue::{LockQueues, LockWaitCounts, QueuedRequest, Wake};
use super::{Caller, Node};
use crate::memory::Taken;

/// Interval at which the first waiter of a queue proposes again without having been woken.
const ASK_AGAIN_EVERY: Duration = Duration::from_secs(1);

/// Interval of reports: a wait is reported if it lasts longer than about this.
const TELL_EVERY: Duration = Duration::from_millis(20);

/// Number of reports after which all waits are reported again. A new control plane starts without
/// any, and forgets waits that are not reported again.
const TELL_ALL_EVERY: u64 = 50;

/// Time for one report.
const TELL_TIMEOUT: Duration = Duration::from_secs(1);

impl Node {
    /// Proposes the command until it meets no lock or the time is up.
    pub(super) async fn command_or_wait(
        self: &Arc<Self>,
        caller: &Caller,
        range: Option<RangeHeader>,
        mut body: command::Body,
        wait: Duration,
        room: &mut Option<Taken>,
    ) -> Result<CommandReply, v1::Error> {
        let until = self.around.net.now() + wait;
        let start_ts = facts(&body).start_ts();
        let (mut waiting, mut awaited) = (None, Bytes::new());
        loop {
            let answer = self.command(caller, range, body.clone(), room).await;
            self.command_counts.count(&body, &answer);
            let reply = answer?;
            self.note_locks(&body, &reply);
            let Some(command_reply::Body::Locked(lock)) = &reply.body else { return Ok(reply) };
            // The holder's client seems to be dead: the waiter has to find out.
            let is_expired = lock.alive_until_ms < Timestamp(self.newest_timestamp()).millis();
            if is_expired || self.around.net.now() >= until {
                return Ok(reply);
            }
            if waiting.is_none() || awaited != lock.key {
                // The old place is given up before the next is taken: a request waits in one queue
                // at a time.
                drop(waiting.take());
                awaited = lock.key.clone();
                waiting = self.lock_queues.enter(&lock.key, start_ts, lock.start_ts);
            }
            let Some(place) = &waiting else { return Ok(reply) };
            self.tell_of_waits();
            match self.wait_for_turn(place, lock, until).await {
                None => return Ok(reply),
                Some(Wake::Deadlock(deadlock)) => {
                    let message = "transactions wait for each other's locks";
                    return Err(v1::Error::new(Kind::Deadlock(deadlock), message));
                }
                Some(Wake::Turn) => {}
            }
            // The holder may have written a version that is newer than the waiter's for_update_ts.
            if let command::Body::AcquireLocks(acquire) = &mut body {
                let fresh = self.around.client.timestamp().await.map_err(v1::Error::from)?;
                self.saw(fresh.0);
                acquire.for_update_ts = fresh.0;
            }
        }
    }

    /// Waits for the request's turn or for a deadlock. `None` if the time is up.
    async fn wait_for_turn(
        &self,
        place: &QueuedRequest<'_>,
        lock: &KeyLocked,
        until: Duration,
    ) -> Option<Wake> {
        let mut woken = place.until_woken(lock.start_ts);
        loop {
            let left = until.saturating_sub(self.around.net.now());
            if left.is_zero() {
                return None;
            }
            let pause = self.around.net.sleep(left.min(ASK_AGAIN_EVERY));
            match future::select(woken, pause).await {
                Either::Left((wake, _)) => return Some(wake.unwrap_or(Wake::Turn)),
                Either::Right((_, still)) => woken = still,
            }
            if place.is_first() && self.around.net.now() < until {
                return Some(Wake::Turn);
            }
        }
    }

    /// Updates the lock queues from a command's reply, which shows locks that were taken or
    /// released.
    pub(super) fn note_locks(&self, body: &command::Body, reply: &CommandReply) {
        let Some(reply) = &reply.body else { return };
        let queues = &self.lock_queues;
        match facts(body).lock_change(reply) {
            LockChange::None => {}
            LockChange::Released { start_ts, keys } => queues.released(start_ts, keys),
            LockChange::ReleasedInSpan { start_ts } => queues.all_released(start_ts),
            LockChange::Taken { start_ts, keys } => queues.taken(start_ts, &keys),
        }
    }

    pub fn lock_waits(&self) -> LockWaitCounts {
        self.lock_queues.counts()
    }

    /// Starts to report waits to the control plane, unless a task does so already.
    fn tell_of_waits(self: &Arc<Self>) {
        if self.telling_of_waits.swap(true, Ordering::AcqRel) {
            return;
        }
        let node = self.clone();
        self.around.net.spawn(Box::pin(async move {
            let mut report = 0_u64;
            loop {
                node.around.net.sleep(TELL_EVERY).await;
                report += 1;
                node.tell_once(report.is_multiple_of(TELL_ALL_EVERY)).await;
                if node.lock_queues.is_idle() {
                    node.telling_of_waits.store(false, Ordering::Release);
                    // A request that entered between these two steps has started no task of its
                    // own.
                    if node.lock_queues.is_idle()
                        || node.telling_of_waits.swap(true, Ordering::AcqRel)
                    {
                        return;
                    }
                }
            }
        }));
    }

    async fn tell_once(self: &Arc<Self>, all: bool) {
        let queues: &LockQueues = &self.lock_queues;
        let (begun, ended) = (queues.take_begun(all), queues.take_ended());
        if begun.is_empty() && ended.is_empty() {
            return;
        }
        let waits = LockWaits { node_id: self.descriptor.node_id, begun, ended };
        // If the report is lost, new waits are reported again with all others, and the control
        // plane forgets the ended ones.
        let answer = self.to_control(request::Body::LockWaits(waits), TELL_TIMEOUT).await;
        if let Ok(response::Body::LockWaits(reply)) = answer {
            reply.deadlocks.into_iter().for_each(|deadlock| queues.break_deadlock(deadlock));
        }
    }
}
