//! Distributed tracing from the caller through this client to the nodes, by the
//! [W3C trace context](https://www.w3.org/TR/trace-context/).
//!
//! Each operation (a read, a commit) is a span, and so is each call to a node below it. The request
//! carries the call's `traceparent`. A trace begins with an operation, if a `tracing` subscriber
//! takes spans of this module at the level DEBUG, or with the caller, who passes it by
//! [`TraceContext::scope`]. Spans carry their ids as fields, so that the log lines of nodes can be
//! found from the client's. Without a subscriber or a caller's context, no ids are created or sent.
//!
//! A call that serves many requests (timestamps), and work in the background after an answer,
//! belong to no trace.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;

use tracing::Level;

use crate::net::Net;

/// Bytes of a `traceparent` of version 00.
const TRACEPARENT_BYTES: usize = 55;

/// Flag of a sampled trace, whose spans are kept.
const SAMPLED: u8 = 1;

thread_local! {
    /// Context of the task that is being polled.
    static CURRENT: Cell<Option<TraceContext>> = const { Cell::new(None) };
}

/// A trace, and its current span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Not 0.
    pub trace_id: u128,
    /// Not 0.
    pub span_id: u64,
    /// As on the wire; 1: spans are kept.
    pub flags: u8,
}

impl TraceContext {
    /// Parses a `traceparent`; none if it is malformed.
    pub fn parse(traceparent: &str) -> Option<TraceContext> {
        let is_ascii = traceparent.is_ascii() && traceparent.len() >= TRACEPARENT_BYTES;
        let text = traceparent.get(..TRACEPARENT_BYTES).filter(|_| is_ascii)?;
        let rest = &traceparent[TRACEPARENT_BYTES..];
        let mut parts = text.split('-');
        let version = hex(parts.next()?, 2)?;
        let trace_id = hex(parts.next()?, 32)?;
        let span_id = u64::try_from(hex(parts.next()?, 16)?).ok()?;
        let flags = u8::try_from(hex(parts.next()?, 2)?).ok()?;
        // A later version may have more fields behind these.
        let is_known = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.starts_with('-'),
        };
        let is_valid = is_known && parts.next().is_none() && trace_id != 0 && span_id != 0;
        is_valid.then_some(TraceContext { trace_id, span_id, flags })
    }

    /// Trace context of the running task.
    pub fn current() -> Option<TraceContext> {
        CURRENT.get()
    }

    /// Runs a future under this context: spans that this crate makes in it continue the trace.
    pub async fn scope<T>(self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        poll_fn(|context| {
            let _entered = Entered::new(self);
            future.as_mut().poll(context)
        })
        .await
    }

    /// A new span of the parent's trace; without a parent, of a new trace.
    fn below(parent: Option<TraceContext>, net: &dyn Net) -> TraceContext {
        let random = || net.random_below(u64::MAX) + 1;
        let span_id = random();
        match parent {
            Some(parent) => TraceContext { span_id, ..parent },
            None => {
                let trace_id = u128::from(random()) << 64 | u128::from(random());
                TraceContext { trace_id, span_id, flags: SAMPLED }
            }
        }
    }
}

/// Formats the context as a `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// Parses `count` hexadecimal digits, lower-case only, as the standard demands.
fn hex(digits: &str, count: usize) -> Option<u128> {
    let is_hex = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
    let is_number = digits.len() == count && digits.bytes().all(is_hex);
    is_number.then(|| u128::from_str_radix(digits, 16).ok())?
}

/// Restores the previous context when it is dropped, after a panic too.
struct Entered {
    before: Option<TraceContext>,
}

impl Entered {
    fn new(context: TraceContext) -> Entered {
        Entered { before: CURRENT.replace(Some(context)) }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

/// Runs a future as a span of its own, if a subscriber or the caller asks for spans.
pub(crate) async fn traced<T>(
    net: &dyn Net,
    operation: &'static str,
    future: impl Future<Output = T>,
) -> T {
    let parent = CURRENT.get();
    let is_wanted = parent.is_some() || tracing::enabled!(Level::DEBUG);
    let below = is_wanted.then(|| TraceContext::below(parent, net));
    let span = match below {
        None => tracing::Span::none(),
        Some(TraceContext { trace_id, span_id, .. }) => tracing::debug_span!(
            "rangedb",
            operation,
            trace_id = format_args!("{trace_id:032x}"),
            span_id = format_args!("{span_id:016x}"),
            parent_span_id = parent.map(|parent| format!("{:016x}", parent.span_id)),
        ),
    };
    let mut future = pin!(future);
    poll_fn(|context| {
        let _entered = below.map(Entered::new);
        let _in_span = span.enter();
        future.as_mut().poll(context)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_and_written_as_the_standard_has_it() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::parse(text).unwrap();
        assert_eq!(context.span_id, 0x00f0_67aa_0ba9_02b7);
        assert_eq!(context.to_string(), text);
        let later = text.replacen("00", "01", 1) + "-more";
        assert_eq!(TraceContext::parse(&later), Some(context));
    }

    #[test]
    fn what_is_no_traceparent_is_ignored() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for length in 0..good.len() {
            assert_eq!(TraceContext::parse(&good[..length]), None);
        }
        let bad = [
            good.replacen("00", "ff", 1),
            good.to_uppercase(),
            format!("{good}-more"),
            good.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            good.replace("00f067aa0ba902b7", &"0".repeat(16)),
            good.replace('-', "_"),
            good.replace("4bf9", "+bf9"),
            good.replace("4b", "ä"),
        ];
        for bad in bad {
            assert_eq!(TraceContext::parse(&bad), None, "{bad}");
        }
    }
}
