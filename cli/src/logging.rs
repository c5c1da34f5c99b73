//! Log of a command's client, on standard error, off by default.
//!
//! `--slow-transaction` shows the client's warnings. `--trace` adds every request and every call to
//! a node, with its duration and the ids under which nodes log it.

use std::io;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::Globals;

/// Turns the log on for the process if an option asks for it.
pub fn init(globals: &Globals) {
    let level = match (globals.trace, globals.slow_transaction) {
        (true, _) => Level::DEBUG,
        (false, Some(_)) => Level::WARN,
        (false, None) => return,
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(false)
        // A macro would print internal errors, and it panics if standard error is gone.
        .log_internal_errors(false)
        .with_span_events(FmtSpan::CLOSE);
    // Only the client's own lines: the libraries below gRPC log every frame.
    let ours = Targets::new().with_target("rangedb_client", LevelFilter::from_level(level));
    // An error means that a logger is there already.
    let _ = tracing_subscriber::registry().with(lines).with(ours).try_init();
}
