//! Sockets to listen on.
//!
//! An address says where others reach the node. The node listens on the address's host if it is one
//! of this machine's, and otherwise on every interface, as behind a load balancer or in a
//! container. A host given by `--listen-host` has no such fallback: if it is not one of this
//! machine's, the node does not start. Otherwise a typing error would open the node to every
//! network. `--listen-host '*'` asks for every interface.
//!
//! Every interface means IPv6 and IPv4, by one socket, as far as the machine has them. A socket on
//! every interface also serves addresses and names that appear later.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket, lookup_host};

use crate::shell::config::split_address;

/// Value of `--listen-host` for every interface.
const EVERYWHERE: &str = "*";

/// Connections that wait to be accepted at most, as tokio has it.
const BACKLOG: u32 = 1024;

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
    let everywhere = || listen_everywhere(port).map_err(|error| fail(error.to_string()));
    if host == EVERYWHERE {
        return everywhere();
    }
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
            return everywhere();
        }
    };
    let first = resolved.first().ok_or_else(|| fail(format!("{host} has no address")))?;
    match TcpListener::bind(first).await {
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable && listen_host.is_none() => {
            tracing::info!(host, "not an address of this machine, listening on every interface");
            everywhere()
        }
        bound => bound.map_err(|error| fail(error.to_string())),
    }
}

/// Listens on every interface, by IPv6 and IPv4. A machine without IPv6 has IPv4 alone.
fn listen_everywhere(port: u16) -> io::Result<TcpListener> {
    match listen_on_both_families(port) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(error),
        Err(_) => {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
            socket.listen(BACKLOG)
        }
        listening => listening,
    }
}

fn listen_on_both_families(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v6()?;
    rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
    socket.listen(BACKLOG)
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
        assert!(listener.local_addr().unwrap().ip().is_unspecified());
    }

    #[tokio::test]
    async fn every_interface_is_reached_by_both_families_that_the_machine_has() {
        let port = free_port().await;
        let address = format!("somewhere.example:{port}");
        let _listener = listen("--peer-address", &address, Some("*")).await.unwrap();
        tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let has_ipv6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.is_ok();
        let connected = tokio::net::TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await;
        assert_eq!(connected.is_ok(), has_ipv6, "{connected:?}");
        let refused = listen("--peer-address", &address, Some("*")).await.unwrap_err().to_string();
        assert!(refused.contains("in use"), "{refused}");
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = listen("--client-address", &address, None).await.unwrap_err().to_string();
        assert!(error.contains("--client-address") && error.contains(&address), "{error}");
    }
}
