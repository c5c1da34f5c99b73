//! Bounds that every gRPC connection of a node has, in and out.

use std::time::Duration;

/// Largest message: the largest command (8 MiB) and a batch before it.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Window of HTTP/2 flow control of a stream: 10 Gbit/s at 3 ms.
pub(crate) const WINDOW_BYTES: u32 = 4 << 20;

/// A peer that answers no ping for the sum of these is gone. Raft gives up on it sooner; this frees
/// the connection.
pub(crate) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
pub(crate) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The cause at the bottom, which is what a person can act on ("Connection refused").
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
