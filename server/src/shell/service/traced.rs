//! Requests that belong to a trace. The [W3C trace context](https://www.w3.org/TR/trace-context/)
//! comes in the metadata of a unary call, or beside a request on a stream. The node's work for the
//! request continues the trace, over the node's own client and to other nodes.

use std::future::Future;

use rangedb_client::trace::TraceContext;
use tonic::metadata::MetadataMap;
use tracing::Instrument;

/// Returns the trace of a unary call. `None` if the call has none, or it cannot be read.
pub(super) fn of(metadata: &MetadataMap) -> Option<TraceContext> {
    TraceContext::parse(metadata.get("traceparent")?.to_str().ok()?)
}

/// Runs the work of a request in a span of its trace.
pub(super) async fn traced<T>(
    trace: Option<TraceContext>,
    request: &'static str,
    work: impl Future<Output = T>,
) -> T {
    let Some(context) = trace else { return work.await };
    let TraceContext { trace_id, span_id, .. } = context;
    let span = tracing::debug_span!(
        "serve",
        request,
        trace_id = format_args!("{trace_id:032x}"),
        parent_id = format_args!("{span_id:016x}"),
    );
    context.scope(work).instrument(span).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_done_for_a_request_goes_on_with_its_trace() {
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut metadata = MetadataMap::new();
        assert_eq!(of(&metadata), None);
        metadata.insert("traceparent", traceparent.parse().unwrap());
        let trace = of(&metadata);
        let seen = traced(trace, "get", async { TraceContext::current() }).await;
        assert_eq!(seen.map(|context| context.to_string()).as_deref(), Some(traceparent));
        assert_eq!(traced(None, "get", async { TraceContext::current() }).await, None);
    }
}
