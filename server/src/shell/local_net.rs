//! Network of the node's own client. Calls to this node's own addresses go straight to
//! [`Node::handle`], without a socket; calls to other nodes go out by gRPC.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures::future::{Either, select};
use rangedb_client::grpc::GrpcNet;
use rangedb_client::net::{BoxFuture, CallError, Net};
use rangedb_proto::v1::{NodeDescriptor, request, response};

use crate::node::{Caller, CallerKind, Node};

pub(crate) struct LocalNet {
    remote: GrpcNet,
    own_addresses: [String; 2],
    node: OnceLock<Weak<Node>>,
}

impl LocalNet {
    /// Creates a net on the current tokio runtime.
    pub fn new(own: &NodeDescriptor) -> Self {
        LocalNet {
            remote: GrpcNet::new(),
            own_addresses: [own.peer_address.clone(), own.client_address.clone()],
            node: OnceLock::new(),
        }
    }

    /// Restricts calls to nodes of this cluster from now on.
    pub fn keep_to(&self, cluster_id: u64) {
        self.remote.keep_to(cluster_id);
    }

    /// Sets the node that answers calls to its own addresses. The reference is weak, because the
    /// node holds this net.
    pub fn set_node(&self, node: &Arc<Node>) {
        assert!(self.node.set(Arc::downgrade(node)).is_ok(), "a process is one node");
    }
}

impl Net for LocalNet {
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: request::Body,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<response::Body, CallError>> {
        if !self.own_addresses.iter().any(|own| own == address) {
            return self.remote.call(address, request, timeout);
        }
        Box::pin(async move {
            let node = self.node.get().and_then(Weak::upgrade);
            let node = node.ok_or_else(|| CallError::NotSent("this node is not ready".into()))?;
            // The caller that asked this node has taken memory for the answer that this node passes
            // on.
            let caller = Caller::within(CallerKind::Node);
            Ok(node.handle(caller, request, timeout).await.0)
        })
    }

    fn call_unless<'a>(
        &'a self,
        address: &'a str,
        request: request::Body,
        timeout: Duration,
        given_up: BoxFuture<'a, String>,
    ) -> BoxFuture<'a, Result<response::Body, CallError>> {
        if !self.own_addresses.iter().any(|own| own == address) {
            return self.remote.call_unless(address, request, timeout, given_up);
        }
        let call = self.call(address, request, timeout);
        Box::pin(async move {
            match select(call, given_up).await {
                Either::Left((answer, _)) => answer,
                Either::Right((reason, _)) => Err(CallError::Lost(reason)),
            }
        })
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.remote.sleep(duration)
    }

    fn now(&self) -> Duration {
        self.remote.now()
    }

    fn random_below(&self, bound: u64) -> u64 {
        self.remote.random_below(bound)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.remote.spawn(task);
    }
}
