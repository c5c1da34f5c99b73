//! A node that has only an oracle to ask, for tests of its work before and after its stores.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use rangedb_client::net::{BoxFuture, CallError, Net};
use rangedb_proto::Timestamp;
use rangedb_proto::v1::{NodeDescriptor, TimestampsReply, request, response};
use rangedb_raftstore::Event;

use super::oracle_view::ORACLE_BEHIND_WAIT;
use super::{HeavyReads, Node, NodeParts, WalkPace};
use crate::handle::{EventSink, StoreHandle};
use crate::status_board::StatusBoard;
use crate::surroundings::WallClock;

pub const NOW_MS: u64 = 1_000_000;

/// A fake oracle, which is also the node's network, store and clock. Its time advances while a task
/// sleeps.
pub struct Oracle {
    pub last: Mutex<Timestamp>,
    pub asked: Mutex<u32>,
    /// Reading of the monotonic clock, which advances only if a test sets it.
    pub now: Mutex<Duration>,
    /// Tasks that were spawned and not polled yet.
    tasks: Mutex<Vec<BoxFuture<'static, ()>>>,
    /// Events sent to the store and not answered yet.
    pub events: Mutex<Vec<Event>>,
    /// Answers of calls other than those for timestamps, the next one first.
    pub answers: Mutex<VecDeque<Result<response::Body, CallError>>>,
}

impl Net for Oracle {
    fn call<'a>(
        &'a self,
        _: &'a str,
        request: request::Body,
        _: Duration,
    ) -> BoxFuture<'a, Result<response::Body, CallError>> {
        let request::Body::Timestamps(ask) = request else {
            let nobody = || Err(CallError::NotSent("only an oracle is here".to_owned()));
            let answer = self.answers.lock().pop_front().unwrap_or_else(nobody);
            return Box::pin(async { answer });
        };
        let mut last = self.last.lock();
        last.0 += u64::from(ask.count);
        *self.asked.lock() += 1;
        let reply = TimestampsReply { last: last.0, count: ask.count };
        Box::pin(async move { Ok(response::Body::Timestamps(reply)) })
    }

    /// Sleeps up to `ORACLE_BEHIND_WAIT` end at once, and the oracle's time advances by as much.
    /// Longer ones never end.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        if duration > ORACLE_BEHIND_WAIT {
            return Box::pin(std::future::pending());
        }
        let mut last = self.last.lock();
        *last = Timestamp::from_millis(last.millis() + duration.as_millis() as u64);
        Box::pin(async {})
    }

    fn now(&self) -> Duration {
        *self.now.lock()
    }

    fn random_below(&self, _: u64) -> u64 {
        0
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.tasks.lock().push(task);
    }
}

/// Evaluates heavy reads at once.
struct AtOnce;

impl HeavyReads for AtOnce {
    fn run(&self, _: u64, work: Box<dyn FnOnce() + Send>) -> bool {
        work();
        true
    }
}

impl Oracle {
    /// Runs the future and the spawned tasks to the end. Nothing here takes time, so each task goes
    /// as far as it ever will at its first poll.
    pub fn finish<T>(&self, asked: impl Future<Output = T>) -> T {
        let mut asked = pin!(asked);
        loop {
            if let Some(answer) = asked.as_mut().now_or_never() {
                return answer;
            }
            let tasks = std::mem::take(&mut *self.tasks.lock());
            assert!(!tasks.is_empty(), "it waits for nobody");
            for task in tasks {
                let _ = task.now_or_never();
            }
        }
    }
}

impl EventSink for Oracle {
    fn send(&self, event: Event) -> Result<(), Event> {
        self.events.lock().push(event);
        Ok(())
    }
}

impl WallClock for Oracle {
    fn unix_millis(&self) -> u64 {
        NOW_MS
    }
}

pub fn node() -> (Arc<Node>, Arc<Oracle>) {
    let oracle = Arc::new(Oracle {
        last: Mutex::new(Timestamp::from_millis(NOW_MS)),
        asked: Mutex::default(),
        now: Mutex::default(),
        tasks: Mutex::default(),
        events: Mutex::default(),
        answers: Mutex::default(),
    });
    let node = Node::new(NodeParts {
        cluster_id: 1,
        descriptor: NodeDescriptor {
            node_id: 1,
            peer_address: "n1:1".to_owned(),
            ..Default::default()
        },
        formation: None,
        stores: StoreHandle::new(vec![oracle.clone()]),
        board: Arc::new(StatusBoard::new(1)),
        net: oracle.clone(),
        clock: oracle.clone(),
        known_nodes: Vec::new(),
        seeds: Vec::new(),
        walk_pace: WalkPace::default(),
        heavy_reads: Arc::new(AtOnce),
    });
    node.saw(Timestamp::from_millis(NOW_MS).0);
    (node, oracle)
}
