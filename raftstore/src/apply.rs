//! The applier: evaluates committed entries beside the raft thread and writes the state.
//!
//! A store never evaluates a command. It emits committed entries as [`crate::Io::Apply`]. The
//! applier of the same shard runs them in order for each range, writes the state, answers the
//! waiting requests and reports its progress to the store ([`ApplyEffect::Event`]). So ticks,
//! heartbeats and votes never wait for a command, a stalled write or a flush.
//!
//! # Order
//!
//! 1. Tasks of one range are carried out in the order in which its store emitted them.
//! 2. Ranges are served round robin, a slice of work each. A slice ends once its entries may have
//!    touched [`SLICE_COST_MAX`] records.
//! 3. Everything that a round of slices wrote goes to the engine in one batch, before any answer or
//!    event of the round leaves.
//! 4. After a membership change, a skipped entry or a removal the range stands still until the
//!    state is flushed; its store hears of the change afterwards (design D3). An installed snapshot
//!    is durable at once.
//!
//! # The state is ahead of the store
//!
//! The engine shows entries that the store does not yet know to be applied. So the applied index,
//! term and descriptor of a view of the state are read from that view: see [`crate::view`].
//!
//! Anchors: TiKV's apply pool, and openraft's separation of engine and state machine.

mod entry;
mod replica;
mod task;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rangedb_proto::RangeId;
use rangedb_proto::v1::RangeState;
use rangedb_storage::{Batch, Install, RangeSize, Result, StateEngine, WriteBatch};

use crate::planted::planted;
use crate::{Event, MachineFactory};
use replica::Replica;

pub use task::{
    AppliedMembership, ApplyEffect, ApplyEntry, ApplyTask, Quarantine, QuarantineCause, ReplicaRef,
    SnapshotInstall,
};

/// Approximate number of records that one slice of a range may touch: about a millisecond of work.
/// A range waits that long for each of the others. A deleted key costs about 15 microseconds.
const SLICE_COST_MAX: u64 = 64;

/// Limits of one round of slices: records touched, and bytes written. All answers of a round wait
/// for the whole round. A full slice is a round of its own.
const ROUND_COST_MAX: u64 = SLICE_COST_MAX;
const ROUND_BYTES_MAX: usize = 4 << 20;

/// Applier of one shard's committed entries. Driven like a store: tasks in, bounded rounds, effects
/// out.
///
/// Invariants:
/// - a range is in `runnable` exactly if it has tasks and does not wait for a flush;
/// - a replica's `applied` is written in the same batch as the data that it describes.
pub struct Applier {
    state: Arc<dyn StateEngine>,
    machines: MachineFactory,
    replicas: BTreeMap<RangeId, Replica>,
    runnable: VecDeque<RangeId>,
    /// Ranges that stand still until a flush is finished, with the events to emit then.
    flushing: BTreeMap<u64, Vec<(RangeId, Event)>>,
    last_flush: u64,
}

/// Writes, answers and events of one round.
#[derive(Default)]
struct Round {
    writes: WriteBatch,
    written_bytes: usize,
    cost: u64,
    effects: Vec<ApplyEffect>,
    /// Membership changes, skipped entries and removals, reported after a flush.
    structural: Vec<(RangeId, Event)>,
}

impl Applier {
    /// Loads the machine of every replica that has state.
    pub(crate) fn open(
        state: Arc<dyn StateEngine>,
        machines: MachineFactory,
        stored: Vec<RangeState>,
    ) -> Result<Self> {
        let mut applier = Applier {
            state,
            machines,
            replicas: BTreeMap::new(),
            runnable: VecDeque::new(),
            flushing: BTreeMap::new(),
            last_flush: 0,
        };
        for stored in stored {
            let replica = Replica::open(stored, &*applier.state, &applier.machines)?;
            applier.replicas.insert(replica.range, replica);
        }
        Ok(applier)
    }

    /// Returns the size of every range that has state here.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = (RangeId, RangeSize)> {
        self.replicas.iter().map(|(range, replica)| (*range, replica.size()))
    }

    /// Queues a task. Never blocks; [`Applier::run`] carries the task out.
    pub fn step(&mut self, task: ApplyTask) {
        let range = task.range();
        let replica = self.replicas.entry(range).or_insert_with(|| Replica::without_state(range));
        let was_idle = replica.tasks.is_empty() && !replica.waits_for_flush;
        replica.queue(task);
        if was_idle {
            self.runnable.push_back(range);
        }
    }

    /// Handles the end of the flush of [`ApplyEffect::Flush`]. Returns the effects held back for
    /// it.
    pub fn on_flushed(&mut self, flush: u64) -> Vec<ApplyEffect> {
        let told = self.flushing.remove(&flush).unwrap_or_default();
        let mut effects = Vec::new();
        for (range, event) in told {
            if let Some(replica) = self.replicas.get_mut(&range) {
                replica.waits_for_flush = false;
                if !replica.tasks.is_empty() {
                    self.runnable.push_back(range);
                } else if !replica.has_state() {
                    self.replicas.remove(&range);
                }
            }
            effects.push(ApplyEffect::Event(event));
        }
        effects
    }

    /// True while [`Applier::run`] has something to do.
    pub fn has_work(&self) -> bool {
        !self.runnable.is_empty()
    }

    /// Runs one round of slices, bounded in work.
    ///
    /// # Errors
    ///
    /// Errors of the storage engine. The process must then end, because memory may be ahead of what
    /// is stored.
    pub fn run(&mut self) -> Result<Vec<ApplyEffect>> {
        let mut round = Round::default();
        for _ in 0..self.runnable.len() {
            let Some(range) = self.runnable.pop_front() else { break };
            self.run_slice(range, &mut round)?;
            if round.cost >= ROUND_COST_MAX || round.written_bytes >= ROUND_BYTES_MAX {
                break;
            }
        }
        self.write(&mut round)?;
        if !round.structural.is_empty() {
            self.last_flush += 1;
            self.flushing.insert(self.last_flush, std::mem::take(&mut round.structural));
            round.effects.push(ApplyEffect::Flush { flush: self.last_flush });
        }
        Ok(round.effects)
    }

    fn run_slice(&mut self, range: RangeId, round: &mut Round) -> Result<()> {
        let replica = self.replicas.get_mut(&range).expect("a range that is runnable");
        let task = replica.tasks.pop_front().expect("a runnable range has a task");
        match task {
            ApplyTask::Entries { replica: of, entries } => {
                let mut batch = Batch::new(&*self.state);
                let rest = replica.apply(of, entries, &mut batch, round)?;
                if let Some(alone) = replica.state_alone() {
                    self.state.write(alone)?;
                }
                round.written_bytes += batch.bytes();
                round.writes.writes.append(&mut batch.into_writes().writes);
                if let Some(rest) = rest {
                    replica.tasks.push_front(rest);
                }
            }
            ApplyTask::SkipEntry { replica: of, index, request } => {
                replica.skip(of, index, request, round);
            }
            ApplyTask::Install(install) => self.install(install, round)?,
            ApplyTask::Destroy { replica: of } => {
                replica.destroy(of, round);
            }
            ApplyTask::Discard { staged, .. } => self.state.discard(staged)?,
        }
        let replica = self.replicas.get_mut(&range).expect("still there");
        if !replica.tasks.is_empty() && !replica.waits_for_flush {
            self.runnable.push_back(range);
        } else if replica.tasks.is_empty() && !replica.waits_for_flush && !replica.has_state() {
            self.replicas.remove(&range);
        }
        Ok(())
    }

    /// Replaces a range's data by a staged snapshot, durably.
    fn install(&mut self, install: SnapshotInstall, round: &mut Round) -> Result<()> {
        // Write the round so far first: written later, it would overwrite the snapshot.
        self.write(round)?;
        let range = install.replica.range;
        let meta = install.range_state_write();
        let (meta, late) = match planted!(InstallNotAtomic) {
            true => (WriteBatch::default(), Some(meta)),
            false => (meta, None),
        };
        let span = install.span();
        let stored = install.range_state();
        let SnapshotInstall { replica: of, staged, descriptor, .. } = install;
        self.state.install(Install { staged, span, meta })?;
        if let Some(late) = late {
            self.state.write(late)?;
        }
        let replica = self.replicas.get_mut(&range).expect("its task was taken");
        replica.restore(stored, &*self.state, &self.machines)?;
        let (descriptor, size) = (Box::new(descriptor), replica.size());
        let installed = Event::Installed { replica: of, descriptor, size };
        round.effects.push(ApplyEffect::Event(installed));
        Ok(())
    }

    fn write(&self, round: &mut Round) -> Result<()> {
        round.written_bytes = 0;
        let writes = std::mem::take(&mut round.writes);
        if writes.is_empty() { Ok(()) } else { self.state.write(writes) }
    }
}
