//! Delivery of requests to nodes that can answer them. All retries of this crate happen here: find
//! the node, ask it, learn from its answer, and let [`Retry`] decide the next step.
//!
//! A request goes to a range (its leader answers) or to the cluster (any node answers). The route
//! to a range is itself requested from the cluster, one attempt in each iteration of the loop.

use std::sync::Arc;
use std::time::Duration;

use rangedb_proto::v1::{self, RangeDescriptor, error::Kind, request, response};
use rangedb_proto::{CONTROL_PREFIX, Effect};

use crate::config::Config;
use crate::endpoints::Endpoints;
use crate::error::{Error, Result};
use crate::metrics::Counters;
use crate::net::{CallError, SharedNet};
use crate::retry::{ATTEMPT_MIN, Outcome, Retry, RetrySafety, outcome_of};
use crate::router::{Place, Router, Target};
use crate::trace::traced;

/// Ranges in one look-up: a scan looks up its route once in 16 ranges.
const LOCATE_RANGES: u32 = 16;

/// Builds the request for the range that a descriptor describes; an error ends the request.
pub(crate) type Build<'a> = &'a (dyn Fn(&RangeDescriptor) -> Result<request::Body> + Sync);

/// Response of a range's leader.
pub(crate) enum Reached {
    Answer(response::Body),
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

    /// Sends a request to the leader of the range at a place. Also returns the range's descriptor
    /// at that time. The caller keeps `retry`, because a lost attempt may have had an effect even
    /// if a later one meets a lock.
    pub async fn to_range(
        &self,
        place: Place<'_>,
        build: Build<'_>,
        retry: &mut Retry<'_>,
    ) -> Result<(Arc<RangeDescriptor>, Reached)> {
        loop {
            retry.check_time()?;
            let outcome = self.ask_range(place, build, retry).await;
            if let Some(answer) = retry.after(outcome).await? {
                return Ok(answer);
            }
            self.metrics.retries.add(1);
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
            Effect::Read | Effect::Idempotent => RetrySafety::Repeatable,
            Effect::Once => RetrySafety::Once,
        };
        let mut retry = Retry::new(&*self.net, safety, deadline);
        loop {
            retry.check_time()?;
            let outcome = self.ask_cluster(body, &mut retry).await;
            if let Some(answer) = retry.after(outcome).await? {
                return Ok(answer);
            }
            self.metrics.retries.add(1);
        }
    }

    /// Returns the range at a place, from the cache if it is there.
    pub async fn locate(
        &self,
        place: Place<'_>,
        deadline: Duration,
    ) -> Result<Arc<RangeDescriptor>> {
        let mut retry = Retry::new(&*self.net, RetrySafety::Repeatable, deadline);
        loop {
            retry.check_time()?;
            let outcome = match self.way_to(place, &mut retry).await {
                Ok((descriptor, _)) => Outcome::Answer(descriptor),
                Err(outcome) => outcome,
            };
            if let Some(descriptor) = retry.after(outcome).await? {
                return Ok(descriptor);
            }
        }
    }

    /// Looks a place up in the directory, whatever is cached, with one attempt. False if the
    /// directory did not answer.
    pub async fn look_up(&self, place: Place<'_>, timeout: Duration) -> bool {
        let mut retry = Retry::new(&*self.net, RetrySafety::Repeatable, self.net.now() + timeout);
        matches!(self.ask_directory(place, &mut retry).await, Outcome::Answer(()))
    }

    async fn ask_range(
        &self,
        place: Place<'_>,
        build: Build<'_>,
        retry: &mut Retry<'_>,
    ) -> Outcome<(Arc<RangeDescriptor>, Reached)> {
        let (descriptor, target) = match self.way_to(place, retry).await {
            Ok(way) => way,
            Err(outcome) => return outcome,
        };
        let Some(target) = target else {
            // Every replica was asked. Perhaps the range has other replicas by now.
            self.router.doubt(&descriptor);
            return retry.round_over();
        };
        let body = match build(&descriptor) {
            Ok(body) => body,
            Err(error) => return Outcome::Refused(error),
        };
        let Some(patience) = retry.patience() else {
            return retry.round_over();
        };
        retry.asked.insert(target.address.clone());
        let call = patience.call(&*self.net, &target.address, &descriptor, body);
        match traced(&*self.net, "call", call).await {
            Ok(response::Body::Error(v1::Error { kind: Some(Kind::KeyLocked(lock)), .. })) => {
                self.router.leads(&descriptor, target.node_id);
                Outcome::Answer((descriptor, Reached::Locked(lock)))
            }
            Ok(response::Body::Error(error)) => {
                self.learn(&descriptor, &target, &error);
                outcome_of(error)
            }
            Ok(answer) => {
                self.router.leads(&descriptor, target.node_id);
                Outcome::Answer((descriptor, Reached::Answer(answer)))
            }
            Err(error) => {
                // No node can answer in less than `ATTEMPT_MIN`, so the failure of a shorter
                // attempt is not the node's.
                if patience.all >= ATTEMPT_MIN || matches!(error, CallError::NotSent(_)) {
                    self.router.turned_away(&descriptor, target.node_id);
                }
                outcome_of_call(error, &target.address)
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

    /// Returns the range at a place and the node to ask, from the cache or the directory.
    async fn way_to<T>(
        &self,
        place: Place<'_>,
        retry: &mut Retry<'_>,
    ) -> Result<(Arc<RangeDescriptor>, Option<Target>), Outcome<T>> {
        let cached = self.router.route(place, &retry.asked);
        if let Some(route) = cached.as_ref().filter(|route| !route.doubtful) {
            return Ok((route.descriptor.clone(), route.target.clone()));
        }
        match self.ask_directory(place, retry).await {
            Outcome::Answer(()) => {}
            failed => match &cached {
                Some(route) => self.router.trust(&route.descriptor),
                None => return Err(failed.without_answer()),
            },
        }
        match self.router.route(place, &retry.asked) {
            Some(route) => Ok((route.descriptor, route.target)),
            None => {
                let reason = "the directory does not know the range yet".to_owned();
                let reason = Error::Unavailable(reason);
                Err(Outcome::Later { at_least: Duration::ZERO, reason })
            }
        }
    }

    async fn ask_directory(&self, place: Place<'_>, retry: &mut Retry<'_>) -> Outcome<()> {
        let (key, reverse) = match place {
            Place::Key(key) => (key, false),
            Place::Below(end) => (end, true),
        };
        let locate = v1::Locate { key: key.to_vec().into(), count: LOCATE_RANGES, reverse };
        let asked = &retry.directories_asked;
        let Some(address) = self.endpoints.pick(asked, || self.router.addresses()) else {
            retry.directories_asked.clear();
            return retry.round_over();
        };
        retry.directories_asked.insert(address.clone());
        let body = request::Body::Locate(locate);
        match self.call_endpoint(&address, body, retry).await {
            Outcome::Answer(response::Body::Locate(reply)) => {
                self.router.learn(place, reply);
                retry.directories_asked.remove(&address);
                Outcome::Answer(())
            }
            Outcome::Answer(_) => Outcome::Elsewhere(unexpected_answer(&address)),
            // The request is valid: this node is not part of the cluster yet.
            Outcome::Refused(error) => Outcome::Elsewhere(error),
            failed => failed.without_answer(),
        }
    }

    async fn ask_cluster(
        &self,
        body: &request::Body,
        retry: &mut Retry<'_>,
    ) -> Outcome<response::Body> {
        let leader = self.router.leader(CONTROL_PREFIX);
        if let Some(leader) = leader.filter(|leader| !retry.asked.contains(&leader.address)) {
            return self.ask_control_leader(&leader, body, retry).await;
        }
        let Some(address) = self.endpoints.pick(&retry.asked, || self.router.addresses()) else {
            return retry.round_over();
        };
        retry.asked.insert(address.clone());
        self.call_endpoint(&address, body.clone(), retry).await
    }

    async fn ask_control_leader(
        &self,
        leader: &Target,
        body: &request::Body,
        retry: &mut Retry<'_>,
    ) -> Outcome<response::Body> {
        let Some(timeout) = retry.attempt_timeout() else {
            return retry.round_over();
        };
        retry.asked.insert(leader.address.clone());
        let route = self.router.route(Place::Key(CONTROL_PREFIX), &retry.asked);
        let descriptor = route.map(|route| route.descriptor).unwrap_or_default();
        match self.call(&leader.address, body.clone(), timeout).await {
            Ok(response::Body::Error(error)) => {
                self.learn(&descriptor, leader, &error);
                elsewhere_first(outcome_of(error))
            }
            Ok(answer) => Outcome::Answer(answer),
            Err(error) => {
                self.router.turned_away(&descriptor, leader.node_id);
                outcome_of_call(error, &leader.address)
            }
        }
    }

    async fn call_endpoint(
        &self,
        address: &Arc<str>,
        body: request::Body,
        retry: &Retry<'_>,
    ) -> Outcome<response::Body> {
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
                elsewhere_first(outcome_of(error))
            }
            Ok(answer) => {
                self.endpoints.prefer(address);
                Outcome::Answer(answer)
            }
            Err(error) => {
                self.endpoints.failed(address);
                outcome_of_call(error, address)
            }
        }
    }

    /// Updates the router from a node's error.
    fn learn(&self, used: &RangeDescriptor, asked: &Target, error: &v1::Error) {
        match &error.kind {
            Some(Kind::NotLeader(not_leader @ v1::NotLeader { leader: Some(leader), .. }))
                if leader.node_id != asked.node_id =>
            {
                let address = self.router.address_kind().of_leader(not_leader);
                self.router.hint(used, leader.node_id, address);
            }
            // A leader without a quorum counts as none. So does a leader that cannot execute
            // requests, for example because its node cannot reach the oracle.
            Some(Kind::NotLeader(_) | Kind::Unavailable(_) | Kind::Undetermined(_)) => {
                self.router.turned_away(used, asked.node_id);
            }
            Some(Kind::StaleEpoch(stale)) => {
                // Without effect if one of these descriptors replaces the cached one.
                self.router.doubt(used);
                self.router.learn_descriptors(stale.descriptors.clone());
            }
            Some(Kind::RangeNotFound(_)) => {
                self.router.turned_away(used, asked.node_id);
                self.router.doubt(used);
            }
            _ => {}
        }
    }
}

impl<T> Outcome<T> {
    /// Converts an outcome without an answer to another answer type.
    fn without_answer<U>(self) -> Outcome<U> {
        match self {
            Outcome::Answer(_) => unreachable!("only failed attempts are passed on"),
            Outcome::Elsewhere(reason) => Outcome::Elsewhere(reason),
            Outcome::Rerouted(reason) => Outcome::Rerouted(reason),
            Outcome::Later { at_least, reason } => Outcome::Later { at_least, reason },
            // Only a look-up was lost, which changes nothing.
            Outcome::Lost(reason) => Outcome::Elsewhere(Error::Unavailable(reason)),
            Outcome::Refused(error) => Outcome::Refused(error),
        }
    }
}

/// Turns a pause or a reroute into `Elsewhere`: this node cannot reach the one that answers, but
/// other nodes may. They are asked before the pause.
fn elsewhere_first<T>(outcome: Outcome<T>) -> Outcome<T> {
    match outcome {
        Outcome::Later { at_least: Duration::ZERO, reason } | Outcome::Rerouted(reason) => {
            Outcome::Elsewhere(reason)
        }
        other => other,
    }
}

fn outcome_of_call<T>(error: CallError, address: &str) -> Outcome<T> {
    match error {
        CallError::NotSent(reason) => {
            Outcome::Elsewhere(Error::Unavailable(format!("{address}: {reason}")))
        }
        #[cfg(feature = "planted")]
        CallError::Lost(reason) if rangedb_planted::Bug::LostAnswerAsRefusal.is_planted() => {
            Outcome::Elsewhere(Error::Unavailable(reason))
        }
        CallError::Lost(reason) => Outcome::Lost(format!("{address}: {reason}")),
    }
}

/// Error for an answer that does not belong to its request.
pub(crate) fn unexpected_answer(from: &str) -> Error {
    Error::protocol(format!("{from} answered something else than what was asked"))
}
