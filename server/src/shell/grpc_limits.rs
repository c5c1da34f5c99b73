//! Bounds that every gRPC connection of a node has, in and out.

use std::time::Duration;

/// Window of HTTP/2 flow control of a stream: 10 Gbit/s at 3 ms.
pub(crate) const WINDOW_BYTES: u32 = 4 << 20;

/// Interval and timeout of keep-alive pings. A peer that answers no ping for their sum is gone, and
/// its connection is freed. Raft gives up on the peer sooner.
pub(crate) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
pub(crate) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns the innermost cause, on which a person can act ("Connection refused").
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
