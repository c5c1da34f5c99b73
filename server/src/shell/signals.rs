//! Signals: those that ask a server to stop, and those that it ignores.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Signal as Sent, getpid, kill_process};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::shell::logging::{self, Seldom};

/// Time within which several signals count as one request to stop: a terminal and a supervisor
/// signal the process and then its group. No person gives up waiting within this time.
const SAME_STOP: Duration = Duration::from_secs(1);

/// Resolves at the first SIGINT or SIGTERM. A signal more than a second later ends the process at
/// once, because its sender does not want to wait.
///
/// From now on, SIGHUP, SIGUSR1 and SIGUSR2 are ignored with a line in the log. There is nothing to
/// reopen: the log goes to standard error, and settings change by `rangedb admin config` or with the
/// next start.
///
/// # Errors
/// An error of the operating system if the signals cannot be listened for.
pub fn stop_requested() -> io::Result<impl Future<Output = ()> + Send> {
    let mut ignored = Ignored {
        hangup: signal(SignalKind::hangup())?,
        user1: signal(SignalKind::user_defined1())?,
        user2: signal(SignalKind::user_defined2())?,
    };
    tokio::spawn(async move {
        let seldom = Seldom::default();
        loop {
            let signal = ignored.next().await;
            if let Some(left_out) = seldom.may_write() {
                tracing::info!(
                    signal,
                    left_out,
                    "ignored: SIGTERM stops the node, `rangedb admin config` changes its settings"
                );
            }
        }
    });
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

struct Ignored {
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Ignored {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.hangup.recv() => "SIGHUP",
            _ = self.user1.recv() => "SIGUSR1",
            _ = self.user2.recv() => "SIGUSR2",
        }
    }
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
