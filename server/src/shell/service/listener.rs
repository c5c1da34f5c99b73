//! The listeners: what the peer address serves, and what the client address serves.
//!
//! Whoever reaches the peer address can move raft state, so it belongs behind a firewall with the
//! nodes. What only nodes ask of each other by the service that both serve is refused to users in
//! `node/caller.rs`.

/// The address that a call came in at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Listener {
    Peer,
    Client,
}

impl Listener {
    /// Full names of the services that are served there, reflection aside.
    pub fn services(self) -> &'static [&'static str] {
        match self {
            Listener::Peer => {
                &["rangedb.v1.Peer", "rangedb.v1.Node", "rangedb.v1.Kv", "grpc.health.v1.Health"]
            }
            Listener::Client => &["rangedb.v1.Node", "rangedb.v1.Kv", "grpc.health.v1.Health"],
        }
    }
}
