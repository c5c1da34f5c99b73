//! Log of the client behind a command, on standard error, for those who ask for it.
//!
//! `--slow-transaction` lets through what the client warns of. `--trace` adds every request and every
//! call to a node with the time it took, and the ids by which nodes have it in their own logs.

use std::io;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::Globals;

/// Turns it on for the process, if it is asked for.
pub fn init(globals: &Globals) {
    let level = match (globals.trace, globals.slow_transaction) {
        (true, _) => Level::DEBUG,
        (false, Some(_)) => Level::WARN,
        (false, None) => return,
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(false)
        // They would be printed by a macro that panics where standard error is gone.
        .log_internal_errors(false)
        .with_span_events(FmtSpan::CLOSE);
    // Ours alone: the libraries below gRPC speak of every frame.
    let ours = Targets::new().with_target("rangedb_client", LevelFilter::from_level(level));
    // An error means that a logger is there already.
    let _ = tracing_subscriber::registry().with(lines).with(ours).try_init();
}
