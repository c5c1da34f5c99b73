//! The listeners: what the peer address serves, and what the client address serves.
//!
//! Whoever reaches the peer address can move raft state, so it belongs behind a firewall with the
//! nodes. The client address serves nothing that only nodes ask of each other.

use rangedb_proto::v1::{self, error::Kind, request::Body};

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

    /// Refuses at the client address what only nodes ask.
    pub fn admit(self, body: &Body) -> Result<(), v1::Error> {
        match (self, what_only_nodes_ask(body)) {
            (Listener::Client, Some(what)) => {
                let kind = Kind::PermissionDenied(v1::PermissionDenied {});
                let message = format!("{what} is asked by nodes alone, at the peer address");
                Err(v1::Error::new(kind, message))
            }
            _ => Ok(()),
        }
    }
}

/// The name of a request that no client has a reason for. One match over all kinds, so that a new
/// kind does not compile without a decision.
fn what_only_nodes_ask(body: &Body) -> Option<&'static str> {
    match body {
        // They would put nodes and reports of ranges into the registry, and waits into the detector.
        Body::Join(_) => Some("join"),
        Body::Heartbeat(_) => Some("heartbeat"),
        Body::LockWaits(_) => Some("lock_waits"),
        // Nodes pass on what they were asked themselves.
        Body::Forwarded(_) => Some("forwarded"),
        Body::PointRead(_)
        | Body::Scan(_)
        | Body::Write(_)
        | Body::TransactionCommand(_)
        | Body::Validate(_)
        | Body::ListLocks(_)
        | Body::Timestamps(_)
        | Body::Locate(_)
        | Body::HoldFloor(_)
        | Body::GarbageStatus(_)
        | Body::ClusterStatus(_)
        | Body::RemoveNode(_)
        | Body::MetaRead(_)
        | Body::ConfigGet(_)
        | Body::ConfigSet(_)
        | Body::PartitionList(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_nodes_ask_is_refused_at_the_client_address() {
        let only_nodes = [
            Body::Join(Default::default()),
            Body::Heartbeat(Default::default()),
            Body::LockWaits(Default::default()),
            Body::Forwarded(Default::default()),
        ];
        for body in only_nodes {
            assert_eq!(Listener::Peer.admit(&body), Ok(()));
            let refused = Listener::Client.admit(&body).unwrap_err();
            assert!(matches!(refused.kind, Some(Kind::PermissionDenied(_))), "{refused:?}");
        }
        assert_eq!(Listener::Client.admit(&Body::ClusterStatus(Default::default())), Ok(()));
    }
}
