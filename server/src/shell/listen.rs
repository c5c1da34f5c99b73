//! Sockets to listen on.
//!
//! An address says where others reach the node. The node listens on the address's host if it is one
//! of this machine's, and otherwise on every interface, as behind a load balancer or in a
//! container. A host given by `--listen-host` has no such fallback: if it is not one of this
//! machine's, the node does not start. Otherwise a typing error would open the node to every
//! network.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, lookup_host};

use crate::shell::config::split_address;

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {name} {address}: {reason}")]
pub struct ListenError {
    name: &'static str,
    address: String,
    reason: String,
}

/// Listens on the address that flag `name` gives. `listen_host` replaces the address's host.
pub(crate) async fn listen(
    name: &'static str,
    address: &str,
    listen_host: Option<&str>,
) -> Result<TcpListener, ListenError> {
    let fail = |reason: String| ListenError { name, address: address.to_owned(), reason };
    let (host, port) = split_address(address).map_err(fail)?;
    let host = listen_host.unwrap_or(host).trim_matches(['[', ']']);
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let resolved = match lookup_host((host, port)).await {
        Ok(resolved) => {
            let mut resolved: Vec<SocketAddr> = resolved.collect();
            // IPv4 first: clients differ in the address family that they try first, but all can
            // reach IPv4.
            resolved.sort_by_key(SocketAddr::is_ipv6);
            resolved
        }
        Err(error) if listen_host.is_some() => {
            return Err(fail(format!("--listen-host {host} cannot be resolved: {error}")));
        }
        Err(error) => {
            tracing::warn!(host, "cannot resolve, listening on every interface: {error}");
            vec![everywhere]
        }
    };
    let first = resolved.first().ok_or_else(|| fail(format!("{host} has no address")))?;
    match TcpListener::bind(first).await {
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable && listen_host.is_none() => {
            tracing::info!(host, "not an address of this machine, listening on every interface");
            TcpListener::bind(everywhere).await.map_err(|error| fail(error.to_string()))
        }
        bound => bound.map_err(|error| fail(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn free_port() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_listened_on_by_its_ipv4_address() {
        let address = format!("localhost:{}", free_port().await);
        let listener = listen("--peer-address", &address, None).await.unwrap();
        assert_eq!(listener.local_addr().unwrap().ip(), Ipv4Addr::LOCALHOST);
    }

    #[tokio::test]
    async fn a_host_to_listen_on_that_cannot_be_resolved_is_refused_and_named() {
        let address = format!("localhost:{}", free_port().await);
        let refused = listen("--peer-address", &address, Some("no..host")).await.unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("--listen-host no..host cannot be resolved"), "{said}");
        // For an address this is no error: it says where others reach the node.
        let elsewhere = format!("no..host:{}", free_port().await);
        let listener = listen("--peer-address", &elsewhere, None).await.unwrap();
        assert_eq!(listener.local_addr().unwrap().ip(), Ipv4Addr::UNSPECIFIED);
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = listen("--client-address", &address, None).await.unwrap_err().to_string();
        assert!(error.contains("--client-address") && error.contains(&address), "{error}");
    }
}
