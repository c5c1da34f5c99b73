//! Signals that ask a server to stop.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Signal as Sent, getpid, kill_process};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::shell::logging;

/// Time within which several signals count as one request to stop: a terminal and a supervisor
/// signal the process and then its group. No person gives up waiting within this time.
const SAME_STOP: Duration = Duration::from_secs(1);

/// Resolves at the first SIGINT or SIGTERM. A signal more than a second later ends the process at
/// once, because its sender does not want to wait.
///
/// # Errors
/// An error of the operating system if the signals cannot be listened for.
pub fn stop_requested() -> io::Result<impl Future<Output = ()> + Send> {
    let mut stops = Stops {
        interrupt: signal(SignalKind::interrupt())?,
        terminate: signal(SignalKind::terminate())?,
    };
    Ok(async move {
        let first = stops.next().await;
        let asked = Instant::now();
        tracing::info!(signal = first, "asked to stop");
        tokio::spawn(async move {
            loop {
                stops.next().await;
                if asked.elapsed() >= SAME_STOP {
                    break;
                }
            }
            tracing::warn!("asked again: not waiting any longer");
            logging::drain();
            // Not exit(): it runs the engines' destructors while other threads use the engines.
            let _ = kill_process(getpid(), Sent::KILL);
        });
    })
}

struct Stops {
    interrupt: Signal,
    terminate: Signal,
}

impl Stops {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
