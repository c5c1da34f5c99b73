//! Root of the command line: the program's parser and the global options, which all commands that
//! ask a cluster share. Global options stand before or after the command's name.

use std::ffi::OsString;
use std::time::Duration;

use bytes::Bytes;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, ValueEnum};
use rangedb_client::Config;

use crate::commands::Command;

/// A transactional, range-partitioned, replicated key-value store.
///
/// Keys and values that begin with a dash go behind `--`. Exit codes: 0 done, 1 failed, 2 the
/// command line or an argument is wrong, 3 the key does not exist.
#[derive(Debug, Parser)]
#[command(name = "rangedb", version)]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Option<Command>,
}

// Options of commands that ask a cluster. Not a doc comment: clap would print a doc comment as the
// description of the whole program.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every request")]
pub struct Globals {
    /// Nodes to ask, as host:port; one that answers is enough
    #[arg(
        long,
        global = true,
        env = "RANGEDB_ENDPOINTS",
        hide_env_values = true,
        value_name = "A,B,C",
        default_value = "127.0.0.1:8081"
    )]
    pub endpoints: String,
    /// Timeout of a request with all its retries, such as 5s or 500ms
    #[arg(
        long,
        global = true,
        env = "RANGEDB_TIMEOUT",
        hide_env_values = true,
        value_name = "DURATION",
        default_value = "5s",
        value_parser = rangedb_proto::duration::parse
    )]
    pub timeout: Duration,
    /// Say on standard error when a transaction spends so long in its requests, and on what
    #[arg(
        long,
        global = true,
        env = "RANGEDB_SLOW_TRANSACTION",
        hide_env_values = true,
        value_name = "DURATION",
        value_parser = rangedb_proto::duration::parse
    )]
    pub slow_transaction: Option<Duration>,
    /// Say on standard error what was asked and how long it took, with the ids that nodes log
    #[arg(long, global = true)]
    pub trace: bool,
    /// Format of answers
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value = "table")]
    pub output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people: bytes that would break a line are escaped
    Table,
    /// For programs: one object a line
    Json,
}

impl Globals {
    pub fn client_config(&self) -> Config {
        let config = Config::from_list(&self.endpoints).timeout(self.timeout);
        match self.slow_transaction {
            Some(slow) => config.slow_transaction(slow),
            None => config,
        }
    }
}

/// Names of the global options.
const GLOBALS: [&str; 5] = ["endpoints", "timeout", "slow_transaction", "trace", "output"];

/// Names of the commands that ask no cluster.
const WITHOUT_CLUSTER: [&str; 3] = ["server", "version", "completions"];

/// Parses a command line, whose first word is the program's name. `--help` and `--version` also
/// return an error. The error prints itself and knows its exit code.
pub fn parse(
    line: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Cli, clap::Error> {
    let mut parser = parser();
    let matches = parser.try_get_matches_from_mut(line)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut parser))?;
    if let Some(command) = cli.command.as_ref().filter(|c| !matches!(c, Command::Client(_))) {
        for option in GLOBALS {
            // An environment variable is allowed: it is set for a whole shell.
            if matches.value_source(option) == Some(ValueSource::CommandLine) {
                let message = format!(
                    "--{} is for commands that ask a cluster, not for `{command}`",
                    option.replace('_', "-")
                );
                return Err(parser.error(ErrorKind::ArgumentConflict, message));
            }
        }
    }
    Ok(cli)
}

/// Returns the help that `rangedb` prints without a command.
pub fn help() -> String {
    parser().render_help().to_string()
}

/// Returns the definition of the command line. Commands that ask no cluster refuse the global
/// options, so their help hides these options.
pub fn parser() -> clap::Command {
    let parser = Cli::command();
    let globals = parser.get_arguments().filter(|option| option.is_global_set());
    let hidden: Vec<clap::Arg> = globals.map(|option| option.clone().hide(true)).collect();
    let hide = |parser: clap::Command, name: &&str| {
        parser.mut_subcommand(name, |command| command.args(&hidden))
    };
    WITHOUT_CLUSTER.iter().fold(parser, hide)
}

/// Returns the parser of a key or a value: any bytes that the shell passed.
pub fn bytes() -> impl TypedValueParser<Value = Bytes> {
    OsStringValueParser::new().map(|argument| argument.into_encoded_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globals(line: &str) -> Globals {
        parse(line.split_whitespace()).unwrap().globals
    }

    fn error(line: &str) -> clap::Error {
        parse(line.split_whitespace()).unwrap_err()
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_are_taken_before_and_after_the_command() {
        for line in [
            "rangedb --endpoints a:1,b:2 --timeout 70ms --output json get k",
            "rangedb get --endpoints a:1,b:2 --timeout 70ms --output json k",
            "rangedb get k --endpoints=a:1,b:2 --timeout=70ms --output=json",
            "rangedb --output json admin --timeout 70ms node list --endpoints a:1,b:2",
        ] {
            let globals = globals(line);
            assert_eq!(globals.client_config().endpoints, ["a:1", "b:2"], "{line}");
            assert_eq!(globals.timeout, Duration::from_millis(70), "{line}");
            assert_eq!(globals.output, Output::Json, "{line}");
        }
    }

    #[test]
    fn global_options_have_the_documented_defaults() {
        let parser = parser();
        let of = |name: &str| {
            let option = parser.get_arguments().find(|option| option.get_id() == name).unwrap();
            let env = option.get_env().map(|env| env.to_str().unwrap().to_owned());
            (option.get_default_values()[0].to_str().unwrap().to_owned(), env)
        };
        assert_eq!(of("endpoints"), ("127.0.0.1:8081".into(), Some("RANGEDB_ENDPOINTS".into())));
        assert_eq!(of("timeout"), ("5s".into(), Some("RANGEDB_TIMEOUT".into())));
        assert_eq!(of("output"), ("table".into(), None));
    }

    #[test]
    fn no_command_is_no_error_and_the_help_lists_the_commands() {
        assert!(parse(["rangedb"]).unwrap().command.is_none());
        for command in ["server", "put", "get", "delete", "range", "batch", "txn", "repl"] {
            assert!(help().contains(&format!("\n  {command} ")), "{command}");
        }
        for command in ["admin", "version"] {
            assert!(help().contains(&format!("\n  {command} ")), "{command}");
        }
    }

    /// Every spelling that the documentation shows.
    #[test]
    fn every_documented_spelling_is_understood() {
        const JSON: &str = r#"{"name": "John", "email": "john@example.com"}"#;
        const FACTOR: &str = "_/cluster/config/replication_factor";
        for line in [
            &["put", "/user/123", JSON][..],
            &["get", "/user/123"],
            &["delete", "/user/123"],
            &["range", "/user/", "/user/z"],
            &["range", "a", "b", "--limit", "10", "--reverse", "--keys-only"],
            &["batch", "put", "/user/123", JSON, "/user/456", JSON],
            &["batch", "delete", "/user/123", "/user/456"],
            &["txn", "begin"],
            &["txn", "begin", "--isolation", "snapshot", "--lock-wait", "2s"],
            &["txn", "begin", "--pessimistic", "--id", "move-7"],
            &["txn", "begin", "--read-only"],
            &["txn", "begin", "--at", "470612373837185024"],
            &["txn", "put", "/user/123", r#"{"name": "John"}"#],
            &["txn", "put", "/user/456", r#"{"name": "Jane"}"#],
            &["txn", "get", "/user/123", "--for-update"],
            &["txn", "delete", "/user/123"],
            &["txn", "range", "/user/", "/user/z", "--limit", "10"],
            &["txn", "--id", "move-7", "commit"],
            &["txn", "rollback", "--id", "5f3a0c01"],
            &["txn", "status"],
            &["txn", "list"],
            &["repl"],
            &["version"],
            &["completions", "bash"],
            &["admin", "cluster", "status"],
            &["admin", "node", "list"],
            &["admin", "node", "remove", "node3.example.com:8080", "--confirm"],
            &["admin", "node", "remove", "node3.example.com:8080", "--dry-run"],
            &["admin", "partition", "list"],
            &["admin", "meta", "list"],
            &["admin", "meta", "list", "_/partitions/"],
            &["admin", "meta", "get", "_/cluster/nodes/node1"],
            &["admin", "metadata", "get", "_/cluster/nodes/node1"],
            &["admin", "config", "list"],
            &["admin", "config", "get", FACTOR, "--history"],
            &["admin", "config", "set", FACTOR, "3"],
            &["admin", "config", "set", "replication_factor", "3", "--dry-run"],
            &["admin", "set", FACTOR, "3"],
            &["admin", "gc", "status"],
            &["admin", "gc", "hold", "nightly"],
            &["admin", "gc", "hold", "nightly", "470612373837185024"],
            &["admin", "gc", "release", "nightly"],
            &["admin", "debug", "locks", "/user/"],
        ] {
            let words = ["rangedb"].iter().chain(line);
            assert!(parse(words).is_ok(), "{line:?}");
        }
    }

    #[test]
    fn malformed_flags_are_usage_errors() {
        for line in [
            "rangedb frobnicate",
            "rangedb get",
            "rangedb get k --no-such-flag",
            "rangedb get k --timeout 5",
            "rangedb get k --timeout 0s",
            "rangedb get k --output yaml",
            "rangedb put k",
            "rangedb range a b --limit -1",
            "rangedb range a b --limit 0",
            "rangedb batch put k",
            "rangedb txn",
            "rangedb txn begin --at 1 --pessimistic",
            "rangedb txn begin --read-only --pessimistic",
            "rangedb txn begin --isolation none",
            "rangedb txn begin --id a.b",
            "rangedb get k --for-update",
            "rangedb batch delete",
            "rangedb admin node remove",
            "rangedb completions tcsh",
        ] {
            assert_eq!(error(line).exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn options_of_a_request_are_refused_where_no_cluster_is_asked() {
        for command in WITHOUT_CLUSTER {
            let shell = if command == "completions" { "bash" } else { "" };
            let refusal = error(&format!("rangedb {command} {shell} --timeout 1s"));
            assert_eq!(refusal.exit_code(), 2);
            assert!(refusal.to_string().contains(&format!("not for `{command}`")), "{refusal}");
            let help = error(&format!("rangedb {command} --help")).to_string();
            assert!(!help.contains("--endpoints"), "{help}");
        }
        assert!(error("rangedb get --help").to_string().contains("--endpoints"));
    }
}
