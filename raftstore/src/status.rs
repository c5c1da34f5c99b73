//! A look at a store from outside: for tests, the simulator's checkers, metrics and people.

use std::sync::Arc;

use rangedb_proto::v1::{RangeDescriptor, Replica};

use crate::Quarantine;

/// One replica as it stands between two passes.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeStatus {
    pub replica: Replica,
    /// Without replicas while no snapshot has come yet.
    pub descriptor: Arc<RangeDescriptor>,
    pub term: u64,
    /// As far as known here; 0 if not.
    pub leader_replica_id: u64,
    /// Leads, and has applied an entry of its term.
    pub leads: bool,
    /// Leads, and knows the timestamp that its commits must go above.
    pub fenced: bool,
    pub applied_index: u64,
    pub applied_term: u64,
    pub commit_index: u64,
    pub last_index: u64,
    pub truncated_index: u64,
    /// Entries that the log still holds.
    pub log_entries: u64,
    /// Somebody holds a view of the range's state, or is going to be handed one, to stream it to
    /// another replica. Also after this one has ceased to lead.
    pub sends_snapshot: bool,
    /// Set while the replica stands still.
    pub quarantine: Option<Quarantine>,
}

/// What a store did since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub passes: u64,
    pub messages_received: u64,
    pub messages_sent: u64,
    pub requests_answered: u64,
    pub reads_under_lease: u64,
    pub reads_confirmed: u64,
    pub appends: u64,
    pub flushes: u64,
    pub snapshots_sent: u64,
    pub snapshots_received: u64,
    pub replicas_created: u64,
    pub replicas_destroyed: u64,
    pub leaderships_won: u64,
    pub stalled_hand_overs: u64,
}
