//! Metrics of the node, in the text form of Prometheus.
//!
//! Stores, engines and transport keep their own figures. [`Metrics::render`] reads them on request,
//! so that no figure is counted twice and none costs anything meanwhile. Only gRPC calls are
//! counted as they happen.
//!
//! Families: `rangedb_raft_*`, `rangedb_range_*`, `rangedb_storage_*`, `rangedb_txn_*`,
//! `rangedb_gc_*`, `rangedb_grpc_*`, `rangedb_memory_*`, `rangedb_heavy_reads_*`, `rangedb_node_*`,
//! `rangedb_clock_*`, `rangedb_log_*` and `process_*`.

mod grpc;
mod sample;
mod sources;
mod transactions;

use std::sync::{Arc, OnceLock};

use prometheus::{Registry, TextEncoder};

pub(crate) use grpc::GrpcMetrics;
pub(crate) use sources::Sources;

/// Metrics of the node: gRPC calls, the process, and the figures of its parts.
pub(crate) struct Metrics {
    registry: Registry,
    grpc: GrpcMetrics,
    sources: OnceLock<Sources>,
}

impl Metrics {
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        let grpc = GrpcMetrics::register(&registry);
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(process)).expect("registered once");
        Arc::new(Metrics { registry, grpc, sources: OnceLock::new() })
    }

    pub fn grpc(&self) -> GrpcMetrics {
        self.grpc.clone()
    }

    /// Adds the figures of the node's parts from now on.
    pub fn set_sources(&self, sources: Sources) {
        assert!(self.sources.set(sources).is_ok(), "a process is one node");
    }

    /// Returns all figures as of now.
    pub fn render(&self) -> String {
        let mut families = self.registry.gather();
        if let Some(sources) = self.sources.get() {
            families.extend(sources.gather());
        }
        families.sort_by(|a, b| a.name().cmp(b.name()));
        TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| {
            tracing::error!("metrics cannot be written: {error}");
            String::new()
        })
    }
}
