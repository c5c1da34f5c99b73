//! A node at work: its stores' threads and everything they hand effects to.

use std::sync::Arc;
use std::thread::JoinHandle;

use rangedb_client::net::SharedNet;
use rangedb_proto::NodeId;
use rangedb_proto::v1::NodeDescriptor;
use rangedb_raftstore::{Options, Shard, Store};
use rangedb_storage::{Error, StateEngine};
use rangedb_txn::TxnMachine;

use crate::board::Board;
use crate::handle::{EventSink, StoreHandle};
use crate::node::{Node, NodeParts, WalkPace};
use crate::shell::clock::SystemClock;
use crate::shell::config::Config;
use crate::shell::disk_watch::DiskWatch;
use crate::shell::driver::{Driver, Performers, Pulse};
use crate::shell::engines::Engines;
use crate::shell::flusher::Flusher;
use crate::shell::identity::{DataDir, Identity, Membership};
use crate::shell::log_writer::{Backlog, LogWriter};
use crate::shell::mailbox::{self, Inbox, Mailbox};
use crate::shell::patient_state::PatientState;
use crate::shell::server::StartError;
use crate::shell::service::Member;
use crate::shell::snapshots::{SnapshotReceiver, SnapshotSender};
use crate::shell::transport::{Arrivals, Counts, Directory, Identification, Shared, Transport};

/// See the module's head.
pub(crate) struct Running {
    pub node: Arc<Node>,
    pub stores: StoreHandle,
    pub board: Arc<Board>,
    pub mailboxes: Vec<Mailbox>,
    pub pulses: Vec<Arc<Pulse>>,
    pub transport: Arc<Counts>,
    pub directory: Arc<Directory>,
    me: Identification,
    engines: Engines,
    log_backlog: Backlog,
    snapshots: usize,
    drivers: Vec<JoinHandle<()>>,
    /// Log writer and flusher: they end after the drivers, which are all that calls them.
    writers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Opens the stores and starts their threads. Blocks; within a tokio runtime.
    pub fn start(
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
        // Durable before any store can promise anything: found() holds only for the first time.
        data.update(|identity| identity.opened = true)?;
        let found = is_founder(&identity) && !identity.opened;
        let stores = open_stores(config, me, &engines, disk, found)?;

        let (mailboxes, inboxes): (Vec<Mailbox>, Vec<Inbox>) =
            (0..config.stores).map(|_| mailbox::new(config.limits.store_queue_bytes)).unzip();
        let sinks = mailboxes.iter().map(|mailbox| Arc::new(mailbox.clone()) as Arc<dyn EventSink>);
        let handle = StoreHandle::new(sinks.collect());
        let board = Arc::new(Board::new(config.stores));
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
        });

        let directory = Arc::new(Directory::default());
        directory.set(&node);
        let transport = Arc::new(Counts::default());
        let (log, state) = (engines.log.clone(), engines.state.clone());
        let (log_writer, log_thread) =
            LogWriter::start(log.clone(), mailboxes.clone(), disk.clone())?;
        let log_backlog = log_writer.backlog();
        let (flusher, flush_thread) =
            Flusher::start(state, log, board.clone(), mailboxes.clone(), disk.clone())?;
        let performers = Performers {
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
        let pulses: Vec<Arc<Pulse>> = (0..config.stores).map(|_| Arc::default()).collect();
        let mut drivers = Vec::new();
        let tick_us = config.raft.tick_us;
        for (shard, (store, inbox)) in stores.into_iter().zip(inboxes).enumerate() {
            board.publish(shard, &store);
            let pulse = pulses[shard].clone();
            drivers.push(Driver::start(shard, store, inbox, tick_us, performers.clone(), pulse)?);
        }
        Ok(Running {
            node,
            stores: handle,
            board,
            mailboxes,
            pulses,
            transport,
            directory,
            me,
            engines,
            log_backlog,
            snapshots: config.limits.snapshots,
            drivers,
            writers: vec![log_thread, flush_thread],
        })
    }

    /// What answers others on behalf of this node.
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

    /// Bytes that are still to be written to the disk of what was taken in: commands that wait go to
    /// the log and to memtables, and memtables to files.
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
        for thread in self.drivers.into_iter().chain(self.writers) {
            // A thread that panicked has ended the process.
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

/// Whether the directory is one of those that the cluster was founded on.
fn is_founder(identity: &Identity) -> bool {
    let formation = identity.formation().unwrap_or_default();
    formation.nodes.iter().any(|node| node.directory_id == identity.directory_id)
}

fn open_stores(
    config: &Config,
    me: Identification,
    engines: &Engines,
    disk: &Arc<DiskWatch>,
    found: bool,
) -> Result<Vec<Store>, StartError> {
    let state = Arc::new(PatientState::new(engines.state.clone(), disk.clone()));
    let open = |index: u64| {
        let options = Options {
            node: NodeId(me.node_id),
            shard: Shard { index, count: config.stores as u64 },
            config: config.raft.clone(),
            seed: fastrand::u64(..),
        };
        let machines = Box::new(|_| Box::new(TxnMachine::new()) as Box<_>);
        let mut store = Store::open(options, engines.log.clone(), state.clone(), machines)?;
        if found {
            store.found();
        }
        Ok(store)
    };
    (0..config.stores as u64).map(open).collect()
}
