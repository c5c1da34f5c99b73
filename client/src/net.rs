//! Interface of the client crate to its environment. Production uses tonic and tokio
//! ([`crate::grpc`]). The simulator provides a seeded implementation, so that coordinators run
//! there unchanged (design D9).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use rangedb_proto::v1;

/// A future that a trait object returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Failure of a call that brought no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The request did not leave, or was refused before it was read: it was certainly not executed.
    NotSent(String),
    /// The connection broke or the time ran out after sending: the request may have been executed.
    Lost(String),
}

/// Calls, time and randomness: everything that a coordinator may use of its environment.
///
/// Nothing else in this crate may look at a clock, sleep, spawn or draw a random number, except the
/// production implementation itself.
pub trait Net: Send + Sync {
    /// Sends one request to the node at `address` ("host:port"). Cancelled when dropped.
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: v1::request::Body,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<v1::response::Body, CallError>>;

    /// As [`Net::call`], but gives up as soon as `given_up` returns a reason. The request may then
    /// have been executed, unless the implementation knows that it has not left yet. The callee
    /// receives `timeout`, and the caller ensures that `given_up` is not later.
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

    /// Uniform random number below `bound`, which is not 0. For jitter, never for safety.
    fn random_below(&self, bound: u64) -> u64;

    /// Runs a task in the background until it ends.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

pub type SharedNet = Arc<dyn Net>;
