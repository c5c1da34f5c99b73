//! A node's logic above its stores: requests to ranges, requests to the cluster, heartbeats,
//! fences, and the control plane while this node leads the control range.
//!
//! Bound to no runtime, clock or socket. The world comes in as [`Surroundings`]. The server drives a
//! node with tokio and threads, the simulator from one seed.

mod address_book;
mod admission;
mod caller;
mod counts;
mod forward;
mod garbage;
mod heartbeat;
mod leading;
mod lock_queue;
mod oracle_view;
mod quarantine;
mod readiness;
mod reads;
#[cfg(test)]
mod test_world;
mod user_net;
mod waiting;
mod writes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::{self, Either};
use parking_lot::{Mutex, MutexGuard};
use rangedb_client::net::{Net, SharedNet};
use rangedb_client::{AddressKind, Client, Config};
use rangedb_proto::v1::{self, NodeDescriptor, error::Kind, request, response};
use rangedb_proto::{RangeId, Timestamp};

use crate::control::Control;
use crate::handle::StoreHandle;
use crate::memory::Taken;
use crate::status_board::StatusBoard;
use crate::surroundings::{Surroundings, WallClock};
use crate::system::RoleSlot;
use counts::CommandCounts;
use forward::ControlPlane;
use garbage::Garbage;
use lock_queue::LockQueues;
use oracle_view::OracleView;
use readiness::Readiness;
use user_net::UserNet;

pub use address_book::{AddressBook, Met};
pub use caller::{Caller, CallerKind};
pub use garbage::{GarbageCounts, WalkPace};
pub use lock_queue::LockWaitCounts;

/// Parts from which a node is made.
pub struct NodeParts {
    pub cluster_id: u64,
    pub descriptor: NodeDescriptor,
    /// The decided formation, if this node is one of the founders.
    pub formation: Option<v1::Formation>,
    pub stores: StoreHandle,
    pub board: Arc<StatusBoard>,
    /// Calls to this node's own addresses must reach [`Node::handle`].
    pub net: SharedNet,
    pub clock: Arc<dyn WallClock>,
    /// Nodes as known when the process last ended.
    pub known_nodes: Vec<NodeDescriptor>,
    /// Peer addresses from the command line.
    pub seeds: Vec<String>,
    pub walk_pace: WalkPace,
    pub heavy_reads: Arc<dyn HeavyReads>,
}

/// Pool that evaluates heavy reads: those whose cost grows with the data that they look at.
pub trait HeavyReads: Send + Sync {
    /// Runs the work soon, callers in turn. False if too much work waits already: this work is then
    /// dropped.
    fn run(&self, caller: u64, work: Box<dyn FnOnce() + Send>) -> bool;
}

/// Milliseconds after which a heavy read may be retried if it was refused because too many wait.
const HEAVY_RETRY_MS: u32 = 50;

/// A node's logic above its stores.
pub struct Node {
    around: Surroundings,
    descriptor: NodeDescriptor,
    /// Client for requests of users.
    gateway: Client,
    seeds: Vec<String>,
    started: Duration,
    /// Ranges that this node leads, and the term of each.
    leading: Mutex<BTreeMap<RangeId, u64>>,
    control: RoleSlot<Control>,
    book: Mutex<AddressBook>,
    control_plane: Mutex<ControlPlane>,
    oracle: Arc<OracleView>,
    disk: Mutex<DiskSpace>,
    /// Lead of this node's clock over the majority's, in milliseconds, as the last reply reported it.
    clock_offset_ms: Mutex<Option<i64>>,
    stopped: Mutex<Option<String>>,
    readiness: Mutex<Readiness>,
    lock_queues: LockQueues,
    /// True while a task reports lock waits of this node to the control plane.
    telling_of_waits: AtomicBool,
    garbage: Mutex<Garbage>,
    walk_pace: WalkPace,
    heavy_reads: Arc<dyn HeavyReads>,
    command_counts: CommandCounts,
    told: quarantine::LoggedQuarantines,
}

/// Total and available bytes of the disk, for reports.
#[derive(Clone, Copy, Default)]
pub struct DiskSpace {
    pub total_bytes: u64,
    pub available_bytes: u64,
}

/// Time for which the gateway tries if a request does not say how long it waits.
const GATEWAY_TIMEOUT: Duration = Duration::from_secs(5);

impl Node {
    pub fn new(parts: NodeParts) -> Arc<Node> {
        // The client asks this node first, which forwards the requests that it cannot answer.
        let config = Config::new([&parts.descriptor.peer_address])
            .timeout(GATEWAY_TIMEOUT)
            .address_kind(AddressKind::Peer);
        let client =
            |net| Client::with_net(net, config.clone()).expect("a node's own address is valid");
        let own_client = client(parts.net.clone());
        let gateway = client(Arc::new(UserNet(parts.net.clone())));
        let oracle = OracleView::new(own_client.clone(), parts.net.clone());
        let started = parts.net.now();
        let around = Surroundings {
            cluster_id: parts.cluster_id,
            node_id: parts.descriptor.node_id,
            stores: parts.stores,
            board: parts.board,
            net: parts.net,
            clock: parts.clock,
            client: own_client,
            formation: parts.formation.clone(),
            oracle_seen: Arc::default(),
        };
        let founders = parts.formation.into_iter().flat_map(|formation| formation.nodes);
        let known = founders.chain(parts.known_nodes);
        Arc::new(Node {
            around,
            started,
            descriptor: parts.descriptor,
            gateway,
            seeds: parts.seeds,
            leading: Mutex::default(),
            control: RoleSlot::default(),
            book: Mutex::new(AddressBook::of(known)),
            control_plane: Mutex::default(),
            oracle,
            disk: Mutex::default(),
            clock_offset_ms: Mutex::default(),
            stopped: Mutex::new(None),
            readiness: Mutex::default(),
            lock_queues: LockQueues::default(),
            telling_of_waits: AtomicBool::new(false),
            garbage: Mutex::default(),
            walk_pace: parts.walk_pace,
            heavy_reads: parts.heavy_reads,
            command_counts: CommandCounts::default(),
            told: quarantine::LoggedQuarantines::default(),
        })
    }

    /// Starts heartbeats to the control plane and garbage collection.
    pub fn start(self: &Arc<Self>) {
        self.start_heartbeats();
        self.start_collecting();
    }

    pub fn cluster_id(&self) -> u64 {
        self.around.cluster_id
    }

    /// Answers a request within `timeout`; an error is an answer too. The bytes of the answer stay
    /// taken from the caller's share until the returned [`Taken`] is dropped.
    pub async fn handle(
        self: &Arc<Self>,
        caller: Caller,
        body: request::Body,
        timeout: Duration,
    ) -> (response::Body, Option<Taken>) {
        let may_happen_later = body.effect().changes();
        let mut room = None;
        let answering = Box::pin(self.answer(caller, body, timeout, &mut room));
        let answer = match future::select(answering, self.around.net.sleep(timeout)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) if may_happen_later => {
                Err(v1::Error::undetermined("no answer within the request's time"))
            }
            Either::Right(_) => {
                Err(v1::Error::deadline_exceeded("no answer within the request's time"))
            }
        };
        let answer =
            answer.unwrap_or_else(|error| response::Body::Error(self.with_leader_address(error)));
        if let Some(room) = &mut room {
            room.shrink_to(answer.encoded_len() as u64);
        }
        (answer, room)
    }

    /// Answers a request. Takes the bytes for the answer into `room` before it is evaluated.
    async fn answer(
        self: &Arc<Self>,
        caller: Caller,
        body: request::Body,
        timeout: Duration,
        room: &mut Option<Taken>,
    ) -> Result<response::Body, v1::Error> {
        use request::Body as Request;
        use response::Body as Response;
        caller.check(&body)?;
        let (caller, body) = match body {
            Request::ForUser(ask) => {
                let caller = caller.for_user();
                let body = ask.body.ok_or_else(|| v1::Error::invalid("body", "it is missing"))?;
                caller.check(&body)?;
                (caller, body)
            }
            body => (caller, body),
        };
        Ok(match body {
            Request::PointRead(ask) => {
                Response::PointRead(self.point_read(&caller, ask, room).await?)
            }
            Request::Scan(ask) => Response::Scan(self.scan(&caller, ask, room).await?),
            Request::Write(ask) => Response::Write(self.write(&caller, ask, timeout, room).await?),
            Request::TransactionCommand(ask) => {
                let reply = self.transaction_command(&caller, ask, timeout, room).await?;
                Response::TransactionCommand(reply)
            }
            Request::Validate(ask) => Response::Validate(self.validate(&caller, ask).await?),
            Request::ListLocks(ask) => {
                Response::ListLocks(self.list_locks(&caller, ask, room).await?)
            }
            Request::Forwarded(ask) => self.handle_forwarded(*ask).await?,
            other => self.to_control(other, timeout).await?,
        })
    }

    /// Runs heavy work in the pool for heavy reads, where it delays nobody else, and returns its
    /// result.
    async fn heavy<T: Send + 'static>(
        &self,
        caller: &Caller,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, v1::Error> {
        let (tell, told) = oneshot::channel();
        let work = Box::new(move || {
            // A caller that gave up meanwhile needs no answer.
            if !tell.is_canceled() {
                let _ = tell.send(work());
            }
        });
        if !self.heavy_reads.run(caller.number, work) {
            return Err(v1::Error::too_busy(HEAVY_RETRY_MS, "too many heavy reads wait"));
        }
        // The sender is dropped unused when the node is being taken down, or by a panic.
        told.await.map_err(|_| v1::Error::unavailable("the read was broken off"))
    }

    /// The client inside the node, for users. It reaches every key from here.
    pub fn gateway(&self) -> &Client {
        &self.gateway
    }

    /// Network, clock, tasks and randomness of this node.
    pub fn net(&self) -> &dyn Net {
        &*self.around.net
    }

    pub fn descriptor(&self) -> &NodeDescriptor {
        &self.descriptor
    }

    pub fn address_of(&self, node_id: u64) -> Option<NodeDescriptor> {
        self.book().get(node_id).cloned()
    }

    /// Every known node, to be kept for the next start.
    pub fn address_book(&self) -> Vec<NodeDescriptor> {
        self.book().nodes().cloned().collect()
    }

    /// Takes in the address that a node gave for itself.
    pub fn meet(&self, node: &NodeDescriptor) -> Result<Met, String> {
        self.book().meet(node)
    }

    /// Counts of commands by command and outcome.
    pub fn command_counts(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.command_counts.all()
    }

    /// The highest timestamp known here to have been handed out.
    pub fn newest_timestamp(&self) -> u64 {
        self.oracle().newest().0
    }

    /// Reason why the cluster no longer wants this node, if so. The process then ends.
    pub fn stopped(&self) -> Option<String> {
        self.stopped.lock().clone()
    }

    /// Reason why the node should get no requests, as far as the control plane's answers show.
    pub fn not_ready(&self) -> Option<String> {
        self.readiness().reason(self.started, self.around.net.now())
    }

    /// Time since the control plane last answered, or since the start if it never has.
    pub fn unanswered_for(&self) -> Duration {
        self.readiness().unanswered_for(self.started, self.around.net.now())
    }

    /// Sets the flag that tells the control plane whether it may move leaderships to this node. It
    /// must be false for a node that is stopping or cannot write.
    pub fn set_fit_to_lead(&self, fit: bool) {
        self.readiness().unfit_to_lead = !fit;
    }

    /// True if this node is the control plane now.
    pub fn is_control_plane(&self) -> bool {
        self.control().is_some()
    }

    /// Lead of this node's clock over the majority's time, in milliseconds, as the control plane
    /// last reported it.
    pub fn clock_offset_ms(&self) -> Option<i64> {
        *self.clock_offset_ms.lock()
    }

    /// Status of the cluster; `None` unless this node is the control plane.
    pub fn cluster_status(&self) -> Option<v1::ClusterStatus> {
        Some(self.control()?.cluster_status())
    }

    /// Lead of timestamps over the nodes' clocks, in milliseconds. `None` unless this node is the
    /// control plane and knows it.
    pub fn timestamps_ahead_ms(&self) -> Option<i64> {
        self.control()?.timestamps_ahead_ms()
    }

    pub fn set_disk_space(&self, space: DiskSpace) {
        *self.disk.lock() = space;
    }

    fn control(&self) -> Option<Arc<Control>> {
        self.control.get()
    }

    fn book(&self) -> MutexGuard<'_, AddressBook> {
        self.book.lock()
    }

    fn readiness(&self) -> MutexGuard<'_, Readiness> {
        self.readiness.lock()
    }

    /// Takes note of a timestamp that the oracle has handed out.
    fn saw(&self, timestamp: u64) {
        self.oracle.saw(timestamp);
    }

    /// The oracle's time as known here. Up to date, without a call, while this node is the control
    /// plane.
    fn oracle(&self) -> &Arc<OracleView> {
        if let Some(control) = self.control() {
            self.saw(control.newest_timestamp());
        }
        &self.oracle
    }

    /// Refuses a timestamp that the oracle has not passed.
    async fn confirm(&self, at: Timestamp, named: &str) -> Result<(), v1::Error> {
        match self.oracle.has_passed(at) {
            true => Ok(()),
            false => self.oracle().confirm(at, named).await,
        }
    }

    /// Like [`Node::confirm`], but lets a near timestamp through. The caller must wait until the
    /// oracle has passed it before it returns any result of the work.
    async fn confirm_unless_near(&self, at: Timestamp, named: &str) -> Result<(), v1::Error> {
        match self.oracle.is_near(at) {
            true => Ok(()),
            false => self.confirm(at, named).await,
        }
    }

    /// Waits until the oracle has passed the timestamp of a commit that an answer is going to
    /// reveal.
    async fn until_passed(&self, at: Timestamp) -> Result<(), v1::Error> {
        match self.oracle.has_passed(at) {
            true => Ok(()),
            false => self.oracle().wait_for(at).await,
        }
    }

    /// Adds the leader's addresses to a `NotLeader` error, without which the hint is useless.
    fn with_leader_address(&self, mut error: v1::Error) -> v1::Error {
        if let Some(Kind::NotLeader(not_leader)) = &mut error.kind
            && let Some(leader) = &not_leader.leader
            && let Some(node) = self.address_of(leader.node_id)
        {
            not_leader.leader_address = node.client_address;
            not_leader.leader_peer_address = node.peer_address;
        }
        error
    }
}
