//! Configuration of a client.

use std::time::Duration;

use rangedb_proto::v1::{NodeDescriptor, NotLeader};

use crate::error::{Error, Result};

/// Timeout of a request unless the caller sets another. Longer than a leader election (about two
/// seconds), so that a failover shows as a slow request instead of an error.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// Duration above which a transaction counts as slow, unless the caller sets another. In a healthy
/// cluster only waiting for others takes so long.
pub const SLOW_TRANSACTION_DEFAULT: Duration = Duration::from_secs(1);

/// Address of a node that requests go to. Requests that only nodes make are answered only at the
/// peer address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressKind {
    /// The address that the node advertises to clients.
    #[default]
    Client,
    /// The address at which nodes reach each other: for the client inside a node.
    Peer,
}

impl AddressKind {
    pub(crate) fn of_node(self, node: &NodeDescriptor) -> &str {
        match self {
            AddressKind::Client => &node.client_address,
            AddressKind::Peer => &node.peer_address,
        }
    }

    /// Address of the leader in a hint; empty if it is not known.
    pub(crate) fn of_leader(self, hint: &NotLeader) -> &str {
        match self {
            AddressKind::Client => &hint.leader_address,
            AddressKind::Peer => &hint.leader_peer_address,
        }
    }
}

/// Configuration of a client: endpoints, address kind, timeout, and the threshold of slow
/// transactions.
#[derive(Clone, Debug)]
pub struct Config {
    /// Nodes to try first, as `host:port`. One that answers is enough; it names the others.
    pub endpoints: Vec<String>,
    /// Time for a request with all its retries, unless [`crate::Client::with_timeout`] is used.
    pub timeout: Duration,
    pub address_kind: AddressKind,
    /// A transaction that spends this long in its reads, locks and commit is logged, with the time
    /// of each phase.
    pub slow_transaction: Duration,
}

impl Config {
    /// Creates a configuration from endpoints of the form `host:port` or `http://host:port`.
    pub fn new<E: AsRef<str>>(endpoints: impl IntoIterator<Item = E>) -> Self {
        let endpoints = endpoints.into_iter().map(|e| plain_address(e.as_ref())).collect();
        Config {
            endpoints,
            timeout: TIMEOUT_DEFAULT,
            address_kind: AddressKind::default(),
            slow_transaction: SLOW_TRANSACTION_DEFAULT,
        }
    }

    /// Parses `a:1,b:2`, the form of `--endpoints` and `RANGEDB_ENDPOINTS`.
    pub fn from_list(endpoints: &str) -> Self {
        Self::new(endpoints.split(',').map(str::trim).filter(|e| !e.is_empty()))
    }

    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub fn slow_transaction(mut self, slow_transaction: Duration) -> Self {
        self.slow_transaction = slow_transaction;
        self
    }

    pub fn address_kind(mut self, address_kind: AddressKind) -> Self {
        self.address_kind = address_kind;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.endpoints.is_empty() {
            return Err(Error::invalid("endpoints", "at least one endpoint is needed"));
        }
        for endpoint in &self.endpoints {
            let port = endpoint.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
                let message = format!("endpoint `{endpoint}` is not of the form host:port");
                return Err(Error::invalid("endpoints", message));
            }
        }
        if self.timeout.is_zero() {
            return Err(Error::invalid("timeout", "a request needs more than no time"));
        }
        Ok(())
    }
}

fn plain_address(endpoint: &str) -> String {
    endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_from_a_list() {
        let config = Config::from_list("http://a:1/, b:2,");
        assert_eq!(config.endpoints, ["a:1", "b:2"]);
        config.check().unwrap();
    }

    #[test]
    fn an_endpoint_without_a_port_is_refused() {
        for bad in ["a", ":1", "a:x", "a:70000", ""] {
            let config = Config { endpoints: vec![bad.to_owned()], ..Config::new(["a:1"]) };
            assert!(matches!(config.check(), Err(Error::Invalid { .. })), "{bad}");
        }
        assert!(Config::from_list("").check().is_err());
    }
}
