//! One replica: its raft state and the requests that wait for it. This file holds the fields and
//! their accessors. Each behaviour is an `impl Peer` in a file of its own below `peer/`.

mod apply;
mod credible;
mod departure;
mod destroy;
mod install;
mod lease;
mod operate;
mod propose;
mod quarantine;
mod read;
mod ready;
mod report;
mod role;
mod room;
mod stalled_log;
mod step;
mod tick;
mod truncate;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use raft::eraftpb::Message;
use raft::{RawNode, StateRole};
use rangedb_proto::v1::{RaftEnvelope, RangeDescriptor, RangeState, Replica};
use rangedb_proto::{NodeId, RangeDescriptorExt, RangeId, ReplicaId};
use rangedb_storage::{Error as StorageError, LogBatch, LogEngine, RangeSize, StateEngine};

use crate::apply::{Quarantine, ReplicaRef};
use crate::peer_storage::PeerStorage;
use crate::planted::planted;
use crate::position::Position;
use crate::{Config, Error, Room};

use apply::InApply;
pub(crate) use credible::INDEX_MAX;
use install::Installing;
pub(crate) use install::StagedIn;
use operate::PendingOperation;
use propose::Proposals;
pub(crate) use propose::QueuedCommand;
use read::Reads;
use role::Leading;
pub(crate) use room::reserve_bytes;

/// Writes of a ready in flight to disk, and the messages that must not leave before them.
struct Persisting {
    ready: u64,
    held: Vec<Message>,
}

/// One replica of one range.
///
/// Invariants:
/// - `me` stands in the descriptor, unless the replica has departed or has no snapshot yet;
/// - a message in `persisting` leaves only after its ready is durable;
/// - `proposals` hold only requests that this replica accepted while it led.
pub(crate) struct Peer {
    pub range: RangeId,
    pub me: Replica,
    raw: RawNode<PeerStorage>,
    rng: fastrand::Rng,
    config: Arc<Config>,
    leading: Option<Leading>,
    proposals: Proposals,
    in_apply: InApply,
    reads: Reads,
    operation: Option<PendingOperation>,
    persisting: VecDeque<Persisting>,
    /// A snapshot that raft has accepted and not yet handed back for installing.
    staged: Option<StagedIn>,
    installing: Option<Installing>,
    /// Set while the replica is quarantined.
    quarantine: Option<Quarantine>,
    /// True if a message claimed that this replica is no longer a member. Until the control plane
    /// confirms the claim, the replica stays.
    removal_claimed: bool,
    /// Ticks during which votes are refused. A replica that restarts has forgotten whether it just
    /// heard a leader. That leader's lease relies on the replica to give no vote.
    vote_embargo_ticks: usize,
    /// Ticks since the replica last heard from a leader.
    leaderless_ticks: usize,
    room: Room,
    log_stalled: bool,
    /// Upper bound on the index of the newest applied membership change.
    membership_index: u64,
    /// Size of the range at the applied index.
    size: RangeSize,
    /// Replicas that left the range and have not been told so yet.
    departing: Vec<Replica>,
    ticks: u64,
    /// Last message heard from each replica, by replica id. Before its first snapshot, a replica
    /// knows other replicas only from this map.
    heard: BTreeMap<u64, LastMessage>,
}

struct LastMessage {
    replica: Replica,
    tick: u64,
    said: SenderState,
}

/// State of a replica that each of its messages carries.
#[derive(Clone, Copy)]
pub(crate) struct SenderState {
    /// Vote promise of the replica, in microseconds.
    pub vote_promise_us: u64,
    /// True if its disk has no room for entries that take up space.
    pub short_of_room: bool,
}

impl SenderState {
    pub fn of(envelope: &RaftEnvelope) -> Self {
        let RaftEnvelope { vote_promise_us, short_of_room, .. } = *envelope;
        SenderState { vote_promise_us, short_of_room }
    }
}

/// Engines and settings that all peers of a store share.
pub(crate) struct Shared {
    pub node: NodeId,
    pub config: Arc<Config>,
    pub log: Arc<dyn LogEngine>,
    /// Only read: the applier writes the state.
    pub state: Arc<dyn StateEngine>,
    /// Ticks for which replicas from before this start refuse votes.
    pub vote_embargo_ticks: usize,
}

impl Peer {
    /// Takes in the size of the range, which the applier knows.
    pub fn set_size(&mut self, size: RangeSize) {
        self.size = size;
    }

    /// Opens a replica from the engines. The log changes returned must be durable before it runs.
    pub fn open(
        shared: &Shared,
        me: Replica,
        stored: RangeState,
        rng: fastrand::Rng,
    ) -> Result<(Self, LogBatch), rangedb_storage::Error> {
        let range = RangeId(stored.descriptor.as_ref().map_or(0, |d| d.range_id));
        let applied_index = stored.applied_index;
        let config = shared.config.clone();
        let (log, changes) = PeerStorage::open(
            range,
            shared.log.clone(),
            shared.state.clone(),
            stored,
            config.entry_cache_bytes,
        )?;
        let raft_config = raft::Config {
            id: me.replica_id,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied: applied_index,
            max_size_per_msg: config.message_bytes_max,
            max_inflight_msgs: config.inflight_messages_max,
            max_uncommitted_size: config.uncommitted_bytes_max,
            max_committed_size_per_ready: config.apply_bytes_max,
            // These two keep a replica that was cut off from deposing a leader that the others
            // follow. The leader's lease relies on them.
            check_quorum: true,
            pre_vote: true,
            ..Default::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&raft_config, log, &logger)
            .map_err(|e| StorageError::corrupt(format!("raft refuses range {range}: {e}")))?;
        let mut peer = Peer {
            range,
            me,
            raw,
            rng,
            vote_embargo_ticks: shared.vote_embargo_ticks,
            config,
            leading: None,
            proposals: Proposals::default(),
            in_apply: InApply::default(),
            reads: Reads::default(),
            operation: None,
            persisting: VecDeque::new(),
            staged: None,
            installing: None,
            quarantine: None,
            removal_claimed: false,
            leaderless_ticks: 0,
            room: Room::Enough,
            log_stalled: false,
            membership_index: applied_index,
            size: RangeSize::default(),
            departing: Vec::new(),
            ticks: 0,
            heard: BTreeMap::new(),
        };
        if planted!(VoteAfterRestart) {
            peer.lift_vote_embargo();
        }
        peer.rejitter();
        Ok((peer, LogBatch { changes }))
    }

    /// Creates a replica that has no state yet, for a message from another node's leader.
    pub fn create(
        shared: &Shared,
        range: RangeId,
        me: Replica,
        rng: fastrand::Rng,
    ) -> Result<Self, rangedb_storage::Error> {
        let descriptor = RangeDescriptor { range_id: range.0, ..Default::default() };
        let nothing = RangeState { descriptor: Some(descriptor), ..Default::default() };
        let (peer, changes) = Self::open(shared, me, nothing, rng)?;
        assert!(changes.is_empty(), "range {range}: a log was left where no replica was");
        Ok(peer)
    }

    /// True if the replica has state, from the founding or from a snapshot.
    pub fn is_initialized(&self) -> bool {
        !self.descriptor().replicas.is_empty()
    }

    pub fn replica_id(&self) -> ReplicaId {
        ReplicaId(self.me.replica_id)
    }

    pub fn descriptor(&self) -> &Arc<RangeDescriptor> {
        &self.raw.store().descriptor
    }

    pub fn applied(&self) -> Position {
        self.raw.store().applied
    }

    pub fn reference(&self) -> ReplicaRef {
        ReplicaRef { range: self.range, id: self.replica_id() }
    }

    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    pub fn is_leader(&self) -> bool {
        self.leading.is_some()
    }

    fn storage_mut(&mut self) -> &mut PeerStorage {
        self.raw.mut_store()
    }

    /// The leader, if it is known here.
    fn leader(&self) -> Option<Replica> {
        self.descriptor().replica(self.raw.raft.leader_id).copied()
    }

    fn not_leader(&self) -> Error {
        Error::NotLeader { range: self.range, leader: self.leader() }
    }

    fn stale_epoch(&self) -> Error {
        Error::StaleEpoch { descriptor: Box::new((**self.descriptor()).clone()) }
    }

    /// Campaigns at once. For a lone voter, and for the first replica of a new range, which no
    /// other replica contests.
    pub fn campaign(&mut self) {
        // raft-rs refuses only where this replica may not stand. A later tick handles that in the
        // same way.
        let _ = self.raw.campaign();
        self.rejitter();
    }

    /// True if this replica is the only voter.
    pub fn is_lone_voter(&self) -> bool {
        let conf = crate::membership::conf_state(self.descriptor());
        conf.voters == [self.me.replica_id] && conf.voters_outgoing.is_empty()
    }

    /// Ends the refusal of votes. For a replica that never ran before: it has given no promise that
    /// a vote could break.
    pub fn lift_vote_embargo(&mut self) {
        self.vote_embargo_ticks = 0;
    }

    /// Replaces the election timeout that raft-rs drew from the thread's generator by one from the
    /// seed. Only `Raft::reset` draws, and it leaves `election_elapsed` at 0. Callers call this
    /// after every call to raft, so nothing uses raft-rs's draw.
    fn rejitter(&mut self) {
        if self.raw.raft.election_elapsed == 0 {
            let ticks = self.config.election_ticks;
            let timeout = self.rng.usize(ticks..2 * ticks);
            self.raw.raft.set_randomized_election_timeout(timeout);
        }
    }

    fn is_raft_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }
}
