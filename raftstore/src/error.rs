//! Errors of requests, by what the sender can do next.

use rangedb_proto::RangeId;
use rangedb_proto::v1::{self, Replica, error::Kind};

/// Refusal of a request. The request was certainly not applied, except under
/// [`Error::Undetermined`].
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Error {
    /// Ask the leader, if it is known.
    #[error("not the leader of range {range}")]
    NotLeader { range: RangeId, leader: Option<Replica> },
    /// The range's bounds or replicas have changed.
    #[error("the epoch of range {} is stale", descriptor.range_id)]
    StaleEpoch { descriptor: Box<v1::RangeDescriptor> },
    /// No replica of the range on this node.
    #[error("range {0} has no replica on this node")]
    RangeNotFound(RangeId),
    /// A bound is reached; retry later.
    #[error("range {range} is busy: {reason}")]
    TooBusy { range: RangeId, reason: &'static str },
    /// No room on the disk; reads go on.
    #[error("the disk of the leader of range {0} is full")]
    DiskFull(RangeId),
    /// The command was proposed, and this replica can no longer learn its outcome.
    #[error("the outcome of a command on range {0} is not known")]
    Undetermined(RangeId),
    /// This replica is quarantined: it cannot apply an entry, or has lost entries. A replica of a
    /// newer version may go on; otherwise an operator has to decide.
    #[error("range {range} is quarantined: {reason}")]
    Quarantined { range: RangeId, reason: String },
    /// An operation that is not possible in the current state.
    #[error("{0}")]
    Refused(String),
}

/// Milliseconds after which a client may retry at a busy range: a few rounds of the log.
const TOO_BUSY_RETRY_MS: u32 = 20;

impl From<Error> for v1::Error {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let kind = match error {
            Error::NotLeader { range, leader } => Kind::NotLeader(v1::NotLeader {
                range_id: range.0,
                leader,
                leader_address: String::new(),
                leader_peer_address: String::new(),
            }),
            Error::StaleEpoch { descriptor } => {
                Kind::StaleEpoch(v1::StaleEpoch { descriptors: vec![*descriptor] })
            }
            Error::RangeNotFound(range) => {
                Kind::RangeNotFound(v1::RangeNotFound { range_id: range.0 })
            }
            Error::TooBusy { .. } => {
                Kind::TooBusy(v1::TooBusy { retry_after_ms: TOO_BUSY_RETRY_MS })
            }
            Error::DiskFull(_) => Kind::DiskFull(v1::DiskFull {}),
            Error::Undetermined(_) => Kind::Undetermined(v1::Undetermined {}),
            Error::Quarantined { .. } => Kind::Unavailable(v1::Unavailable {}),
            Error::Refused(_) => Kind::FailedPrecondition(v1::FailedPrecondition {}),
        };
        v1::Error::new(kind, message)
    }
}
