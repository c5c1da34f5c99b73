//! A running node: the threads of its stores, and the parts that carry out their effects.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rangedb_client::net::SharedNet;
use rangedb_proto::NodeId;
use rangedb_proto::v1::NodeDescriptor;
use rangedb_raftstore::{Applier, Options, Shard, Store};
use rangedb_storage::{Error, StateEngine};
use rangedb_txn::TxnMachine;
use tokio::runtime::Handle;

use crate::handle::{EventSink, StoreHandle};
use crate::node::{Node, NodeParts, WalkPace};
use crate::shell::apply_worker::{self, ApplyQueue, ApplyWorker};
use crate::shell::clock::SystemClock;
use crate::shell::config::Config;
use crate::shell::disk_watch::DiskWatch;
use crate::shell::driver::{Driver, EffectHandlers, Liveness};
use crate::shell::engines::Engines;
use crate::shell::flusher::{Flusher, Tellers};
use crate::shell::heavy_reads::HeavyReadPool;
use crate::shell::identity::{DataDir, Identity, Membership};
use crate::shell::log_writer::{Backlog, LogWriter};
use crate::shell::mailbox::{self, Inbox, Mailbox};
use crate::shell::patient_state::PatientState;
use crate::shell::reclaimer::Reclaimer;
use crate::shell::server::StartError;
use crate::shell::service::Member;
use crate::shell::snapshots::{SnapshotReceiver, SnapshotSender};
use crate::shell::transport::{Arrivals, Counts, Directory, Identification, Shared, Transport};
use crate::status_board::StatusBoard;

/// Running node.
pub(crate) struct Running {
    pub node: Arc<Node>,
    pub stores: StoreHandle,
    pub board: Arc<StatusBoard>,
    pub mailboxes: Vec<Mailbox>,
    pub pulses: Vec<Arc<Liveness>>,
    pub transport: Arc<Counts>,
    pub directory: Arc<Directory>,
    pub heavy_reads: Arc<HeavyReadPool>,
    me: Identification,
    engines: Engines,
    pub log_backlog: Backlog,
    snapshots: usize,
    drivers: Vec<JoinHandle<()>>,
    /// Appliers. They end after the drivers, which send them their tasks.
    appliers: Vec<(ApplyQueue, JoinHandle<()>)>,
    /// Threads of the log writer, the flusher and the reclaimer. The first two end after the
    /// drivers and appliers, which call them.
    writers: Vec<JoinHandle<()>>,
    reclaimer: Reclaimer,
}

impl Running {
    /// Opens the stores and starts their threads. Raft messages and snapshots go out on the runtime
    /// of `peers`. Blocks.
    #[expect(clippy::too_many_arguments, reason = "it is what a node consists of")]
    pub fn start(
        peers: &Handle,
        config: &Config,
        data: &DataDir,
        membership: Membership,
        descriptor: NodeDescriptor,
        engines: Engines,
        net: SharedNet,
        disk: &Arc<DiskWatch>,
    ) -> Result<Running, StartError> {
        let me = Identification { cluster_id: membership.cluster_id, node_id: membership.node_id };
        let identity = data.identity();
        // Durable before any store can make a promise: `found()` is for the first start only.
        let embargo_us = identity.vote_embargo_us.max(config.raft.vote_embargo_us());
        data.update(|identity| {
            identity.opened = true;
            identity.vote_embargo_us = embargo_us;
        })?;
        let found = is_founder(&identity) && !identity.opened;
        let stores = open_stores(config, me, &engines, disk, embargo_us, found)?;

        let (mailboxes, inboxes): (Vec<Mailbox>, Vec<Inbox>) =
            (0..config.stores).map(|_| mailbox::new(config.limits.store_queue_bytes)).unzip();
        let sinks = mailboxes.iter().map(|mailbox| Arc::new(mailbox.clone()) as Arc<dyn EventSink>);
        let handle = StoreHandle::new(sinks.collect());
        let board = Arc::new(StatusBoard::new(config.stores));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let heavy_reads = Arc::new(HeavyReadPool::start(cores)?);
        let node = Node::new(NodeParts {
            cluster_id: me.cluster_id,
            descriptor: NodeDescriptor { node_id: me.node_id, ..descriptor },
            formation: identity.formation().filter(|_| is_founder(&identity)),
            stores: handle.clone(),
            board: board.clone(),
            net,
            clock: Arc::new(SystemClock),
            known_nodes: identity.nodes(),
            seeds: config.peers.iter().chain(&config.join).cloned().collect(),
            walk_pace: WalkPace::default(),
            heavy_reads: heavy_reads.clone(),
        });

        let directory = Arc::new(Directory::default());
        directory.set(&node);
        let transport = Arc::new(Counts::default());
        let (log, state) = (engines.log.clone(), engines.state.clone());
        let (log_writer, log_thread) =
            LogWriter::start(log.clone(), mailboxes.clone(), disk.clone(), stalled_after(config))?;
        let log_backlog = log_writer.backlog().clone();
        let (apply_queues, apply_inboxes): (Vec<_>, Vec<_>) =
            stores.iter().map(|_| apply_worker::new()).unzip();
        let tellers = Tellers { stores: mailboxes.clone(), appliers: apply_queues.clone() };
        let (flusher, flush_thread) =
            Flusher::start(state, log, board.clone(), tellers, disk.clone())?;
        let (reclaimer, reclaim_thread) = Reclaimer::start(engines.state.clone(), disk.clone())?;
        // Transport and snapshots use the runtime in which they are created.
        let in_peers = peers.enter();
        let performers = EffectHandlers {
            stores: handle.clone(),
            node: node.clone(),
            board: board.clone(),
            log_writer,
            flusher,
            transport: Arc::new(Transport::new(Shared {
                me,
                peer_address: node.descriptor().peer_address.clone(),
                directory: directory.clone(),
                stores: handle.clone(),
                counts: transport.clone(),
            })),
            snapshots: Arc::new(SnapshotSender::new(
                me,
                engines.state.clone(),
                directory.clone(),
                handle.clone(),
                config.limits.snapshots,
            )),
        };
        drop(in_peers);
        let pulses: Vec<Arc<Liveness>> = (0..config.stores).map(|_| Arc::default()).collect();
        let (mut drivers, mut appliers) = (Vec::new(), Vec::new());
        let tick_us = config.raft.tick_us;
        let mail = inboxes.into_iter().zip(apply_inboxes);
        for (shard, ((store, applier), (inbox, apply_inbox))) in
            stores.into_iter().zip(mail).enumerate()
        {
            board.publish(shard, &store);
            let (pulse, queue) = (pulses[shard].clone(), apply_queues[shard].clone());
            let mailbox = mailboxes[shard].clone();
            let flusher = performers.flusher.clone();
            let thread =
                ApplyWorker::start(shard, applier, apply_inbox, mailbox, handle.clone(), flusher)?;
            appliers.push((queue.clone(), thread));
            let performers = performers.clone();
            drivers.push(Driver::start(shard, store, inbox, tick_us, queue, performers, pulse)?);
        }
        Ok(Running {
            node,
            stores: handle,
            board,
            mailboxes,
            pulses,
            transport,
            directory,
            heavy_reads,
            me,
            engines,
            log_backlog,
            snapshots: config.limits.snapshots,
            drivers,
            appliers,
            writers: vec![log_thread, flush_thread, reclaim_thread],
            reclaimer,
        })
    }

    /// Returns the parts that answer requests on behalf of this node.
    pub fn member(&self, disk: &Arc<DiskWatch>) -> Member {
        let (me, stores) = (self.me, self.stores.clone());
        let state: Arc<dyn StateEngine> = self.engines.state.clone();
        Member {
            node: self.node.clone(),
            arrivals: Arrivals::new(
                me,
                self.directory.clone(),
                stores.clone(),
                self.transport.clone(),
            ),
            snapshots: SnapshotReceiver::new(me, stores, state, disk.clone(), self.snapshots),
        }
    }

    /// Returns a function that calculates the bytes still to be written for data already taken in.
    /// Waiting commands go to the log and to memtables, so they count twice. Memtables go to files.
    pub fn owed(&self) -> impl Fn() -> u64 + Send + use<> {
        let (state, mailboxes) = (self.engines.state.clone(), self.mailboxes.clone());
        let log_backlog = self.log_backlog.clone();
        move || {
            let queued = mailboxes.iter().map(|mailbox| mailbox.load().bytes() as u64).sum::<u64>();
            state.memtable_bytes() + 2 * (queued + log_backlog.bytes())
        }
    }

    /// Ends the threads and flushes the state, so that the next start has no log to replay. Blocks.
    pub fn stop(self) -> rangedb_storage::Result<()> {
        self.mailboxes.iter().for_each(Mailbox::stop);
        drop(self.reclaimer);
        // A thread that panicked would have ended the process.
        for thread in self.drivers {
            let _ = thread.join();
        }
        for (queue, thread) in self.appliers {
            queue.stop();
            let _ = thread.join();
        }
        for thread in self.writers {
            let _ = thread.join();
        }
        match self.engines.state.flush() {
            Err(Error::Full(reason)) => {
                tracing::warn!("not flushed, the next start replays the log: {reason}");
                Ok(())
            }
            flushed => flushed,
        }
    }
}

/// Returns the time after which a log write counts as hanging. It is half of the time after which
/// other replicas stand for election, so that within the whole of that time they lead.
fn stalled_after(config: &Config) -> Duration {
    Duration::from_micros(config.raft.election_ticks as u64 * config.raft.tick_us / 2)
}

/// True if this directory is one of those on which the cluster was founded.
fn is_founder(identity: &Identity) -> bool {
    let formation = identity.formation().unwrap_or_default();
    formation.nodes.iter().any(|node| node.directory_id == identity.directory_id)
}

fn open_stores(
    config: &Config,
    me: Identification,
    engines: &Engines,
    disk: &Arc<DiskWatch>,
    vote_embargo_us: u64,
    found: bool,
) -> Result<Vec<(Store, Applier)>, StartError> {
    let state = Arc::new(PatientState::new(engines.state.clone(), disk.clone()));
    let open = |index: u64| {
        let options = Options {
            node: NodeId(me.node_id),
            shard: Shard { index, count: config.stores as u64 },
            config: config.raft.clone(),
            vote_embargo_us,
            seed: fastrand::u64(..),
        };
        let machines = Box::new(|_| Box::new(TxnMachine::new()) as Box<_>);
        let log = engines.log.clone();
        let (mut store, applier) = Store::open(options, log, state.clone(), machines)?;
        if found {
            store.found();
        }
        Ok((store, applier))
    };
    (0..config.stores as u64).map(open).collect()
}
