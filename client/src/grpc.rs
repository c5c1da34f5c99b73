//! [`Net`] over gRPC and tokio: one connection with one stream to each node, on which requests
//! travel in batches.
//!
//! A unary call costs a stream, headers and a wake-up for each request. On one stream, all requests
//! that gathered while the last message was in flight go out as the next message
//! (docs/architecture.md, D8). The higher the load, the larger the batches.
//!
//! A link (`link.rs`) is the task that owns such a connection. The first request opens a link, and
//! a link ends after a minute without use, so that nodes that left are forgotten.
//!
//! A link names the cluster that it means (`cluster.rs`): a node of another cluster may listen at
//! the address today, and its ranges have the same ids and epochs.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "the one place that sees the real world"
)]

mod cluster;
mod link;
mod outgoing;

pub use self::cluster::{
    CLUSTER_ID_KEY, check as check_cluster, unread, value as cluster_id_value,
};

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rangedb_proto::v1::{request, response};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;

use self::cluster::Cluster;
use self::link::Link;
use self::outgoing::{LinkQueue, Outgoing};
use crate::net::{BoxFuture, CallError, Net};

/// Nodes with an open link, by address.
type Links = Mutex<BTreeMap<String, LinkQueue>>;

/// The production [`Net`].
pub struct GrpcNet {
    runtime: Handle,
    started: Instant,
    cluster: Arc<Cluster>,
    links: Arc<Links>,
}

impl GrpcNet {
    /// Creates a network that keeps to the cluster of the first node that answers. It uses the
    /// current tokio runtime from then on.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[expect(clippy::new_without_default, reason = "Default would hide that it needs a runtime")]
    pub fn new() -> Self {
        GrpcNet {
            runtime: Handle::current(),
            started: Instant::now(),
            cluster: Arc::default(),
            links: Arc::default(),
        }
    }

    /// Keeps to this cluster and no other, on all links that are opened from now on.
    pub fn keep_to(&self, cluster_id: u64) {
        self.cluster.keep_to(cluster_id);
    }

    fn queue(&self, address: &str) -> LinkQueue {
        let mut links = self.links.lock();
        if let Some(queue) = links.get(address).filter(|queue| !queue.is_closed()) {
            return queue.clone();
        }
        let (queue, waiting) = outgoing::channel();
        let forget = forget_when_ended(Arc::downgrade(&self.links), address.to_owned());
        let link = Link::new(address.to_owned(), self.cluster.clone(), waiting);
        self.runtime.spawn(async move {
            link.run().await;
            forget();
        });
        links.insert(address.to_owned(), queue.clone());
        queue
    }
}

/// Returns a function that removes the link from the list, unless another link has replaced it.
fn forget_when_ended(links: Weak<Links>, address: String) -> impl FnOnce() {
    move || {
        if let Some(links) = links.upgrade() {
            let mut links = links.lock();
            if links.get(&address).is_some_and(LinkQueue::is_closed) {
                links.remove(&address);
            }
        }
    }
}

impl Net for GrpcNet {
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: request::Body,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<response::Body, CallError>> {
        let _runtime = self.runtime.enter();
        let expiry = tokio::time::sleep(timeout);
        let time_is_up = Box::pin(async move {
            expiry.await;
            format!("no answer within {timeout:?}")
        });
        self.call_unless(address, request, timeout, time_is_up)
    }

    fn call_unless<'a>(
        &'a self,
        address: &'a str,
        request: request::Body,
        timeout: Duration,
        given_up: BoxFuture<'a, String>,
    ) -> BoxFuture<'a, Result<response::Body, CallError>> {
        let queue = self.queue(address);
        Box::pin(async move {
            let (outgoing, pending) = Outgoing::new(request, timeout);
            queue.try_send(outgoing).map_err(|error| {
                CallError::NotSent(match error {
                    TrySendError::Full(()) => "too many requests waiting".to_owned(),
                    TrySendError::Closed(()) => "the connection is closing".to_owned(),
                })
            })?;
            pending.answer_unless(given_up).await
        })
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let _runtime = self.runtime.enter();
        Box::pin(tokio::time::sleep(duration))
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn random_below(&self, bound: u64) -> u64 {
        fastrand::u64(..bound)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.runtime.spawn(task);
    }
}
