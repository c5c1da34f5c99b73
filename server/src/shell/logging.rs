//! Log lines on standard error, from the configured level on: JSON objects, or text for people.
//!
//! No thread of the node waits for standard error or fails with it (`logging/lines.rs`). The
//! message of a panic becomes a line like all others.

mod lines;
mod seldom;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::LazyLock;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::shell::config::{LogFormat, LogLevel};
use lines::Lines;

pub(crate) use seldom::Seldom;

/// Maximum time for which a process that ends waits for its last lines to be written.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// Queue of the process's log lines.
static LINES: LazyLock<Lines> = LazyLock::new(Lines::default);

/// Turns logging on for the process. A second call changes nothing.
///
/// # Errors
/// An error of the operating system if it cannot start the thread that writes lines.
pub fn init(level: LogLevel, format: LogFormat) -> io::Result<()> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        // Logs the duration of each span that the filter lets through.
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(LINES.clone())
        // Off: a macro would print these errors past the queue, and it panics if printing fails.
        .log_internal_errors(false)
        .with_thread_names(true);
    let set = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(shows_colour()).try_init(),
    };
    // An error means that a logger is there already, as in tests that run servers in one process.
    if set.is_ok() {
        LINES.start()?;
        std::panic::set_hook(Box::new(log_panic));
    }
    Ok(())
}

/// Returns a writer to standard error that never waits and never fails. It keeps the order with log
/// lines.
pub fn standard_error() -> impl Write {
    LINES.clone()
}

/// Waits until all lines logged so far are written, for one second at most.
pub fn drain() {
    LINES.drain(DRAIN_MAX);
}

/// Returns the number of lines that were lost since the process began.
pub(crate) fn lines_dropped() -> u64 {
    LINES.dropped()
}

/// Logs a panic. The default hook prints past the queue, where a panicking thread could wait
/// forever.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let reason = panic.payload_as_str().unwrap_or("a panic without words");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(place, %backtrace, "panicked: {reason}");
    } else {
        tracing::error!(place, "panicked: {reason}");
    }
}

/// True if standard error is a terminal whose user has not asked for plain text (no-color.org).
fn shows_colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Returns the format for a process that was not told: text on a terminal, JSON elsewhere.
pub(crate) fn usual_format() -> LogFormat {
    if io::stderr().is_terminal() { LogFormat::Text } else { LogFormat::Json }
}

/// Returns the filter of a level. The crates of RangeDB log at that level. The libraries below gRPC
/// log every frame, which helps nobody before `trace`.
fn filter(level: LogLevel) -> EnvFilter {
    EnvFilter::new(match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info,raft_engine=warn",
        LogLevel::Debug => {
            "info,raft_engine=warn,rangedb=debug,rangedb_server=debug,rangedb_client=debug"
        }
        LogLevel::Trace => "trace",
    })
}
