//! Log lines: JSON objects or text for people, on standard error, from the level that was asked for.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::shell::config::{LogFormat, LogLevel};

/// Turns logging on for the process. A second call changes nothing.
pub fn init(level: LogLevel, format: LogFormat) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        // Where spans of traces are let through, what each took.
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(std::io::stderr)
        .with_thread_names(true);
    // An error means that a logger is there already, as in tests that run servers in one process.
    let _ = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(false).try_init(),
    };
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
