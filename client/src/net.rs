//! The world as the client crate sees it. Production is tonic and tokio ([`crate::grpc`]); the
//! simulator gives a seeded one, so that coordinators run there unchanged (design D9).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use rangedb_proto::v1;

/// A future that a trait object returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A call that brought no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The request did not leave, or was refused before it was read: it certainly did not happen.
    NotSent(String),
    /// The connection broke or the time ran out afterwards: it may have happened.
    Lost(String),
}

/// Calls, time and randomness: all that a coordinator may use of the outside.
///
/// Nothing else in this crate may look at a clock, sleep, spawn or draw a random number, except the
/// production implementation itself.
pub trait Net: Send + Sync {
    /// One request to the node at `address` ("host:port"). Cancelled when dropped.
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: v1::request::Body,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<v1::response::Body, CallError>>;

    /// As [`Net::call`], given up as soon as `given_up` says why: it may have happened, unless the
    /// implementation knows that the request has not left yet. The callee is told of `timeout`, and
    /// the caller sees to it that `given_up` is not later.
    fn call_unless<'a>(
        &'a self,
        address: &'a str,
        request: v1::request::Body,
        timeout: Duration,
        given_up: BoxFuture<'a, String>,
    ) -> BoxFuture<'a, Result<v1::response::Body, CallError>> {
        let call = self.call(address, request, timeout);
        Box::pin(async move {
            match select(call, given_up).await {
                Either::Left((answer, _)) => answer,
                Either::Right((reason, _)) => Err(CallError::Lost(reason)),
            }
        })
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Monotonic time since some fixed moment.
    fn now(&self) -> Duration;

    /// Uniform below `bound`, which is not 0. For jitter, never for safety.
    fn random_below(&self, bound: u64) -> u64;

    /// Runs a task in the background until it ends.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

pub type SharedNet = Arc<dyn Net>;
