//! Log lines: JSON objects or text for people, on standard error, from the level that was asked for.
//!
//! No thread of the node waits for standard error or fails with it (`logging/lines.rs`), a panic's
//! message included: it becomes a line like all others.

mod lines;
mod seldom;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::LazyLock;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::shell::config::{LogFormat, LogLevel};
use lines::Lines;

pub(crate) use seldom::Seldom;

/// A process that ends waits no longer for its last lines to be written.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// Of the process.
static LINES: LazyLock<Lines> = LazyLock::new(Lines::default);

/// Turns logging on for the process. A second call changes nothing.
///
/// # Errors
/// If the operating system gives no thread for it.
pub fn init(level: LogLevel, format: LogFormat) -> io::Result<()> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        // Where spans of traces are let through, what each took.
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(LINES.clone())
        // They would be printed past the queue, by a macro that panics where that fails.
        .log_internal_errors(false)
        .with_thread_names(true);
    let set = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(false).try_init(),
    };
    // An error means that a logger is there already, as in tests that run servers in one process.
    if set.is_ok() {
        LINES.start()?;
        std::panic::set_hook(Box::new(log_panic));
    }
    Ok(())
}

/// A way to print on standard error that never waits and never fails, in order with log lines.
pub fn standard_error() -> impl Write {
    LINES.clone()
}

/// Waits until what was logged is written, or a moment has passed.
pub fn drain() {
    LINES.drain(DRAIN_MAX);
}

/// Lines that were lost since the process began.
pub(crate) fn lines_dropped() -> u64 {
    LINES.dropped()
}

/// The default prints past the queue, and a thread that panics could wait there for ever.
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

/// Ours at the level asked for; the libraries below gRPC speak of every frame, which helps nobody
/// before `trace`.
fn filter(level: LogLevel) -> EnvFilter {
    EnvFilter::new(match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "info,rangedb=debug,rangedb_server=debug,rangedb_client=debug",
        LogLevel::Trace => "trace",
    })
}
