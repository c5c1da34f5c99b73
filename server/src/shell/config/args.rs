//! The command line of `rangedb server`. Each flag has an environment form, which clap reads.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::size::Size;

/// Flags of `rangedb server`; everything is optional, so that the file can have a say.
#[derive(Args, Clone, Debug, Default)]
pub struct ServerArgs {
    /// Address at which other nodes reach this one [default: localhost:8080]
    #[arg(long, value_name = "HOST:PORT", env = "RANGEDB_PEER_ADDRESS", value_parser = address)]
    pub peer_address: Option<String>,
    /// Address at which clients reach this node [default: the host of --peer-address, port 8081]
    #[arg(long, value_name = "HOST:PORT", env = "RANGEDB_CLIENT_ADDRESS", value_parser = address)]
    pub client_address: Option<String>,
    /// Address of /metrics, /healthz and /readyz [default: localhost:8085]
    #[arg(long, value_name = "HOST:PORT", env = "RANGEDB_STATUS_ADDRESS", value_parser = address)]
    pub status_address: Option<String>,
    /// Listen on this host (0.0.0.0: every interface) instead of the hosts of the addresses
    #[arg(long, value_name = "HOST", env = "RANGEDB_LISTEN_HOST")]
    pub listen_host: Option<String>,
    /// Directory that holds everything this node keeps [default: ./data]
    #[arg(long, value_name = "DIR", env = "RANGEDB_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Peer addresses of the nodes that form a new cluster together, this one's included
    #[arg(long, value_name = "HOST:PORT,...", env = "RANGEDB_PEERS", value_delimiter = ',',
          value_parser = address)]
    pub peers: Vec<String>,
    /// Peer addresses of nodes of a cluster to join
    #[arg(long, value_name = "HOST:PORT,...", env = "RANGEDB_JOIN", value_delimiter = ',',
          value_parser = address)]
    pub join: Vec<String>,
    /// Form a new cluster with a majority of --peers, or of this node alone; harmless on a node
    /// that already belongs to one
    #[arg(long, env = "RANGEDB_CLUSTER_INIT",
          value_parser = clap::builder::BoolishValueParser::new())]
    pub cluster_init: bool,
    /// Memory that the node uses at most, such as 4GiB [default: the limit of the control group, or
    /// half of the machine's memory]
    #[arg(long, value_name = "SIZE", env = "RANGEDB_MEMORY_LIMIT", value_parser = size)]
    pub memory_limit: Option<Size>,
    /// Keys of users at which a new cluster has a range begin from the start; where the nodes that
    /// form it are told different ones, those of one of them hold
    #[arg(long, value_name = "KEY,...", env = "RANGEDB_SPLIT_KEYS", value_delimiter = ',')]
    pub split_keys: Vec<String>,
    /// Least important messages that are logged [default: info]
    #[arg(long, value_name = "LEVEL", env = "RANGEDB_LOG_LEVEL")]
    pub log_level: Option<LogLevel>,
    /// Format of log lines [default: text on a terminal, json elsewhere]
    #[arg(long, value_name = "FORMAT", env = "RANGEDB_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Method by which a leader confirms that it still leads before it reads [default: lease]
    #[arg(long, value_name = "MODE", env = "RANGEDB_READ_MODE")]
    pub read_mode: Option<ReadMode>,
    /// TOML file with more settings; flags and environment go before it
    #[arg(long, value_name = "FILE", env = "RANGEDB_CONFIG")]
    pub config: Option<PathBuf>,
    /// Accepted and without effect: raft shares the peer address
    #[arg(long, value_name = "PORT", hide = true)]
    pub raft_port: Option<u16>,
}

#[derive(ValueEnum, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(ValueEnum, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

#[derive(ValueEnum, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum ReadMode {
    /// By a lease on the monotonic clock: no round trip.
    Lease,
    /// By asking a quorum for every batch of reads: trusts no clock.
    ReadIndex,
}

/// Refuses an address that [`super::Config::load`] would refuse later. The error names the flag.
fn address(value: &str) -> Result<String, String> {
    let value = value.trim();
    // RANGEDB_PEERS= and a trailing comma mean "none".
    if !value.is_empty() {
        super::split_address(value)?;
    }
    Ok(value.to_owned())
}

fn size(value: &str) -> Result<Size, String> {
    Size::parse(value).ok_or_else(|| "must be a size such as 4GiB".to_owned())
}
