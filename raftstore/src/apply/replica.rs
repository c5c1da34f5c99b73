//! One replica in the applier: its state machine, its applied position and its queued tasks.

use std::collections::{BTreeSet, VecDeque};

use prost::Message as _;
use rangedb_proto::v1::{RangeDescriptor, RangeState, Tombstone};
use rangedb_proto::{RangeDescriptorExt, RangeId, ReplicaId};
use rangedb_storage::keys::{self, MetaKey};
use rangedb_storage::{
    Applied, ApplyContext, Batch, ColumnFamily, Direction, RangeSize, Reader, Result, StateEngine,
    StateMachine,
};

use super::entry::{Entry, Kind};
use super::{
    AppliedMembership, ApplyEffect, ApplyEntry, ApplyTask, Quarantine, QuarantineCause,
    ROUND_BYTES_MAX, ReplicaRef, Round, SLICE_COST_MAX,
};
use crate::planted::planted;
use crate::position::Position;
use crate::{Error, Event, MachineFactory, RequestId};

pub(super) struct Replica {
    pub range: RangeId,
    /// 0 while the replica has no state.
    id: ReplicaId,
    descriptor: RangeDescriptor,
    applied: Position,
    snapshot_index: u64,
    /// `None` while the replica has no state.
    machine: Option<Box<dyn StateMachine>>,
    pub tasks: VecDeque<ApplyTask>,
    pub waits_for_flush: bool,
    quarantine: Option<Quarantine>,
    /// Entries that an operator declared without effect. Versions that could apply them skip them
    /// too.
    skipped: BTreeSet<u64>,
    /// The entry at which the replica is quarantined, and the committed entries behind it.
    parked: VecDeque<ApplyEntry>,
}

impl Replica {
    pub fn without_state(range: RangeId) -> Self {
        Replica {
            range,
            id: ReplicaId(0),
            descriptor: RangeDescriptor::default(),
            applied: Position::default(),
            snapshot_index: 0,
            machine: None,
            tasks: VecDeque::new(),
            waits_for_flush: false,
            quarantine: None,
            skipped: BTreeSet::new(),
            parked: VecDeque::new(),
        }
    }

    pub fn open(
        stored: RangeState,
        state: &dyn StateEngine,
        machines: &MachineFactory,
    ) -> Result<Self> {
        let range = RangeId(stored.descriptor.as_ref().map_or(0, |d| d.range_id));
        let mut replica = Replica::without_state(range);
        replica.load(stored, state, machines)?;
        Ok(replica)
    }

    pub fn has_state(&self) -> bool {
        self.machine.is_some()
    }

    /// Returns the range's size after the entries applied so far; zero without state.
    pub fn size(&self) -> RangeSize {
        self.machine.as_ref().map(|machine| machine.size()).unwrap_or_default()
    }

    /// Queues a task. Entries join a waiting task of the same replica, so that slices are as full
    /// as possible.
    pub fn queue(&mut self, task: ApplyTask) {
        match (self.tasks.back_mut(), task) {
            (
                Some(ApplyTask::Entries { replica, entries }),
                ApplyTask::Entries { replica: of, entries: mut more },
            ) if *replica == of => entries.append(&mut more),
            (_, task) => self.tasks.push_back(task),
        }
    }

    /// Continues from an installed snapshot.
    pub fn restore(
        &mut self,
        stored: RangeState,
        state: &dyn StateEngine,
        machines: &MachineFactory,
    ) -> Result<()> {
        if planted!(MachineNotReloaded) {
            let machine = self.machine.take().unwrap_or_else(|| machines(self.range));
            self.take_on(stored, machine);
            return Ok(());
        }
        self.load(stored, state, machines)
    }

    fn load(
        &mut self,
        stored: RangeState,
        state: &dyn StateEngine,
        machines: &MachineFactory,
    ) -> Result<()> {
        let mut machine = self.machine.take().unwrap_or_else(|| machines(self.range));
        let descriptor = stored.descriptor.clone().unwrap_or_default();
        machine.load(state, &descriptor.start_key, &descriptor.end_key)?;
        self.skipped = skipped_entries(state, self.range)?;
        self.take_on(stored, machine);
        Ok(())
    }

    fn take_on(&mut self, stored: RangeState, machine: Box<dyn StateMachine>) {
        self.id = ReplicaId(stored.replica_id);
        self.descriptor = stored.descriptor.unwrap_or_default();
        self.applied = Position { index: stored.applied_index, term: stored.applied_term };
        self.snapshot_index = stored.snapshot_index;
        self.machine = Some(machine);
        self.quarantine = None;
        self.parked.clear();
    }

    /// Applies entries for one slice. Returns the entries left for the next slice.
    pub fn apply(
        &mut self,
        of: ReplicaRef,
        entries: Vec<ApplyEntry>,
        batch: &mut Batch<'_>,
        round: &mut Round,
    ) -> Result<Option<ApplyTask>> {
        let mut entries = VecDeque::from(entries);
        if self.quarantine.is_some() {
            self.park(entries, round);
            return Ok(None);
        }
        assert!(self.has_state() && of.id == self.id, "range {}: entries for {of:?}", self.range);
        let (before, mut cost) = (self.applied, 0);
        while cost < SLICE_COST_MAX && batch.bytes() < ROUND_BYTES_MAX {
            let Some(next) = entries.pop_front() else { break };
            let index = next.entry.index;
            assert!(
                index == self.applied.index + 1,
                "range {}: entry {index} follows applied entry {}",
                self.range,
                self.applied.index
            );
            let position = Position { index, term: next.entry.term };
            if self.skipped.contains(&index) {
                self.applied = position;
                continue;
            }
            match Entry::read(&next.entry, &self.descriptor) {
                Ok(Entry { kind: Kind::Empty, .. }) => self.applied = position,
                Ok(Entry { kind: Kind::Commands(commands), cost: of_entry }) => {
                    cost += of_entry;
                    self.evaluate(index, &commands, next.requests, batch, round)?;
                    self.applied = position;
                }
                // A slice of its own: the entries before it are reported without waiting for its
                // flush.
                Ok(Entry { kind: Kind::Membership(_), .. }) if self.applied != before => {
                    entries.push_front(next);
                    break;
                }
                Ok(Entry { kind: Kind::Membership(change), .. }) => {
                    self.applied = position;
                    if let Some((_, after)) = &change {
                        self.descriptor = (**after).clone();
                    }
                    self.store_state(batch);
                    let Position { index, term } = position;
                    let membership = Some(AppliedMembership { index, term, change });
                    let size = self.size();
                    let applied = Event::Applied { replica: of, index, term, membership, size };
                    round.structural.push((self.range, applied));
                    self.waits_for_flush = true;
                    return Ok(rest(of, entries));
                }
                Err(reason) => {
                    entries.push_front(next);
                    self.tell_applied(of, before, batch, round);
                    let cause = QuarantineCause::Entry;
                    let quarantine = Quarantine { cause, index, reason };
                    self.enter_quarantine(of, quarantine, entries, round);
                    round.cost += cost;
                    return Ok(None);
                }
            }
        }
        round.cost += cost;
        self.tell_applied(of, before, batch, round);
        Ok(rest(of, entries))
    }

    fn tell_applied(
        &self,
        of: ReplicaRef,
        before: Position,
        batch: &mut Batch<'_>,
        round: &mut Round,
    ) {
        if self.applied == before {
            return;
        }
        self.store_state(batch);
        let Position { index, term } = self.applied;
        let size = self.size();
        let applied = Event::Applied { replica: of, index, term, membership: None, size };
        round.effects.push(ApplyEffect::Event(applied));
    }

    fn evaluate(
        &mut self,
        index: u64,
        commands: &rangedb_proto::v1::LogEntry,
        requests: Vec<RequestId>,
        batch: &mut Batch<'_>,
        round: &mut Round,
    ) -> Result<()> {
        assert!(
            requests.is_empty() || requests.len() == commands.commands.len(),
            "range {}: a reply for each command of entry {index}",
            self.range
        );
        let stale = commands.epoch.unwrap_or_default().version != self.descriptor.epoch().version;
        if stale {
            let error = Error::StaleEpoch { descriptor: Box::new(self.descriptor.clone()) };
            round.refuse(requests, &error);
            return Ok(());
        }
        let context = ApplyContext {
            start_key: &self.descriptor.start_key,
            end_key: &self.descriptor.end_key,
            fence: commands.fence,
            index,
            // No feed listens yet.
            with_changes: false,
        };
        let machine = self.machine.as_mut().expect("a replica with state has a machine");
        let mut requests = requests.into_iter();
        for command in &commands.commands {
            let Applied { reply, changes: _ } = machine.apply(&context, command, batch)?;
            if let Some(request) = requests.next() {
                round.effects.push(ApplyEffect::Reply { request, result: Ok(reply) });
            }
        }
        Ok(())
    }

    fn store_state(&self, batch: &mut Batch<'_>) {
        let state = self.state();
        batch.put(ColumnFamily::Meta, keys::range_state(self.range.0), state.encode_to_vec());
    }

    /// Planted bug: the applied index as a separate write, made before the batch.
    pub fn state_alone(&self) -> Option<rangedb_storage::WriteBatch> {
        if !planted!(AppliedIndexOutsideBatch) || !self.has_state() {
            return None;
        }
        let mut alone = rangedb_storage::WriteBatch::default();
        let key = keys::range_state(self.range.0);
        alone.put(ColumnFamily::Meta, key, self.state().encode_to_vec());
        Some(alone)
    }

    fn state(&self) -> RangeState {
        RangeState {
            descriptor: Some(self.descriptor.clone()),
            applied_index: self.applied.index,
            applied_term: self.applied.term,
            snapshot_index: self.snapshot_index,
            replica_id: self.id.0,
        }
    }

    /// Enters quarantine at an entry that cannot be applied, until an operator decides about it.
    fn enter_quarantine(
        &mut self,
        of: ReplicaRef,
        quarantine: Quarantine,
        entries: VecDeque<ApplyEntry>,
        round: &mut Round,
    ) {
        self.quarantine = Some(quarantine.clone());
        let told = Event::Quarantined { replica: of, quarantine };
        round.effects.push(ApplyEffect::Event(told));
        self.park(entries, round);
    }

    /// Keeps entries for after the quarantine. No client waits that long: their requests are
    /// answered with [`Error::Undetermined`].
    fn park(&mut self, entries: VecDeque<ApplyEntry>, round: &mut Round) {
        for mut parked in entries {
            let unknown = Error::Undetermined(self.range);
            round.refuse(std::mem::take(&mut parked.requests), &unknown);
            self.parked.push_back(parked);
        }
    }

    /// Ends the quarantine at the entry. The entry has no effect from now on, also when the log is
    /// replayed after a crash.
    pub fn skip(&mut self, of: ReplicaRef, index: u64, request: RequestId, round: &mut Round) {
        let is_there = self.quarantine.as_ref().is_some_and(|quarantine| quarantine.index == index);
        if !is_there || of.id != self.id {
            let reason = format!("range {} is not quarantined at entry {index}", self.range);
            round.refuse(vec![request], &Error::Refused(reason));
            return;
        }
        let skipped = keys::skipped_entry(self.range.0, index);
        round.writes.put(ColumnFamily::Meta, skipped, bytes::Bytes::new());
        self.skipped.insert(index);
        self.quarantine = None;
        let entries: Vec<_> = std::mem::take(&mut self.parked).into();
        self.tasks.push_front(ApplyTask::Entries { replica: of, entries });
        self.waits_for_flush = true;
        let told = Event::QuarantineLifted { replica: of, request };
        round.structural.push((self.range, told));
    }

    /// Removes all stored state of the replica and leaves a tombstone.
    pub fn destroy(&mut self, of: ReplicaRef, round: &mut Round) {
        let range_id = self.range.0;
        if self.has_state() {
            let span = keys::data_span(&self.descriptor.start_key, &self.descriptor.end_key);
            for cf in ColumnFamily::DATA {
                round.writes.delete_span(cf, span.clone());
            }
            round.writes.delete(ColumnFamily::Meta, keys::range_state(range_id));
        }
        let tombstone = Tombstone { replica_ids_below: of.id.0 + 1 };
        let key = keys::tombstone(range_id);
        round.writes.put(ColumnFamily::Meta, key, tombstone.encode_to_vec());
        let tasks = std::mem::take(&mut self.tasks);
        *self = Replica { tasks, waits_for_flush: true, ..Replica::without_state(self.range) };
        round.structural.push((self.range, Event::Destroyed { replica: of }));
    }
}

impl Round {
    fn refuse(&mut self, requests: Vec<RequestId>, error: &Error) {
        let refuse = |request| ApplyEffect::Reply { request, result: Err(error.clone()) };
        self.effects.extend(requests.into_iter().map(refuse));
    }
}

fn rest(replica: ReplicaRef, entries: VecDeque<ApplyEntry>) -> Option<ApplyTask> {
    (!entries.is_empty()).then(|| ApplyTask::Entries { replica, entries: entries.into() })
}

/// Reads the entries of the range that an operator declared without effect.
fn skipped_entries(state: &dyn Reader, range: RangeId) -> Result<BTreeSet<u64>> {
    let span = keys::skipped_entries(range.0);
    let mut records = state.scan(ColumnFamily::Meta, &span.start, &span.end, Direction::Forward)?;
    let mut skipped = BTreeSet::new();
    while let Some((key, _)) = records.next()? {
        if let MetaKey::SkippedEntry { index, .. } = keys::parse_meta(key)? {
            skipped.insert(index);
        }
    }
    Ok(skipped)
}
