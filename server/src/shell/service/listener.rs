//! Listeners: the services of the peer address and of the client address.
//!
//! A caller that reaches the peer address can move Raft state. So the address belongs behind a
//! firewall with the nodes. Both addresses serve `rangedb.v1.Node`, and `node/caller.rs` refuses
//! users those of its requests that only nodes may make.

/// Address at which a call came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Listener {
    Peer,
    Client,
}

impl Listener {
    /// Returns the full names of the services of the address, reflection aside.
    pub fn services(self) -> &'static [&'static str] {
        match self {
            Listener::Peer => {
                &["rangedb.v1.Peer", "rangedb.v1.Node", "rangedb.v1.Kv", "grpc.health.v1.Health"]
            }
            Listener::Client => &["rangedb.v1.Node", "rangedb.v1.Kv", "grpc.health.v1.Health"],
        }
    }
}
