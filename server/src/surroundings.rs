//! Surroundings of a node's logic: ids, stores, network, clock and client. The node and each role
//! that it takes on share them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rangedb_client::Client;
use rangedb_client::net::SharedNet;
use rangedb_proto::Timestamp;
use rangedb_proto::v1::{self, error::Kind};

use crate::handle::StoreHandle;
use crate::status_board::StatusBoard;

/// The time of day. Only the oracle uses it, and it may jump.
pub trait WallClock: Send + Sync {
    fn unix_millis(&self) -> u64;
}

/// Environment of a node and of its roles. Cheap to clone.
#[derive(Clone)]
pub struct Surroundings {
    pub cluster_id: u64,
    pub node_id: u64,
    pub stores: StoreHandle,
    pub board: Arc<StatusBoard>,
    pub net: SharedNet,
    pub clock: Arc<dyn WallClock>,
    /// Client for the node's own requests. It reaches every key.
    pub client: Client,
    /// The decided formation, if this node is one of the founders.
    pub formation: Option<v1::Formation>,
    /// The last timestamp of another node's oracle that this node saw.
    pub oracle_seen: Arc<Mutex<Option<SeenTimestamp>>>,
}

/// The last timestamp of an earlier oracle that this node saw, and this node's monotonic clock
/// then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenTimestamp {
    pub timestamp: Timestamp,
    pub at: Duration,
}

/// Translates an engine's error into the error for a client.
pub fn storage_error(error: rangedb_storage::Error) -> v1::Error {
    use rangedb_storage::Error;
    let message = error.to_string();
    let kind = match error {
        Error::Corrupt { file, .. } => Kind::Corruption(v1::Corruption {
            file: file.map(|file| file.display().to_string()).unwrap_or_default(),
        }),
        Error::Damaged(_) => Kind::Corruption(v1::Corruption::default()),
        Error::Full(_) => Kind::DiskFull(v1::DiskFull {}),
        Error::Io(_) | Error::Refused(_) => Kind::Unavailable(v1::Unavailable {}),
    };
    v1::Error::new(kind, message)
}
