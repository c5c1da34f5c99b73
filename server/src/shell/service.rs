//! The gRPC services, and the address that serves each of them ([`Listener`]). The services answer
//! from the moment the process listens. Until the node is part of a cluster, all services except
//! formation, health and reflection answer Unavailable.

mod kv;
mod listener;
mod metered;
mod node;
mod origin;
mod peer;
mod traced;

use std::sync::{Arc, OnceLock};

use axum::extract::State;
use axum::middleware::{self, Next};
use rangedb_client::status::to_status;
use rangedb_proto::v1;
use rangedb_proto::v1::kv_server::KvServer;
use rangedb_proto::v1::node_server::NodeServer;
use rangedb_proto::v1::peer_server::PeerServer;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tonic::Status;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_reflection::server::Builder;

use rangedb_proto::limits::MESSAGE_BYTES_MAX;

use crate::node::Node;
use crate::shell::bootstrap::Bootstrap;
use crate::shell::metrics::GrpcMetrics;
use crate::shell::snapshots::SnapshotReceiver;
use crate::shell::transport::Arrivals;
use listener::Listener;

pub(crate) use origin::Origins;

/// Parts that answer requests once the node is part of a cluster.
pub(crate) struct Member {
    pub node: Arc<Node>,
    pub arrivals: Arrivals,
    pub snapshots: SnapshotReceiver,
}

/// State that all services share.
pub(crate) struct ServiceState {
    bootstrap: Arc<Bootstrap>,
    member: OnceLock<Member>,
    stopping: watch::Sender<bool>,
    grpc: GrpcMetrics,
    /// Maximum number of requests of one stream in flight.
    stream_requests: usize,
    /// Runtime of clients' requests.
    runtime: Handle,
}

impl ServiceState {
    /// Creates the state. Clients' requests run on the current tokio runtime.
    pub fn new(bootstrap: Arc<Bootstrap>, grpc: GrpcMetrics, stream_requests: usize) -> Self {
        ServiceState {
            bootstrap,
            member: OnceLock::new(),
            stopping: watch::Sender::new(false),
            grpc,
            stream_requests,
            runtime: Handle::current(),
        }
    }

    /// Makes the node answer as a member of its cluster from now on.
    pub fn open(&self, member: Member) {
        assert!(self.member.set(member).is_ok(), "a process becomes a member once");
    }

    /// Refuses callers from now on. Streams end once their requests in flight are answered.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Resolves when [`ServiceState::stop`] is called.
    async fn stopped(&self) {
        // An error means that the sender is gone, which is an end too.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    fn member(&self) -> Result<&Member, Status> {
        let missing = || {
            let progress = self.bootstrap.progress();
            let message = format!("the node is not yet part of a cluster: {progress}");
            to_status(&v1::Error::unavailable(message))
        };
        self.member.get().ok_or_else(missing)
    }

    /// Returns the member for a request of a client. Refuses the request if the node is stopping.
    fn serving(&self) -> Result<&Member, Status> {
        if self.is_stopping() {
            return Err(to_status(&v1::Error::unavailable("the node is stopping")));
        }
        self.member()
    }
}

/// Routes of the peer address and of the client address.
pub(crate) struct AllRoutes {
    pub of_peers: Routes,
    pub of_clients: Routes,
    pub health: HealthReporter,
}

pub(crate) fn routes(front: &Arc<ServiceState>) -> AllRoutes {
    let (reporter, health) = tonic_health::server::health_reporter();
    let peer = PeerServer::new(peer::PeerService(front.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let of_peers = for_everyone(front).add_service(peer).add_service(health.clone());
    let of_peers = with_reflection(of_peers, Listener::Peer);
    let of_clients = with_reflection(for_everyone(front).add_service(health), Listener::Client);
    AllRoutes {
        of_peers: metered_and_counted(front, of_peers),
        of_clients: metered_and_counted(front, of_clients),
        health: reporter,
    }
}

/// Returns the services of both addresses.
fn for_everyone(front: &Arc<ServiceState>) -> Routes {
    let kv = KvServer::new(kv::KvService(front.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let node = NodeServer::new(node::NodeService(front.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    Routes::new(kv).add_service(node)
}

/// Adds reflection, which lists the services of the address. Clients ask for it by its present name
/// or by that of its first version.
fn with_reflection(routes: Routes, listener: Listener) -> Routes {
    const NAMES: [&str; 2] =
        ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];
    let builder = || {
        let builder = Builder::configure()
            .register_encoded_file_descriptor_set(rangedb_proto::FILE_DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(
                tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
            );
        let served = listener.services().iter().chain(&NAMES);
        served.fold(builder, |builder, service| builder.with_service_name(*service))
    };
    let known = "the descriptors are those that the services are made from";
    routes
        .add_service(builder().build_v1().expect(known))
        .add_service(builder().build_v1alpha().expect(known))
}

/// Tells clients that ask for health whether the node serves: of the server as a whole, and of each
/// service by its name.
pub(crate) async fn set_serving(health: &HealthReporter, serves: bool) {
    let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in Listener::Peer.services().iter().chain(&[""]) {
        health.set_service_status(*service, status).await;
    }
}

fn metered_and_counted(front: &Arc<ServiceState>, routes: Routes) -> Routes {
    let count = middleware::from_fn_with_state(front.clone(), count);
    let metered = routes.into_axum_router().layer(middleware::from_fn(metered::meter));
    Routes::from(metered.layer(count))
}

/// Counts a call by method and code, and measures the time until its response headers: the whole of
/// a unary call, the opening of a stream.
async fn count(
    State(front): State<Arc<ServiceState>>,
    request: axum::extract::Request,
    next: Next,
) -> axum::response::Response {
    let timer = front.grpc.begin(request.uri().path());
    let response = next.run(request).await;
    timer.end(response.headers());
    response
}
