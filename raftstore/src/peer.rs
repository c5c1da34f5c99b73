//! One replica: its raft state and what its clients wait for. Each behaviour is an
//! `impl Peer` in a file of its own below `peer/`; here are the fields and how they are read.

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
mod stalled_log;
mod step;
mod tick;
mod truncate;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use raft::eraftpb::Message;
use raft::{RawNode, StateRole};
use rangedb_proto::v1::{RangeDescriptor, RangeState, Replica};
use rangedb_proto::{NodeId, RangeDescriptorExt, RangeId, ReplicaId, SYSTEM_PREFIX};
use rangedb_storage::{Error as StorageError, LogBatch, LogEngine, StateEngine};

use crate::apply::{Quarantine, ReplicaRef};
use crate::lease::Lease;
use crate::position::Position;
use crate::raft_log::RaftLog;
use crate::{Config, Error, RequestId, Room};

use apply::InApply;
pub(crate) use credible::INDEX_MAX;
use install::Installing;
pub(crate) use install::StagedIn;
use operate::PendingOperation;
use propose::Proposals;
pub(crate) use propose::Waiting;
use read::Reads;

/// What a replica knows only while it leads.
pub(crate) struct Leading {
    term: u64,
    /// An entry of this term is applied: all that earlier leaders committed is visible.
    ready: bool,
    /// The oracle's timestamp from after the election; nothing is committed before it is known.
    fence: Option<u64>,
    /// Highest timestamp that a snapshot read asked for.
    highest_read: u64,
    lease: Lease,
}

/// Writes of a ready on their way to disk, and the messages that must not leave before them.
struct Persisting {
    ready: u64,
    held: Vec<Message>,
}

/// One replica of one range.
///
/// Invariants:
/// - `me` stands in the descriptor, unless it has departed, or no snapshot came yet;
/// - a message in `persisting` leaves only after its ready is durable;
/// - `proposals` hold requests only while this replica led when it took them.
pub(crate) struct Peer {
    pub range: RangeId,
    pub me: Replica,
    raw: RawNode<RaftLog>,
    rng: fastrand::Rng,
    config: Arc<Config>,
    leading: Option<Leading>,
    proposals: Proposals,
    in_apply: InApply,
    reads: Reads,
    operation: Option<PendingOperation>,
    persisting: VecDeque<Persisting>,
    /// A snapshot that raft was told of and has not yet handed back for installing.
    staged: Option<StagedIn>,
    installing: Option<Installing>,
    /// Reason why this replica stands still.
    quarantine: Option<Quarantine>,
    /// Somebody said that this replica is no member any more, and the control plane has not.
    removal_claimed: bool,
    /// Ticks during which votes are refused: a replica that restarts has forgotten whether it just
    /// heard a leader, whose lease counts on it.
    vote_embargo_ticks: usize,
    /// Ticks since a leader was last heard of.
    leaderless_ticks: usize,
    room: Room,
    log_stalled: bool,
    /// Where the newest applied membership change stands in the log, at the latest.
    membership_index: u64,
    /// Replicas that left and have not been told yet.
    departing: Vec<Replica>,
    ticks: u64,
    /// Who was last heard of when, by replica id. Before its first snapshot, a replica knows the
    /// others from here alone.
    heard: BTreeMap<u64, Heard>,
}

struct Heard {
    replica: Replica,
    tick: u64,
    /// Its vote promise, in microseconds.
    vote_promise_us: u64,
}

/// Engines and settings that all peers of a store share.
pub(crate) struct Shared {
    pub node: NodeId,
    pub config: Arc<Config>,
    pub log: Arc<dyn LogEngine>,
    /// Only read here: the applier writes it.
    pub state: Arc<dyn StateEngine>,
    /// Ticks for which replicas that were there before refuse votes.
    pub vote_embargo_ticks: usize,
}

impl Peer {
    /// A replica as the engines hold it, with log changes that must be durable before it runs.
    pub fn open(
        shared: &Shared,
        me: Replica,
        stored: RangeState,
        rng: fastrand::Rng,
    ) -> Result<(Self, LogBatch), rangedb_storage::Error> {
        let range = RangeId(stored.descriptor.as_ref().map_or(0, |d| d.range_id));
        let applied_index = stored.applied_index;
        let config = shared.config.clone();
        let (log, changes) = RaftLog::open(
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
            // Together: a replica that was cut off cannot depose a leader that the others follow,
            // and a leader's lease can count on them.
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
            departing: Vec::new(),
            ticks: 0,
            heard: BTreeMap::new(),
        };
        #[cfg(feature = "planted")]
        if rangedb_planted::Bug::VoteAfterRestart.is_planted() {
            peer.lift_vote_embargo();
        }
        peer.rejitter();
        Ok((peer, LogBatch { changes }))
    }

    /// A replica that another node's leader speaks of and that has no state yet.
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

    /// Has state: was there from the start, or got a snapshot.
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

    fn log(&mut self) -> &mut RaftLog {
        self.raw.mut_store()
    }

    /// The leader as far as known here.
    fn leader(&self) -> Option<Replica> {
        self.descriptor().replica(self.raw.raft.leader_id).copied()
    }

    fn not_leader(&self) -> Error {
        Error::NotLeader { range: self.range, leader: self.leader() }
    }

    fn stale_epoch(&self) -> Error {
        Error::StaleEpoch { descriptor: Box::new((**self.descriptor()).clone()) }
    }

    /// Campaigns at once: for the first replica of a new range, which nobody else will contest.
    pub fn campaign(&mut self) {
        // Refused only where this replica may not stand, which a later tick handles the same way.
        let _ = self.raw.campaign();
        self.rejitter();
    }

    /// True if this replica alone decides.
    pub fn is_lone_voter(&self) -> bool {
        let conf = crate::membership::conf_state(self.descriptor());
        conf.voters == [self.me.replica_id] && conf.voters_outgoing.is_empty()
    }

    /// No life before this one: nothing can have been promised that a vote would break.
    pub fn lift_vote_embargo(&mut self) {
        self.vote_embargo_ticks = 0;
    }

    pub fn set_room(&mut self, room: Room) {
        self.room = room;
    }

    /// True if there is room to take in what frees space itself, or does not.
    fn has_room_for(&self, frees_space: bool) -> bool {
        self.room.is_for(frees_space) || self.descriptor().start_key.starts_with(SYSTEM_PREFIX)
    }

    /// Replaces the election timeout that raft-rs drew from the thread's generator by one from the
    /// seed. `Raft::reset` is the only place that draws, and it leaves `election_elapsed` at 0, so
    /// calling this after every call to raft comes before anyone can look at the draw.
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

/// A request that waits, with what it is to be told if this replica cannot serve it.
pub(crate) type Answer = (RequestId, Result<bytes::Bytes, Error>);
