//! Network between the nodes of a cluster and its clients: one proxy for each address of a node.
//!
//! Node n advertises `127.0.1.n`, where its proxies listen, and listens itself at `127.0.2.n`
//! (`--listen-host`). A proxy knows the opener of a connection (`source.rs`), so every directed
//! link between two places has a state of its own (`link.rs`). Bytes from A to B take the link A to
//! B, whichever of the two has opened the connection. All clients of the test together are one
//! place.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::link::{self, Link, State};
use super::source::Sources;

/// NetworkPlace in the network: nodes from 0 on, and behind them the clients.
pub type NetworkPlace = usize;

/// Length of a proxy's queue of new connections: more than all nodes and clients open at once.
const BACKLOG: i32 = 1024;

pub struct Network {
    nodes: usize,
    links: Arc<Vec<watch::Sender<State>>>,
    pub sources: Sources,
    proxies: JoinSet<()>,
}

impl Network {
    pub fn of(nodes: usize) -> Self {
        let places = nodes + 1;
        let links = (0..places * places).map(|_| watch::Sender::new(State::Open)).collect();
        let (links, sources) = (Arc::new(links), Sources::new(nodes));
        Network { nodes, links, sources, proxies: JoinSet::new() }
    }

    pub fn clients(&self) -> NetworkPlace {
        self.nodes
    }

    pub fn set(&self, (from, to): (NetworkPlace, NetworkPlace), state: State) {
        self.links[self.number(from, to)].send_replace(state);
    }

    pub fn heal(&self) {
        for link in self.links.iter() {
            link.send_replace(State::Open);
        }
    }

    /// Takes connections for a node at `advertised` and carries them to `actual`.
    pub fn serve(&mut self, node: NetworkPlace, advertised: SocketAddr, actual: SocketAddr) {
        let listener = listen(advertised);
        let (links, sources, nodes) = (self.links.clone(), self.sources.clone(), self.nodes);
        self.proxies.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Some(_) = connections.join_next() => {}
                    Ok((opener, from)) = listener.accept() => {
                        // Closed if the opener is gone.
                        let Some(source) = sources.of(from, advertised) else { continue };
                        let link = |from: NetworkPlace, to: NetworkPlace| links[from * (nodes + 1) + to].subscribe();
                        let (there, back) = (link(source, node), link(node, source));
                        connections.spawn(connect(opener, actual, there, back));
                    }
                }
            }
        });
    }

    fn number(&self, from: NetworkPlace, to: NetworkPlace) -> usize {
        from * (self.nodes + 1) + to
    }
}

async fn connect(opener: TcpStream, actual: SocketAddr, there: Link, back: Link) {
    if !link::opens(there.clone(), back.clone()).await {
        return;
    }
    let Ok(target) = TcpStream::connect(actual).await else { return };
    // Without Nagle's algorithm: to delay small messages is not one of the faults.
    if opener.set_nodelay(true).is_ok() && target.set_nodelay(true).is_ok() {
        link::carry(opener, target, there, back).await;
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = tokio::net::TcpSocket::new_v4().expect("a test can make a socket");
    socket.set_reuseaddr(true).expect("an address can be used again");
    socket.bind(address).unwrap_or_else(|error| panic!("cannot listen at {address}: {error}"));
    socket.listen(BACKLOG as u32).expect("a bound socket can listen")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::support::ports::free_address;
    use crate::support::wait::{SOON, check, until};

    /// Makes a network of one node, and both ends of a connection from the clients to it.
    async fn connected() -> (Network, TcpStream, TcpStream) {
        let mut network = Network::of(1);
        let advertised: SocketAddr = free_address().parse().unwrap();
        let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
        network.serve(0, advertised, node.local_addr().unwrap());
        let client = TcpStream::connect(advertised).await.unwrap();
        let (accepted, _) = node.accept().await.unwrap();
        (network, client, accepted)
    }

    async fn arrives(to: &mut TcpStream, sent: &str) {
        let mut arrived = vec![0; sent.len()];
        let read = tokio::time::timeout(SOON, to.read_exact(&mut arrived)).await;
        read.expect("it arrives in time").expect("it arrives");
        assert_eq!(arrived, sent.as_bytes());
    }

    fn nothing_came(to: &TcpStream) {
        let came = to.try_read(&mut [0; 1]);
        assert!(came.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_open_network_carries_everything_both_ways() {
        let (_network, mut client, mut node) = connected().await;
        let much = "0123456789abcdef".repeat(100_000);
        let (sent, arrived) =
            tokio::join!(client.write_all(much.as_bytes()), arrives(&mut node, &much));
        sent.unwrap();
        let () = arrived;
        node.write_all(b"answer").await.unwrap();
        arrives(&mut client, "answer").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stalled_link_holds_back_one_direction_and_loses_nothing() {
        let (network, mut client, mut node) = connected().await;
        network.set((network.clients(), 0), State::Stalled);
        client.write_all(b"late").await.unwrap();
        node.write_all(b"other way").await.unwrap();
        arrives(&mut client, "other way").await;
        nothing_came(&node);
        network.heal();
        arrives(&mut node, "late").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_slow_link_carries_everything_in_order_and_late() {
        let (network, mut client, mut node) = connected().await;
        let delay = Duration::from_millis(80);
        network.set((network.clients(), 0), State::Slow(delay));
        let began = std::time::Instant::now();
        for word in ["one ", "two ", "three"] {
            client.write_all(word.as_bytes()).await.unwrap();
        }
        arrives(&mut node, "one two three").await;
        assert!(began.elapsed() >= delay);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_broken_link_ends_its_connections_and_takes_no_new_ones() {
        let (network, mut client, node) = connected().await;
        network.set((0, network.clients()), State::Broken);
        let end = tokio::time::timeout(SOON, client.read(&mut [0; 1])).await;
        assert!(matches!(end.expect("it ends in time"), Ok(0) | Err(_)));
        drop(node);
        let again = TcpStream::connect(client.peer_addr().unwrap()).await;
        let mut again = again.expect("the proxy itself is there");
        let end = tokio::time::timeout(SOON, again.read(&mut [0; 1])).await;
        assert!(matches!(end.expect("it ends in time"), Ok(0) | Err(_)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_that_is_down_is_a_connection_that_ends() {
        let mut network = Network::of(1);
        let (advertised, nobody) = (free_address(), free_address());
        let advertised: SocketAddr = advertised.parse().unwrap();
        network.serve(0, advertised, nobody.parse().unwrap());
        until("the connection ends", SOON, async || {
            let mut client = TcpStream::connect(advertised).await.map_err(|e| e.to_string())?;
            let read = client.read(&mut [0; 1]).await;
            check(matches!(read, Ok(0) | Err(_)), "something answered")
        })
        .await;
    }
}
