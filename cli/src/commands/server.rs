//! `rangedb server`: runs a node until it is told to stop.

use std::time::Duration;

use clap::Args;
use rangedb_server::config::{Config, ServerArgs};
use rangedb_server::{logging, server, signals};

use crate::failure::{self, Failure};

/// Maximum wait for threads that do not end with the server, such as a thread that waits for room
/// on a full disk.
const THREADS_MAX: Duration = Duration::from_secs(1);

/// Run a node
///
/// The first SIGTERM or Ctrl-C stops it in good order: leaderships are handed over and requests
/// under way are answered, for at most 30 s. One that comes more than a second later ends it at
/// once. SIGHUP, SIGUSR1 and SIGUSR2 are ignored.
#[derive(Debug, Args)]
pub struct Server {
    #[command(flatten)]
    args: ServerArgs,
}

impl Server {
    /// Runs the node. Reports its outcome on standard error and returns the exit code.
    ///
    /// # Errors
    /// Errors of the configuration and of the start of the log. They are returned without a report.
    pub fn run(self) -> Result<u8, Failure> {
        let config = Config::load(self.args).map_err(|error| Failure::Usage(error.to_string()))?;
        logging::init(config.log_level, config.log_format).map_err(Failure::Runtime)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let outcome = runtime.map_err(Failure::Runtime).and_then(|runtime| {
            let outcome = runtime.block_on(async {
                let stop = signals::stop_requested().map_err(Failure::Runtime)?;
                server::run(config, stop).await.map_err(|error| Failure::Server(Box::new(error)))
            });
            runtime.shutdown_timeout(THREADS_MAX);
            outcome
        });
        // Through the log's queue: the report follows the last log lines, and a reader of standard
        // error that has stopped reading cannot block the exit.
        let code = failure::report(outcome, &mut logging::standard_error());
        logging::drain();
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use crate::args::parse;

    #[test]
    fn every_documented_way_to_start_a_node_is_understood() {
        let peers = "--peers=node1.example.com:8080,node2.example.com:8080,node3.example.com:8080";
        let join = "--join=node1.example.com:8080,node2.example.com:8080,node3.example.com:8080";
        for line in [
            &["--cluster-init", "--data-dir", "./data"][..],
            &["--peer-address=node1:8080", "--cluster-init"],
            &["--peer-address=node1.example.com:8080", peers, "--cluster-init"],
            &["--peer-address=node2.example.com:8080", peers],
            &["--peer-address=node4.example.com:8080", join],
            &["--client-address", "127.0.0.1:8101", "--status-address", "127.0.0.1:9101"],
            &["--log-level", "debug", "--log-format", "text", "--config", "rangedb.toml"],
        ] {
            let words = ["rangedb", "server"].iter().chain(line);
            assert!(parse(words).is_ok(), "{line:?}");
        }
    }

    #[test]
    fn malformed_flags_are_usage_errors() {
        for line in [
            &["--peer-address", "node1"][..],
            &["--peers", "node1:8080,node2"],
            &["--log-level", "loud"],
            &["--endpoints", "a:1"],
            &["data"],
        ] {
            let words = ["rangedb", "server"].iter().chain(line);
            assert_eq!(parse(words).unwrap_err().exit_code(), 2, "{line:?}");
        }
    }
}
