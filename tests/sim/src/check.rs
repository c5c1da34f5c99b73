//! Checked properties, one per file. Some checks are fed while the world runs. Those that need
//! whole histories run at the end.

pub mod applies_agree;
pub mod batches;
pub mod changes_add_up;
pub mod committed;
pub mod counters;
pub mod fences;
pub mod floor;
pub mod given_up;
pub mod leader_per_term;
pub mod lease_reads;
pub mod log_matching;
pub mod ranges_cover;
pub mod replicas_equal;
pub mod snapshot_reads;
pub mod tickets;
pub mod timestamps;
pub mod versions;
pub mod whole_snapshots;

use std::sync::Arc;

use parking_lot::Mutex;
use protobuf::Message as _;
use raft_proto::eraftpb;
use rangedb_proto::v1::{RaftEnvelope, raft_envelope::Body};
pub use rangedb_workload::register::linearizable;

/// Checks that are fed while the world runs.
#[derive(Default)]
pub struct Checks {
    pub leaders: leader_per_term::LeaderPerTerm,
    pub lease_reads: lease_reads::LeaseReads,
    pub applies: applies_agree::AppliesAgree,
    pub given_up: given_up::GivenUp,
    pub changes: changes_add_up::ChangesAddUp,
    pub fences: fences::Fences,
    pub floor: floor::Floor,
    pub committed: committed::Committed,
    pub log_matching: log_matching::LogMatching,
    pub replicas_equal: replicas_equal::ReplicasEqual,
    pub timestamps: timestamps::Timestamps,
}

/// Result of a check. The error says for people what is wrong.
pub type Verdict = Result<(), String>;

#[derive(Default)]
struct State {
    checks: Checks,
    /// The first property that did not hold.
    violation: Option<String>,
}

/// The checks, shared by everything that observes the world. Keeps the first violation.
#[derive(Clone, Default)]
pub struct Watch(Arc<Mutex<State>>);

impl Watch {
    pub fn note(&self, look: impl FnOnce(&mut Checks) -> Verdict) {
        let mut state = self.0.lock();
        if let Err(wrong) = look(&mut state.checks) {
            state.violation.get_or_insert(wrong);
        }
    }

    /// Reports a violation.
    pub fn violated(&self, wrong: impl Into<String>) {
        self.note(|_| Err(wrong.into()));
    }

    pub fn violation(&self) -> Option<String> {
        self.0.lock().violation.clone()
    }
}

/// The raft message in an envelope.
pub fn raft_message(envelope: &RaftEnvelope) -> Option<eraftpb::Message> {
    let Some(Body::Message(bytes)) = &envelope.body else { return None };
    eraftpb::Message::parse_from_bytes(bytes).ok()
}

/// Describes an envelope on one line.
pub fn describe_envelope(envelope: &RaftEnvelope) -> String {
    let node = |replica: Option<rangedb_proto::v1::Replica>| replica.map_or(0, |r| r.node_id);
    let (from, to) = (node(envelope.from), node(envelope.to));
    let head = format!("r{} n{from} -> n{to}", envelope.range_id);
    let Some(m) = raft_message(envelope) else {
        return format!("{head} {:?}", envelope.body);
    };
    format!(
        "{head} {:?} term {} log {}@{} commit {} entries {} {}",
        m.get_msg_type(),
        m.term,
        m.index,
        m.log_term,
        m.commit,
        m.entries.len(),
        if m.reject { "reject" } else { "" }
    )
}
