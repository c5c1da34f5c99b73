//! Network of the gateway's client, which works for users: its requests to ranges are marked as
//! theirs.

use std::time::Duration;

use rangedb_client::net::{BoxFuture, CallError, Net, SharedNet};
use rangedb_proto::v1::{Request, request, response};

/// Wraps requests to ranges in `ForUser`. Everything else goes to the node's own network as it is.
pub(super) struct UserNet(pub SharedNet);

impl Net for UserNet {
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: request::Body,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<response::Body, CallError>> {
        use request::Body;
        let is_to_a_range = matches!(
            request,
            Body::PointRead(_)
                | Body::Scan(_)
                | Body::Write(_)
                | Body::TransactionCommand(_)
                | Body::Validate(_)
                | Body::ListLocks(_)
        );
        let request = match is_to_a_range {
            true => Body::ForUser(Box::new(Request { body: Some(request), ..Default::default() })),
            false => request,
        };
        self.0.call(address, request, timeout)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(duration)
    }

    fn now(&self) -> Duration {
        self.0.now()
    }

    fn random_below(&self, bound: u64) -> u64 {
        self.0.random_below(bound)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.spawn(task);
    }
}
