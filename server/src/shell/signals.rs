//! Signals that ask a server to stop.

use std::io;

use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{SignalKind, signal};

/// Resolves at the first SIGINT or SIGTERM. The second ends the process at once: whoever sends it
/// does not want to wait.
///
/// # Errors
/// If the signals cannot be listened for.
pub fn stop_requested() -> io::Result<impl Future<Output = ()> + Send> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        let first = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        };
        tracing::info!(signal = first, "asked to stop");
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            tracing::warn!("asked again: not waiting any longer");
            // Not exit(): it runs the engines' destructors beside threads that use them.
            let _ = kill_process(getpid(), Signal::KILL);
        });
    })
}
