//! Configuration of a server: command line over environment (`RANGEDB_*`) over `--config` FILE over
//! default.
//!
//! All settings are checked here, before anything is opened. So a wrong setting is an error with
//! its name and value, and never a node that is half configured. Settings of the whole cluster are
//! not here: the control range keeps them (`rangedb admin config`).

mod args;
mod file;
mod size;

use std::net::IpAddr;
use std::path::PathBuf;

use rangedb_raftstore::Config as RaftConfig;

pub use args::{LogFormat, LogLevel, ReadMode, ServerArgs};
use file::File;

use crate::founding::check_split_keys;
use crate::shell::engines::MEMTABLES;
use crate::shell::logging::usual_format;
use crate::shell::memory::{Division, LIMIT_MIN, default_limit};

/// Maximum number of stores of a node, whatever its cores. Each store has a thread, and a store
/// with few ranges has little to batch in a pass.
const STORES_MAX: usize = 16;

/// Default port for clients.
const CLIENT_PORT: u16 = 8081;

/// Maximum number of ticks of an election timeout: a week with the longest tick. Leases are
/// calculated from the timeout.
const ELECTION_TICKS_MAX: usize = 10_000;

/// A server's settings, complete and checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address at which other nodes reach this one, as "host:port".
    pub peer_address: String,
    /// Address at which clients reach this node.
    pub client_address: String,
    /// Address of /metrics, /healthz and /readyz.
    pub status_address: String,
    /// Host to listen on instead of the hosts of the addresses.
    pub listen_host: Option<String>,
    pub data_dir: PathBuf,
    /// Peer addresses of the nodes that form the cluster together, this one's included.
    pub peers: Vec<String>,
    /// Peer addresses of nodes of a cluster to join.
    pub join: Vec<String>,
    /// True if this node may propose to form a cluster.
    pub cluster_init: bool,
    /// Split keys of a cluster that this node forms, in ascending order. A range of users begins at
    /// each, besides the ranges that every cluster has.
    pub split_keys: Vec<String>,
    pub log_level: LogLevel,
    pub log_format: LogFormat,
    /// Driver threads, each with a share of the ranges.
    pub stores: usize,
    pub raft: RaftConfig,
    pub storage: StorageConfig,
    pub limits: Limits,
    /// Maximum memory of the node in bytes, divided as `memory.rs` says.
    pub memory_limit: u64,
}

/// Limits of the engines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageConfig {
    /// Bytes of blocks of the state that are kept in memory.
    pub block_cache_bytes: u64,
    /// Bytes of newest writes that each column family keeps in memory.
    pub write_buffer_bytes: u64,
    /// Bytes of the file system below which the node stops writing, besides room for the data in
    /// memory. `None`: calculated from the size of the file system (`disk_watch.rs`).
    pub disk_reserve_bytes: Option<u64>,
}

/// Bounds on queues and on concurrent work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of requests and raft messages that wait for one store. Above, requests are refused and
    /// messages dropped.
    pub store_queue_bytes: usize,
    /// Requests of one stream in flight. Above, the stream is not read further.
    pub stream_requests: usize,
    /// Maximum number of snapshots sent at once, and of snapshots received at once.
    pub snapshots: usize,
}

/// Error in the settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("the configuration file {}: {error}", path.display())]
    Malformed { path: PathBuf, error: Box<toml::de::Error> },
    #[error("invalid value '{value}' for '{name}': {reason}")]
    Invalid { name: &'static str, value: String, reason: String },
}

impl ConfigError {
    fn invalid(name: &'static str, value: impl ToString, reason: impl Into<String>) -> Self {
        ConfigError::Invalid { name, value: value.to_string(), reason: reason.into() }
    }
}

impl Config {
    /// Merges the sources and checks the result. `args` holds command line and environment, which
    /// clap has merged.
    pub fn load(args: ServerArgs) -> Result<Config, ConfigError> {
        let file = match &args.config {
            Some(path) => File::read(path)?,
            None => File::default(),
        };
        // A list of blank addresses comes from an environment variable that was meant to hold
        // addresses and does not. Without an error each of the nodes would form a cluster of its
        // own.
        for (name, list) in [("--peers", &args.peers), ("--join", &args.join)] {
            if !list.is_empty() && list.iter().all(|address| address.trim().is_empty()) {
                let reason = "it names nobody: give addresses, or leave it out";
                return Err(ConfigError::invalid(name, list.join(","), reason));
            }
        }
        let config = Self::merge(args, file);
        config.check()?;
        Ok(config)
    }

    fn merge(args: ServerArgs, file: File) -> Config {
        let address = |arg: Option<String>, file: Option<String>, default: &str| {
            arg.or(file).unwrap_or_else(|| default.to_owned())
        };
        let addresses = |arg: Vec<String>, file: Option<Vec<String>>| match (arg.is_empty(), file) {
            (true, Some(file)) => file,
            _ => arg,
        };
        let mut split_keys = match file.split_keys {
            Some(keys) if args.split_keys.is_empty() => keys,
            _ => args.split_keys,
        };
        split_keys.sort_unstable();
        let mut raft = file.raft.apply(RaftConfig::default());
        let read_mode = args.read_mode.or(file.read_mode).unwrap_or(ReadMode::Lease);
        raft.lease_reads = read_mode == ReadMode::Lease;
        let peer_address = address(args.peer_address, file.peer_address, "localhost:8080");
        // Clients that reach the node at its peer host reach it at the same host on the client
        // port.
        let host = peer_address.rsplit_once(':').map_or("localhost", |(host, _)| host);
        let by_default = format!("{host}:{CLIENT_PORT}");
        let memory_limit = args.memory_limit.or(file.memory_limit);
        let memory_limit = memory_limit.map_or_else(default_limit, |size| size.0);
        let memory = Division::of(memory_limit);
        let stores = file.stores.unwrap_or_else(default_stores);
        Config {
            client_address: address(args.client_address, file.client_address, &by_default),
            peer_address,
            status_address: address(args.status_address, file.status_address, "localhost:8085"),
            listen_host: args.listen_host.or(file.listen_host),
            data_dir: args.data_dir.or(file.data_dir).unwrap_or_else(|| "./data".into()),
            peers: distinct(addresses(args.peers, file.peers)),
            join: distinct(addresses(args.join, file.join)),
            cluster_init: args.cluster_init || file.cluster_init.unwrap_or(false),
            split_keys,
            log_level: args.log_level.or(file.log_level).unwrap_or(LogLevel::Info),
            log_format: args.log_format.or(file.log_format).unwrap_or_else(usual_format),
            stores,
            raft,
            storage: file.storage.complete(&memory),
            limits: file.limits.complete(&memory, stores),
            memory_limit,
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        for (name, address) in
            [("--peer-address", &self.peer_address), ("--client-address", &self.client_address)]
        {
            let (host, _) = check_address(name, address)?;
            if ["0.0.0.0", "[::]", "*"].contains(&host) {
                let reason = "other nodes must be able to reach it: give a host of this machine \
                              here, and --listen-host to listen on every interface";
                return Err(ConfigError::invalid(name, address, reason));
            }
        }
        self.check_client_host()?;
        check_address("--status-address", &self.status_address)?;
        for (name, list) in [("--peers", &self.peers), ("--join", &self.join)] {
            for address in list {
                check_address(name, address)?;
            }
        }
        let own = [&self.peer_address, &self.client_address, &self.status_address];
        for (at, address) in own.iter().enumerate() {
            if own[..at].contains(address) {
                let reason = "peer, client and status address must be different";
                return Err(ConfigError::invalid("--client-address", address, reason));
            }
        }
        check_split_keys(&self.split_keys)
            .map_err(|(key, reason)| ConfigError::invalid("--split-keys", key, reason))?;
        if self.stores == 0 || self.stores > STORES_MAX {
            let reason = format!("must be 1 to {STORES_MAX}");
            return Err(ConfigError::invalid("stores", self.stores, reason));
        }
        self.check_memory()?;
        self.check_raft()
    }

    /// Refuses a loopback client address beside a peer address that is none: clients are told the
    /// client address and connect to it from other hosts.
    fn check_client_host(&self) -> Result<(), ConfigError> {
        let (peer_host, _) = check_address("--peer-address", &self.peer_address)?;
        let (client_host, port) = check_address("--client-address", &self.client_address)?;
        if is_loopback(client_host) && !is_loopback(peer_host) {
            let reason = format!(
                "other hosts cannot reach it, but --peer-address {} says that they should: give \
                 {peer_host}:{port}, or leave it out",
                self.peer_address
            );
            return Err(ConfigError::invalid("--client-address", &self.client_address, reason));
        }
        Ok(())
    }

    /// Returns the division of the node's memory. Settings of the file replace shares.
    pub(crate) fn memory(&self) -> Division {
        let queues = (self.limits.store_queue_bytes as u64).saturating_mul(self.stores as u64);
        Division {
            block_cache: self.storage.block_cache_bytes,
            memtables: self.storage.write_buffer_bytes.saturating_mul(MEMTABLES),
            store_queues: queues,
            ..Division::of(self.memory_limit)
        }
    }

    fn check_memory(&self) -> Result<(), ConfigError> {
        let (name, limit) = ("--memory-limit", self.memory_limit);
        if limit < LIMIT_MIN {
            let reason = format!("must be at least {LIMIT_MIN} bytes");
            return Err(ConfigError::invalid(name, limit, reason));
        }
        let divided = self.memory().sum();
        if divided > limit {
            let reason = format!(
                "block cache, memtables and queues as they are set, with requests and answers, \
                 take {divided} bytes: raise it, or lower storage.block_cache_bytes, \
                 storage.write_buffer_bytes or limits.store_queue_bytes"
            );
            return Err(ConfigError::invalid(name, limit, reason));
        }
        Ok(())
    }

    fn check_raft(&self) -> Result<(), ConfigError> {
        let raft = &self.raft;
        if !(1_000..=60_000_000).contains(&raft.tick_us) {
            let reason = "must be 1 to 60000";
            return Err(ConfigError::invalid("raft.tick_ms", raft.tick_us / 1000, reason));
        }
        if raft.heartbeat_ticks == 0 {
            return Err(ConfigError::invalid("raft.heartbeat_ticks", 0, "must be at least 1"));
        }
        // A lost heartbeat alone must not start an election.
        if raft.election_ticks < raft.heartbeat_ticks.saturating_mul(3) {
            let reason = "must be at least three times raft.heartbeat_ticks";
            return Err(ConfigError::invalid("raft.election_ticks", raft.election_ticks, reason));
        }
        if raft.election_ticks > ELECTION_TICKS_MAX {
            let reason = format!("must be at most {ELECTION_TICKS_MAX}");
            return Err(ConfigError::invalid("raft.election_ticks", raft.election_ticks, reason));
        }
        if raft.inflight_messages_max == 0 {
            return Err(ConfigError::invalid("raft.inflight_messages", 0, "must be at least 1"));
        }
        Ok(())
    }
}

/// True if the host stands for the local machine, on whichever machine it is used.
fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) => v6.to_canonical().is_loopback(),
        Ok(IpAddr::V4(v4)) => v4.is_loopback(),
        Err(_) => name == "localhost" || name.ends_with(".localhost"),
    }
}

/// Splits "host:port" into host and port.
pub(crate) fn split_address(address: &str) -> Result<(&str, u16), String> {
    let reason = || "must have the form HOST:PORT".to_owned();
    let (host, port) = address.rsplit_once(':').ok_or_else(reason)?;
    if host.is_empty() || host.contains(['/', ' ']) || (host.contains(':') && !host.ends_with(']'))
    {
        return Err(reason());
    }
    match port.parse::<u16>() {
        Ok(0) | Err(_) => Err("the port must be 1 to 65535".to_owned()),
        Ok(port) => Ok((host, port)),
    }
}

fn check_address<'a>(name: &'static str, address: &'a str) -> Result<(&'a str, u16), ConfigError> {
    split_address(address).map_err(|reason| ConfigError::invalid(name, address, reason))
}

fn distinct(addresses: Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::with_capacity(addresses.len());
    for address in addresses {
        let address = address.trim().to_owned();
        if !address.is_empty() && !kept.contains(&address) {
            kept.push(address);
        }
    }
    kept
}

/// Returns half of the cores: the other half evaluates reads, serves gRPC and compacts.
fn default_stores() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.div_ceil(2).min(STORES_MAX)
}

#[cfg(test)]
mod tests;
