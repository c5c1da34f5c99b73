//! Delivery of requests to nodes that can answer them. All retries of this crate happen here: find
//! the node, send the request, learn from the response, and let [`Retry`] decide the next step.
//!
//! A request goes to a range (its leader answers) or to the cluster (any node answers). The route
//! to a range is itself requested from the cluster, one attempt in each iteration of the loop.
//!
//! One attempt at a range has three steps, so that a caller reads from top to bottom:
//!
//! 1. [`Sender::route`] returns the range and the node to send to.
//! 2. The caller builds the request for that range, or finds that its keys no longer fit it.
//! 3. [`Sender::send`] returns the response, or none when the next attempt is due.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use rangedb_proto::v1::{self, RangeDescriptor, error::Kind, request, response};
use rangedb_proto::{CONTROL_PREFIX, RequestEffect};

use super::endpoints::Endpoints;
use super::retry::{ATTEMPT_MIN, Attempt, Retry, RetrySafety};
use super::router::{NodeAddress, RouteTarget, Router};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::metrics::Counters;
use crate::net::{CallError, SharedNet};
use crate::trace::traced;

/// Ranges in one look-up: a scan looks up its route once in 16 ranges.
const LOCATE_RANGES: u32 = 16;

/// Builds the request for the range that a descriptor describes.
pub(crate) type Build<'a> = &'a (dyn Fn(&RangeDescriptor) -> request::Body + Sync);

/// A range, and the node to send its next request to.
pub(crate) struct Destination {
    pub range: Arc<RangeDescriptor>,
    node: NodeAddress,
}

/// Response of a range's leader.
pub(crate) enum Reached {
    Response(response::Body),
    /// Nothing was done: an uncommitted write is in the way. The caller decides the next step.
    Locked(v1::KeyLocked),
}

pub(crate) struct Sender {
    pub net: SharedNet,
    pub router: Router,
    pub metrics: Counters,
    pub slow_transaction: Duration,
    endpoints: Endpoints,
}

impl Sender {
    pub fn new(net: SharedNet, config: &Config) -> Self {
        let endpoints = Endpoints::new(&config.endpoints);
        let (router, metrics) = (Router::new(config.address_kind), Counters::default());
        let slow_transaction = config.slow_transaction;
        Sender { net, router, metrics, slow_transaction, endpoints }
    }

    /// Finds the range at a target, and the node to send to. The caller keeps `retry` for all
    /// attempts, because a lost attempt may have had an effect even if a later one meets a lock.
    pub async fn route(
        &self,
        target: RouteTarget<'_>,
        retry: &mut Retry<'_>,
    ) -> Result<Destination> {
        loop {
            retry.check_time()?;
            let failed: Attempt<Infallible> = match self.attempt_route(target, retry).await {
                Ok((range, Some(node))) => return Ok(Destination { range, node }),
                Ok((range, None)) => {
                    // Every replica was tried. Perhaps the range has other replicas by now.
                    self.router.doubt(&range);
                    retry.round_over()
                }
                Err(failed) => failed,
            };
            retry.after(failed).await?;
            self.metrics.retries.add(1);
        }
    }

    /// Sends a request to a destination, once. Returns none when the next attempt is due, with a
    /// new route.
    pub async fn send(
        &self,
        to: &Destination,
        body: request::Body,
        retry: &mut Retry<'_>,
    ) -> Result<Option<Reached>> {
        let attempt = self.attempt_range(to, body, retry).await;
        let reached = retry.after(attempt).await?;
        if reached.is_none() {
            self.metrics.retries.add(1);
        }
        Ok(reached)
    }

    /// Sends a request that fits every range to the range at a target, until its leader responds.
    /// Also returns the range's descriptor at that time.
    pub async fn to_range(
        &self,
        target: RouteTarget<'_>,
        build: Build<'_>,
        retry: &mut Retry<'_>,
    ) -> Result<(Arc<RangeDescriptor>, Reached)> {
        loop {
            let to = self.route(target, retry).await?;
            let body = build(&to.range);
            if let Some(reached) = self.send(&to, body, retry).await? {
                return Ok((to.range, reached));
            }
        }
    }

    /// Sends a request to the control plane: to its node if that is known, else to any node, which
    /// forwards the request.
    pub async fn to_cluster(
        &self,
        deadline: Duration,
        body: &request::Body,
    ) -> Result<response::Body> {
        let safety = match body.effect() {
            RequestEffect::Read | RequestEffect::Idempotent => RetrySafety::Repeatable,
            RequestEffect::Recognised => RetrySafety::Recognised,
        };
        self.to_cluster_by(&mut Retry::new(&*self.net, safety, deadline), body).await
    }

    /// As [`Sender::to_cluster`], for a caller that looks at the attempts afterwards.
    pub async fn to_cluster_by(
        &self,
        retry: &mut Retry<'_>,
        body: &request::Body,
    ) -> Result<response::Body> {
        loop {
            retry.check_time()?;
            let attempt = self.attempt_cluster(body, retry).await;
            if let Some(response) = retry.after(attempt).await? {
                return Ok(response);
            }
            self.metrics.retries.add(1);
        }
    }

    /// Returns the range at a target, from the cache if it is there.
    pub async fn locate(
        &self,
        target: RouteTarget<'_>,
        deadline: Duration,
    ) -> Result<Arc<RangeDescriptor>> {
        let mut retry = Retry::new(&*self.net, RetrySafety::Repeatable, deadline);
        loop {
            retry.check_time()?;
            let attempt = match self.attempt_route(target, &mut retry).await {
                Ok((range, _)) => Attempt::Response(range),
                Err(failed) => failed,
            };
            if let Some(range) = retry.after(attempt).await? {
                return Ok(range);
            }
        }
    }

    /// Looks a target up in the directory, whatever is cached, with one attempt. False if the
    /// directory did not respond.
    pub async fn look_up(&self, target: RouteTarget<'_>, timeout: Duration) -> bool {
        let mut retry = Retry::new(&*self.net, RetrySafety::Repeatable, self.net.now() + timeout);
        matches!(self.attempt_look_up(target, &mut retry).await, Attempt::Response(()))
    }

    async fn attempt_range(
        &self,
        Destination { range, node }: &Destination,
        body: request::Body,
        retry: &mut Retry<'_>,
    ) -> Attempt<Reached> {
        let Some(probe) = retry.leader_probe() else {
            return retry.round_over();
        };
        retry.tried.insert(node.address.clone());
        let call = probe.call(&*self.net, &node.address, range, body);
        match traced(&*self.net, "call", call).await {
            Ok(response::Body::Error(v1::Error { kind: Some(Kind::KeyLocked(lock)), .. })) => {
                self.router.leads(range, node.node_id);
                Attempt::Response(Reached::Locked(lock))
            }
            Ok(response::Body::Error(error)) => {
                self.learn(range, node, &error);
                Attempt::from_error(error)
            }
            Ok(response) => {
                self.router.leads(range, node.node_id);
                Attempt::Response(Reached::Response(response))
            }
            Err(error) => {
                // No node can answer in less than `ATTEMPT_MIN`, so the failure of a shorter
                // attempt is not the node's.
                if probe.total >= ATTEMPT_MIN || matches!(error, CallError::NotSent(_)) {
                    self.router.turned_away(range, node.node_id);
                }
                Attempt::from_call_error(error, &node.address)
            }
        }
    }

    async fn call(
        &self,
        address: &str,
        body: request::Body,
        timeout: Duration,
    ) -> Result<response::Body, CallError> {
        traced(&*self.net, "call", self.net.call(address, body, timeout)).await
    }

    /// Finds the range at a target and the node to send to, in the cache or the directory. No node:
    /// every replica with a known address was tried.
    async fn attempt_route<T>(
        &self,
        target: RouteTarget<'_>,
        retry: &mut Retry<'_>,
    ) -> Result<(Arc<RangeDescriptor>, Option<NodeAddress>), Attempt<T>> {
        let cached = self.router.route(target, &retry.tried);
        if let Some(route) = cached.as_ref().filter(|route| !route.doubtful) {
            return Ok((route.descriptor.clone(), route.node.clone()));
        }
        match self.attempt_look_up(target, retry).await {
            Attempt::Response(()) => {}
            failed => match &cached {
                Some(route) => self.router.trust(&route.descriptor),
                None => return Err(failed.without_response()),
            },
        }
        match self.router.route(target, &retry.tried) {
            Some(route) => Ok((route.descriptor, route.node)),
            None => {
                let reason = "the directory does not know the range yet".to_owned();
                let reason = Error::Unavailable(reason);
                Err(Attempt::Later { at_least: Duration::ZERO, reason })
            }
        }
    }

    async fn attempt_look_up(&self, target: RouteTarget<'_>, retry: &mut Retry<'_>) -> Attempt<()> {
        let (key, reverse) = match target {
            RouteTarget::Key(key) => (key, false),
            RouteTarget::Below(end) => (end, true),
        };
        let locate = v1::Locate { key: key.to_vec().into(), count: LOCATE_RANGES, reverse };
        let tried = &retry.directories_tried;
        let Some(address) = self.endpoints.pick(tried, || self.router.addresses()) else {
            retry.directories_tried.clear();
            return retry.round_over();
        };
        retry.directories_tried.insert(address.clone());
        let body = request::Body::Locate(locate);
        match self.call_endpoint(&address, body, retry).await {
            Attempt::Response(response::Body::Locate(reply)) => {
                self.router.learn(target, reply);
                retry.directories_tried.remove(&address);
                Attempt::Response(())
            }
            Attempt::Response(_) => Attempt::Elsewhere(unexpected_response(&address)),
            // The request is valid: this node is not part of the cluster yet.
            Attempt::Refused(error) => Attempt::Elsewhere(error),
            failed => failed.without_response(),
        }
    }

    async fn attempt_cluster(
        &self,
        body: &request::Body,
        retry: &mut Retry<'_>,
    ) -> Attempt<response::Body> {
        let leader = self.router.leader(CONTROL_PREFIX);
        if let Some(leader) = leader.filter(|leader| !retry.tried.contains(&leader.address)) {
            return self.attempt_control_leader(&leader, body, retry).await;
        }
        let Some(address) = self.endpoints.pick(&retry.tried, || self.router.addresses()) else {
            return retry.round_over();
        };
        retry.tried.insert(address.clone());
        self.call_endpoint(&address, body.clone(), retry).await
    }

    async fn attempt_control_leader(
        &self,
        leader: &NodeAddress,
        body: &request::Body,
        retry: &mut Retry<'_>,
    ) -> Attempt<response::Body> {
        let Some(timeout) = retry.attempt_timeout() else {
            return retry.round_over();
        };
        retry.tried.insert(leader.address.clone());
        let route = self.router.route(RouteTarget::Key(CONTROL_PREFIX), &retry.tried);
        let descriptor = route.map(|route| route.descriptor).unwrap_or_default();
        match self.call(&leader.address, body.clone(), timeout).await {
            Ok(response::Body::Error(error)) => {
                self.learn(&descriptor, leader, &error);
                Attempt::from_error(error).elsewhere_first()
            }
            Ok(response) => Attempt::Response(response),
            Err(error) => {
                self.router.turned_away(&descriptor, leader.node_id);
                Attempt::from_call_error(error, &leader.address)
            }
        }
    }

    async fn call_endpoint(
        &self,
        address: &Arc<str>,
        body: request::Body,
        retry: &Retry<'_>,
    ) -> Attempt<response::Body> {
        let Some(timeout) = retry.attempt_timeout() else {
            return retry.round_over();
        };
        match self.call(address, body, timeout).await {
            Ok(response::Body::Error(error)) => {
                if let Some(Kind::NotLeader(not_leader)) = &error.kind {
                    let address = self.router.address_kind().of_leader(not_leader);
                    if !address.is_empty() {
                        self.endpoints.prefer(&Arc::from(address));
                    }
                }
                Attempt::from_error(error).elsewhere_first()
            }
            Ok(response) => {
                self.endpoints.prefer(address);
                Attempt::Response(response)
            }
            Err(error) => {
                self.endpoints.failed(address);
                Attempt::from_call_error(error, address)
            }
        }
    }

    /// Updates the router from the error of a node, which received a request for the range `used`.
    fn learn(&self, used: &RangeDescriptor, node: &NodeAddress, error: &v1::Error) {
        match &error.kind {
            Some(Kind::NotLeader(not_leader @ v1::NotLeader { leader: Some(leader), .. }))
                if leader.node_id != node.node_id =>
            {
                let address = self.router.address_kind().of_leader(not_leader);
                self.router.hint(used, leader.node_id, address);
            }
            // A leader without a quorum counts as none. So does a leader that cannot execute
            // requests, for example because its node cannot reach the oracle.
            Some(Kind::NotLeader(_) | Kind::Unavailable(_) | Kind::Undetermined(_)) => {
                self.router.turned_away(used, node.node_id);
            }
            Some(Kind::StaleEpoch(stale)) => {
                // Without effect if one of these descriptors replaces the cached one.
                self.router.doubt(used);
                self.router.learn_descriptors(stale.descriptors.clone());
            }
            Some(Kind::RangeNotFound(_)) => {
                self.router.turned_away(used, node.node_id);
                self.router.doubt(used);
            }
            _ => {}
        }
    }
}

/// Error for a response that does not belong to its request.
pub(crate) fn unexpected_response(from: &str) -> Error {
    Error::protocol(format!("{from} answered something else than what was asked"))
}
