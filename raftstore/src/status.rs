//! Status of a store, for tests, the simulator's checkers, metrics and people.

use std::sync::Arc;

use rangedb_proto::v1::{RangeDescriptor, Replica};
use rangedb_storage::RangeSize;

use crate::Quarantine;

/// Status of one replica between two passes.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeStatus {
    pub replica: Replica,
    /// Has no replicas until the first snapshot is installed.
    pub descriptor: Arc<RangeDescriptor>,
    pub term: u64,
    /// 0 if the leader is not known here.
    pub leader_replica_id: u64,
    /// True if the replica leads and has applied an entry of its term.
    pub leads: bool,
    /// True if the replica leads and knows the timestamp above which its commits must go.
    pub fenced: bool,
    pub applied_index: u64,
    pub applied_term: u64,
    /// Size of the range at the applied index.
    pub size: RangeSize,
    pub commit_index: u64,
    pub last_index: u64,
    pub truncated_index: u64,
    /// Entries that the log still holds.
    pub log_entries: u64,
    /// True while a stream of a snapshot to another replica holds a view of the range's state, or
    /// is about to get one. Also after this replica has ceased to lead.
    pub sends_snapshot: bool,
    /// Set while the replica is quarantined.
    pub quarantine: Option<Quarantine>,
}

/// Counts of a store since it was opened.
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
