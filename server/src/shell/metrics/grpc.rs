//! Metrics of the gRPC services, counted as calls happen.

use std::time::Instant;

use axum::http::HeaderMap;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};
use tonic::Code;

/// Upper bounds of the latency buckets in seconds: from a read in memory to a write that waits for
/// an election.
const LATENCY_BUCKETS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// Packages whose methods are counted by name. Anybody may send requests with any method, so
/// methods of other packages count as one.
const KNOWN_PACKAGES: [&str; 2] = ["/rangedb.v1.", "/grpc."];
const METHOD_BYTES_MAX: usize = 64;

/// Metrics of gRPC calls. Cheap to clone.
#[derive(Clone)]
pub(crate) struct GrpcMetrics {
    requests: IntCounterVec,
    latency: HistogramVec,
    under_way: IntGauge,
}

impl GrpcMetrics {
    pub fn register(registry: &Registry) -> Self {
        let requests = Opts::new(
            "rangedb_grpc_requests_total",
            "Calls by method and gRPC code. A stream counts when it is opened.",
        );
        let latency = HistogramOpts::new(
            "rangedb_grpc_request_seconds",
            "Time from a call's arrival to the head of its answer, by method.",
        );
        let under_way = Opts::new(
            "rangedb_grpc_requests_under_way",
            "Calls that arrived and whose answer has not begun.",
        );
        let metrics = GrpcMetrics {
            requests: IntCounterVec::new(requests, &["method", "code"]).expect("a valid name"),
            latency: HistogramVec::new(latency.buckets(LATENCY_BUCKETS.to_vec()), &["method"])
                .expect("a valid name"),
            under_way: IntGauge::with_opts(under_way).expect("a valid name"),
        };
        registry.register(Box::new(metrics.requests.clone())).expect("registered once");
        registry.register(Box::new(metrics.latency.clone())).expect("registered once");
        registry.register(Box::new(metrics.under_way.clone())).expect("registered once");
        metrics
    }

    /// Counts the arrival of a call.
    pub fn begin(&self, path: &str) -> Timer {
        self.under_way.inc();
        let known = KNOWN_PACKAGES.iter().any(|package| path.starts_with(package));
        let method = if known && path.len() <= METHOD_BYTES_MAX { path } else { "unknown" };
        Timer { metrics: self.clone(), method: method.to_owned(), begun: Instant::now() }
    }
}

/// Call in flight. Dropping it only takes the call off the gauge.
pub(crate) struct Timer {
    metrics: GrpcMetrics,
    method: String,
    begun: Instant,
}

impl Timer {
    /// Counts the call when its answer begins with these headers.
    pub fn end(self, headers: &HeaderMap) {
        // A failed call has its status in the headers; a successful one has it behind the body.
        let status = headers.get("grpc-status");
        let code = status.map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()));
        let unimplemented = code == Code::Unimplemented;
        let method = if unimplemented { "unknown" } else { &self.method };
        let requests = &self.metrics.requests;
        requests.with_label_values(&[method, &format!("{code:?}")]).inc();
        let seconds = self.begun.elapsed().as_secs_f64();
        self.metrics.latency.with_label_values(&[method]).observe(seconds);
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.metrics.under_way.dec();
    }
}
