//! Life of a server from start to end: open, become part of a cluster, serve, stop.
//!
//! The order matters:
//! 1. The directory is locked before any file in it is read.
//! 2. The sockets are bound before the engines are opened.
//! 3. The gRPC services answer before the node is part of a cluster, because forming one needs
//!    them.
//! 4. The stores run before clients are served.
//! 5. At a stop, leaderships are handed over while requests are still answered, so that clients
//!    notice as little as possible.

use std::future::Future;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rangedb_proto::v1::{NodeDescriptor, NodeState};
use rangedb_raftstore::Room;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tonic::service::Routes;

use crate::node::{CallerKind, Node};
use crate::shell::accept::{ConnectionLimit, IdleTimeout, LimitedListener};
use crate::shell::bootstrap::{Bootstrap, BootstrapError, Intent};
use crate::shell::config::Config;
use crate::shell::disk_watch::DiskWatch;
use crate::shell::engines::Engines;
use crate::shell::grpc_limits::{KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, WINDOW_BYTES};
use crate::shell::identity::{DataDir, IdentityError, Membership};
use crate::shell::listen::{ListenError, listen};
use crate::shell::local_net::LocalNet;
use crate::shell::logging;
use crate::shell::lookup::Lookup;
use crate::shell::memory::Budget;
use crate::shell::metrics::{Metrics, Sources};
use crate::shell::open_files;
use crate::shell::peer_runtime::PeerRuntime;
use crate::shell::running::Running;
use crate::shell::service::{self, Origins, ServiceState};
use crate::shell::status::{self, Status, Stores};

/// Maximum time of a graceful stop.
const STOP_MAX: Duration = Duration::from_secs(30);

/// Part of the stop's time for handing over leaderships.
const HAND_OVER_MAX: Duration = Duration::from_secs(20);

/// Part of the stop's time for answering requests in flight, after clients are sent away.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// Interval between two checks of what changes slowly: the addresses of nodes, and whether the
/// cluster has removed this one.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Maximum number of calls that one connection may have in flight.
const CONNECTION_STREAMS_MAX: u32 = 1024;

/// Reason why a server did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "the data directory {} belongs to no cluster yet: give --cluster-init to form one of this \
         node alone, --peers with all nodes that form one together, or --join with a node of the \
         cluster to join", .0.display()
    )]
    NothingToDo(PathBuf),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Storage(#[from] rangedb_storage::Error),
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    #[error("the cluster has removed this node: {0}")]
    Removed(String),
}

/// Runs a server until `shutdown` resolves, then stops it gracefully. Logging must be on already.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), StartError> {
    let server = Server::open(config).await?;
    tokio::pin!(shutdown);
    let membership = tokio::select! {
        membership = server.bootstrap.run() => membership?,
        () = &mut shutdown => return Ok(()),
    };
    let running = server.begin(membership).await?;
    let removed = tokio::select! {
        () = &mut shutdown => None,
        reason = server.look_after(&running.node) => Some(reason),
    };
    server.stop(running, removed.is_none()).await?;
    removed.map_or(Ok(()), |reason| Err(StartError::Removed(reason)))
}

/// Parts of a server that exist before the node is part of a cluster.
struct Server {
    config: Config,
    data: Arc<DataDir>,
    engines: Engines,
    descriptor: NodeDescriptor,
    net: Arc<LocalNet>,
    bootstrap: Arc<Bootstrap>,
    front: Arc<ServiceState>,
    metrics: Arc<Metrics>,
    status: Arc<Status>,
    health: tonic_health::server::HealthReporter,
    disk: Arc<DiskWatch>,
    budget: Budget,
    peers: PeerRuntime,
    /// Tells the gRPC servers to end.
    ending: watch::Sender<bool>,
    grpc: parking_lot::Mutex<JoinSet<()>>,
    /// Tasks that end with the server.
    background: parking_lot::Mutex<JoinSet<()>>,
}

impl Server {
    async fn open(config: Config) -> Result<Server, StartError> {
        let open_files_max = open_files::raise_limit();
        let intent = Intent {
            peers: config.peers.clone(),
            join: config.join.clone(),
            cluster_init: config.cluster_init,
            split_keys: config.split_keys.clone(),
        };
        // Files of a node belong to its user alone.
        rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
        // Before anything is created in a directory that may have been named by mistake.
        if !intent.is_given() && !DataDir::is_members(&config.data_dir)? {
            return Err(StartError::NothingToDo(config.data_dir));
        }
        let data = Arc::new(DataDir::open(&config.data_dir)?);
        data.refuse_lost_engines()?;
        let host = config.listen_host.as_deref();
        let peers = PeerRuntime::start()?;
        let peer = {
            let (address, host) = (config.peer_address.clone(), config.listen_host.clone());
            // A socket belongs to the runtime in which it is created.
            let listening = peers
                .handle()
                .spawn(async move { listen("--peer-address", &address, host.as_deref()).await });
            joined(listening).await?
        };
        let client = listen("--client-address", &config.client_address, host).await?;
        let status_listener = listen("--status-address", &config.status_address, host).await?;
        let engines = {
            let (data, storage) = (data.clone(), config.storage.clone());
            let open = move || Engines::open(data.path(), &storage, open_files_max);
            joined(tokio::task::spawn_blocking(open)).await?
        };

        let descriptor = NodeDescriptor {
            node_id: 0,
            peer_address: config.peer_address.clone(),
            client_address: config.client_address.clone(),
            status_address: config.status_address.clone(),
            directory_id: data.identity().directory_id,
            state: NodeState::NodeUp.into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            starts: count_start(data.clone()).await?,
        };
        let net = Arc::new(LocalNet::new(&descriptor));
        let found = {
            let engines = engines.clone();
            Box::new(move |formation: &_, node_id| engines.found(formation, node_id))
        };
        let (own_data, own_net) = (data.clone(), net.clone());
        let bootstrap =
            Arc::new(Bootstrap::new(own_data, descriptor.clone(), intent, own_net, found));
        let metrics = Metrics::new();
        let requests = config.limits.stream_requests;
        let front = Arc::new(ServiceState::new(bootstrap.clone(), metrics.grpc(), requests));
        let service::AllRoutes { of_peers, of_clients, health } = service::routes(&front);
        service::set_serving(&health, false).await;
        let status = Arc::new(Status {
            bootstrap: bootstrap.clone(),
            front: front.clone(),
            metrics: metrics.clone(),
            stores: OnceLock::new(),
        });

        let budget = Budget::new(config.memory());
        let (ending, ended) = watch::channel(false);
        let mut grpc = JoinSet::new();
        let of_nodes =
            (peer, ConnectionLimit::of_nodes(open_files_max), CallerKind::Node, of_peers);
        let of_users =
            (client, ConnectionLimit::of_clients(open_files_max), CallerKind::User, of_clients);
        for (listener, limit, kind, routes) in [of_nodes, of_users] {
            let listener = LimitedListener::new(listener, limit, IdleTimeout::GRPC);
            let budget = match kind {
                CallerKind::Node => budget.of_nodes(),
                CallerKind::User => budget.clone(),
            };
            let origins = Origins::new(kind, budget);
            let serving = serve(listener, origins, routes, ended.clone());
            match kind {
                CallerKind::Node => grpc.spawn_on(serving, peers.handle()),
                CallerKind::User => grpc.spawn(serving),
            };
        }
        let mut background = JoinSet::new();
        let status_limit = ConnectionLimit::of_status_pages(open_files_max);
        let status_listener =
            LimitedListener::new(status_listener, status_limit, IdleTimeout::STATUS);
        let pages = status::router(status.clone());
        background.spawn(async move {
            if let Err(error) = axum::serve(status_listener, pages).await {
                tracing::error!("the status address is no longer served: {error}");
            }
        });
        tracing::info!(
            peer_address = config.peer_address,
            client_address = config.client_address,
            status_address = config.status_address,
            memory_limit_bytes = config.memory_limit,
            data_dir = %config.data_dir.display(),
            "listening"
        );
        Ok(Server {
            disk: Arc::new(DiskWatch::new(&config.data_dir, config.storage.disk_reserve_bytes)),
            config,
            data,
            engines,
            descriptor,
            net,
            bootstrap,
            front,
            metrics,
            status,
            health,
            ending,
            budget,
            peers,
            grpc: grpc.into(),
            background: background.into(),
        })
    }

    /// Starts the node and lets clients in.
    async fn begin(&self, membership: Membership) -> Result<Running, StartError> {
        self.net.keep_to(membership.cluster_id);
        let running = {
            let (config, data, engines) =
                (self.config.clone(), self.data.clone(), self.engines.clone());
            let (descriptor, net) = (self.descriptor.clone(), self.net.clone());
            let (disk, peers) = (self.disk.clone(), self.peers.handle().clone());
            joined(tokio::task::spawn_blocking(move || {
                Running::start(&peers, &config, &data, membership, descriptor, engines, net, &disk)
            }))
            .await?
        };
        let Membership { cluster_id, node_id } = membership;
        self.net.set_node(&running.node);
        self.metrics.set_sources(Sources {
            node: running.node.clone(),
            board: running.board.clone(),
            mailboxes: running.mailboxes.clone(),
            transport: running.transport.clone(),
            budget: self.budget.clone(),
            heavy_reads: running.heavy_reads.clone(),
            state: self.engines.state.clone(),
            log: self.engines.log.clone(),
            disk: self.disk.clone(),
            log_backlog: running.log_backlog.clone(),
            cluster_id,
            node_id,
        });
        let (board, pulses) = (running.board.clone(), running.pulses.clone());
        let (node, log_backlog) = (running.node.clone(), running.log_backlog.clone());
        let stores = Stores { node, board, pulses, log_backlog, cluster_id, node_id };
        assert!(self.status.stores.set(stores).is_ok(), "a process becomes a member once");
        let owed = running.owed();
        // Before any client can write.
        self.disk.look(&running.stores, &running.node, owed());
        self.front.open(running.member(&self.disk));
        running.node.start();
        service::set_serving(&self.health, true).await;
        let (disk, stores, node) =
            (self.disk.clone(), running.stores.clone(), running.node.clone());
        let watching = async move { disk.run(&stores, &node, owed).await };
        let lookup = Lookup {
            own: membership,
            node: running.node.clone(),
            directory: running.directory.clone(),
            seeds: self.config.peers.iter().chain(&self.config.join).cloned().collect(),
        };
        {
            let mut background = self.background.lock();
            background.spawn(watching);
            background.spawn(lookup.run());
        }
        tracing::info!(
            cluster_id = format!("{cluster_id:016x}"),
            node_id,
            stores = self.config.stores,
            "serving"
        );
        Ok(running)
    }

    /// Keeps data for the next start: the addresses of nodes, and the vote promise of its replicas.
    /// Sets whether this node is fit to lead. Returns the reason when the cluster no longer wants
    /// this node.
    async fn look_after(&self, node: &Node) -> String {
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let started = Instant::now();
        // For a person who starts a node by hand.
        let mut to_greet = std::io::stderr().is_terminal();
        loop {
            every.tick().await;
            if let Some(reason) = node.stopped() {
                return reason;
            }
            if to_greet && self.status.not_ready().is_none() {
                to_greet = false;
                let address = &self.config.client_address;
                let line =
                    format!("ready at {address}, try: rangedb --endpoints {address} put k v\n");
                // A line that cannot be written is nobody's loss.
                let _ = logging::standard_error().write_all(line.as_bytes());
            }
            let is_stuck = self.status.stores.get().is_some_and(|stores| stores.stuck().is_some());
            node.set_fit_to_lead(!is_stuck && self.disk.seen().room == Room::Enough);
            let (data, book) = (self.data.clone(), node.address_book());
            let kept = data.identity();
            // The promises of the previous process are over by then.
            let embargo_us = match kept.vote_embargo_us {
                before if started.elapsed() <= Duration::from_micros(before) => before,
                _ => self.config.raft.vote_embargo_us(),
            };
            if kept.nodes() != book || kept.vote_embargo_us != embargo_us {
                let keep = move || {
                    data.update(|identity| {
                        identity.set_nodes(&book);
                        identity.vote_embargo_us = embargo_us;
                    })
                };
                if let Err(error) = joined(tokio::task::spawn_blocking(keep)).await {
                    // Harmless: the next start has `--peers` too.
                    tracing::warn!("cannot keep the addresses of nodes: {error}");
                }
            }
        }
    }

    async fn stop(self, running: Running, hand_over: bool) -> Result<(), StartError> {
        tracing::info!("stopping");
        let begun = Instant::now();
        service::set_serving(&self.health, false).await;
        running.node.set_fit_to_lead(false);
        if hand_over {
            let handing_over = running.node.hand_over(HAND_OVER_MAX);
            if tokio::time::timeout(HAND_OVER_MAX, handing_over).await.is_err() {
                tracing::warn!("not every leadership could be handed over");
            }
        }
        self.front.stop();
        // An error means that no receiver is left.
        let _ = self.ending.send(true);
        let mut grpc = self.grpc.into_inner();
        let drained = async { while grpc.join_next().await.is_some() {} };
        // Streams end only when the clients and peers at the other end close them.
        let _ = tokio::time::timeout(DRAIN_MAX, drained).await;
        grpc.shutdown().await;

        let left = STOP_MAX.saturating_sub(begun.elapsed());
        let stopping = tokio::task::spawn_blocking(move || running.stop());
        match tokio::time::timeout(left, joined(stopping)).await {
            Ok(flushed) => flushed?,
            Err(_) => tracing::warn!("not flushed in time: the next start replays the log"),
        }
        self.background.into_inner().shutdown().await;
        tracing::info!(took_ms = begun.elapsed().as_millis() as u64, "stopped");
        Ok(())
    }
}

/// Counts this start of the node, durably. Addresses that it reports now replace those of earlier
/// starts.
async fn count_start(data: Arc<DataDir>) -> Result<u64, StartError> {
    let count = move || {
        data.update(|identity| {
            identity.starts = identity.starts.saturating_add(1);
            identity.starts
        })
    };
    Ok(joined(tokio::task::spawn_blocking(count)).await?)
}

async fn serve(
    listener: LimitedListener,
    origins: Origins,
    routes: Routes,
    mut ended: watch::Receiver<bool>,
) {
    let incoming = futures::stream::unfold((listener, origins), |(listener, origins)| async {
        let (connection, _) = listener.next().await;
        let connection = origins.of(connection);
        Some((Ok::<_, std::io::Error>(connection), (listener, origins)))
    });
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(2 * WINDOW_BYTES)
        .max_concurrent_streams(CONNECTION_STREAMS_MAX)
        .add_routes(routes);
    let ended = async move {
        // An error means that the sender is gone. The server then ends too.
        let _ = ended.wait_for(|ended| *ended).await;
    };
    if let Err(error) = server.serve_with_incoming_shutdown(incoming, ended).await {
        tracing::error!("gRPC is no longer served: {error}");
    }
}

/// Returns the outcome of a task on another thread. A panic of the task continues here.
async fn joined<T, E>(task: JoinHandle<Result<T, E>>) -> Result<T, E> {
    match task.await {
        Ok(outcome) => outcome,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
