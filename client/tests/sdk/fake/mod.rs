//! A cluster in memory behind `Net`, with virtual time. It shows what a client sees of a cluster,
//! faults included, without the inner workings. With one thread and one seed, every run is the
//! same.

mod executor;
mod mortal;
mod percolator;
mod queue;
mod ranges;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use parking_lot::Mutex;
use rangedb_client::net::{BoxFuture, CallError, Net};
use rangedb_client::v1::{self, request, response};
use rangedb_client::{Client, Config, Timestamp};

use executor::Clock;
pub use mortal::Mortal;
use percolator::Store;
pub use ranges::Range;

/// One-way latency of the network.
const LATENCY: Duration = Duration::from_millis(1);

/// Longest time until a connection that has lost something is found to be broken.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// The oracle's time in milliseconds when the clock begins.
const START_MS: u64 = 1_000_000;

/// Behaviour of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Up,
    /// Connections are refused.
    Down,
    /// Takes requests, and neither executes nor answers them.
    Hanging,
    /// Executes requests; its answers do not arrive.
    AnswersLost,
    /// Answers that it is overloaded, and asks for a wait of this many milliseconds.
    Busy(u32),
    /// Leads nothing any more and does not know who does.
    Isolated,
    /// Refuses every epoch, and does not know a better one.
    Confused,
    /// Runs, but is not part of the cluster.
    Stranger,
}

/// A change of the cluster's state.
pub type Event = Box<dyn FnOnce(&mut State) + Send>;

#[derive(Clone)]
pub struct Cluster {
    pub clock: Arc<Clock>,
    pub state: Arc<Mutex<State>>,
}

pub struct State {
    pub modes: BTreeMap<u64, Mode>,
    /// Number of answers still to be lost, on any node, before the mode counts.
    pub answers_to_lose: usize,
    /// Lost answers are noticed at once, as when a connection breaks, not when the time is up.
    pub connections_break: bool,
    pub ranges: Vec<Range>,
    /// True if no node answers look-ups in the directory.
    pub directory_down: bool,
    /// The directory's ranges, if they differ from the actual ones.
    pub directory: Option<Vec<Range>>,
    /// True if a node that is not the leader names the leader.
    pub hints: bool,
    /// True if scans return the key at which the next page begins.
    pub resume_keys: bool,
    /// Rows in one page of a scan.
    pub page_rows: usize,
    pub store: Store,
    pub applied: BTreeMap<u64, v1::Committed>,
    pub oracle: u64,
    /// True if the oracle follows the clock, as tests of expiry need.
    pub oracle_keeps_time: bool,
    oracle_least: u64,
    /// Kinds of requests, as in the log, whose answers are lost.
    pub kinds_lost: BTreeSet<&'static str>,
    /// A command may not delete spans, and a validation looks at one read.
    pub bounded: bool,
    /// Kind of requests, as in the log, that take this long to be served.
    pub slow: Option<(&'static str, Duration)>,
    /// An event that happens as soon as a request of this kind was served.
    pub after: Option<(&'static str, Event)>,
    /// Extra latency of a message at most, in microseconds.
    pub jitter: u64,
    /// Ids of the requests that changed a setting.
    pub config_sets: BTreeSet<u64>,
    pub cluster_id: u64,
    /// True if ranges take part in asynchronous commits.
    pub async_commits: bool,
    /// True if nodes hold back requests that meet a lock.
    pub queues: bool,
    /// Lock waits: the holder and the key, by waiter.
    pub lock_waits: BTreeMap<u64, (u64, Bytes)>,
    /// The GC floor, below which reads are refused.
    pub floor: u64,
    /// Holds of the floor by name: the timestamp, and the time to live in milliseconds (0:
    /// durable).
    pub holds: BTreeMap<String, (u64, u32)>,
    /// Names of holds that were released.
    pub let_go: BTreeSet<String>,
    /// Node and kind of every request that arrived.
    pub log: Vec<(u64, &'static str)>,
}

pub fn address(node_id: u64) -> String {
    format!("n{node_id}:1")
}

impl Cluster {
    /// Makes a cluster of three nodes, with the ranges
    /// `["", "_/") ["_/", "_0") ["_0", "m") ["m", "")`, each on all nodes and led by node 1.
    pub fn new() -> Cluster {
        let bounds = ["", "_/", "_0", "m", ""];
        let range = |(at, pair): (usize, &[&str])| {
            Range::new(at as u64 + 1, pair[0], pair[1], 1, &[1, 2, 3], 1)
        };
        let state = State {
            modes: (1..=5).map(|node| (node, Mode::Up)).collect(),
            answers_to_lose: 0,
            connections_break: false,
            directory_down: false,
            ranges: bounds.windows(2).enumerate().map(range).collect(),
            directory: None,
            hints: true,
            resume_keys: false,
            page_rows: 3,
            store: Store::default(),
            applied: BTreeMap::new(),
            oracle: 1000,
            oracle_keeps_time: false,
            oracle_least: 0,
            kinds_lost: BTreeSet::new(),
            bounded: false,
            slow: None,
            after: None,
            jitter: 0,
            config_sets: BTreeSet::new(),
            cluster_id: 7,
            async_commits: true,
            queues: true,
            lock_waits: BTreeMap::new(),
            floor: 0,
            holds: BTreeMap::new(),
            let_go: BTreeSet::new(),
            log: Vec::new(),
        };
        Cluster { clock: Arc::default(), state: Arc::new(Mutex::new(state)) }
    }

    /// Makes a client that asks nodes 1 and 2 first.
    pub fn client(&self) -> Client {
        let config = Config::new([address(1), address(2)]);
        Client::with_net(Arc::new(self.clone()), config).unwrap()
    }

    /// As `new`, with a latency and an oracle's time that transactions notice.
    pub fn with_seed(seed: u64) -> Cluster {
        let cluster = Cluster::new();
        cluster.clock.seed(seed);
        cluster.change(|state| {
            state.oracle_keeps_time = true;
            state.jitter = 3000;
        });
        cluster
    }

    fn latency(&self) -> Duration {
        let jitter = self.state.lock().jitter;
        if jitter == 0 {
            return LATENCY;
        }
        LATENCY + Duration::from_micros(self.clock.random() % jitter)
    }

    /// Runs a task until it ends, with the tasks that it spawned.
    pub fn run<T>(&self, task: impl Future<Output = T>) -> T {
        self.clock.run(task)
    }

    pub fn set_mode(&self, node: u64, mode: Mode) {
        self.state.lock().modes.insert(node, mode);
    }

    pub fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
    }

    /// Loses the answers to requests of this kind, as in the log, from now on.
    pub fn lose(&self, kind: &'static str) {
        self.state.lock().kinds_lost.insert(kind);
    }

    /// Makes an event happen as soon as a request of the kind, as in the log, was served.
    pub fn after(&self, kind: &'static str, event: impl FnOnce(&mut State) + Send + 'static) {
        self.state.lock().after = Some((kind, Box::new(event)));
    }

    /// Returns the nodes at which requests of a kind arrived, and clears the log of all kinds.
    pub fn take_log(&self, kind: &str) -> Vec<u64> {
        let log = std::mem::take(&mut self.state.lock().log);
        log.into_iter().filter(|(_, k)| *k == kind).map(|(node, _)| node).collect()
    }

    pub fn fill(&self, keys: impl IntoIterator<Item = String>) -> BTreeSet<String> {
        let keys: BTreeSet<String> = keys.into_iter().collect();
        let mut state = self.state.lock();
        for key in &keys {
            let value = Bytes::from(format!("value of {key}"));
            state.store.write(&Bytes::from(key.clone()), Some(value), (1, 1));
        }
        keys
    }
}

impl Net for Cluster {
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: request::Body,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<response::Body, CallError>> {
        let answered = Box::pin(async move {
            let node: u64 = address[1..].split(':').next().unwrap().parse().unwrap();
            self.sleep(self.latency()).await;
            let mode = self.state.lock().modes[&node];
            if mode == Mode::Down {
                return Err(CallError::NotSent("connection refused".to_owned()));
            }
            if self.state.lock().oracle_keeps_time {
                let millis = START_MS + self.now().as_millis() as u64;
                self.state.lock().oracle_least = Timestamp::from_millis(millis).0;
            }
            let slow = self.state.lock().slow;
            let work = slow.filter(|(kind, _)| *kind == ranges::kind(&request));
            let (answer, lost) = self.serve_or_wait(node, mode, request).await;
            if let Some((_, work)) = work {
                self.sleep(work).await;
            }
            if lost {
                let breaks = self.state.lock().connections_break;
                // A sound connection loses nothing, so the client finds this one broken before
                // long.
                let silence = timeout.min(SILENCE_MAX).saturating_sub(LATENCY);
                let silence = if breaks { LATENCY } else { silence };
                self.sleep(silence).await;
                return Err(CallError::Lost("no answer".to_owned()));
            }
            self.sleep(self.latency()).await;
            Ok(answer.unwrap_or_else(response::Body::Error))
        });
        Box::pin(async move {
            match select(answered, self.sleep(timeout)).await {
                Either::Left((answer, _)) => answer,
                Either::Right(_) => Err(CallError::Lost("no answer in time".to_owned())),
            }
        })
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.clock.sleep(duration)
    }

    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn random_below(&self, bound: u64) -> u64 {
        self.clock.random() % bound
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.clock.spawn(task);
    }
}
