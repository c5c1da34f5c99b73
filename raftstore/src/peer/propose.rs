//! Batching of client commands into raft proposals. Commands that arrive while a round of the log
//! is in flight share the next entry.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use prost::Message;
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::LogEntry;

use super::Peer;
use super::apply::UNANSWERED_COST_MAX;
use crate::pass::Pass;
use crate::{Answer, Error, FEATURE_LEVEL, Monotonic, RangeRef, RequestId};

/// A command that waits for the next entry.
pub(crate) struct QueuedCommand {
    pub request: RequestId,
    pub command: Bytes,
    pub cost: u32,
    pub frees_space: bool,
}

/// An entry that this replica proposed.
pub(super) struct Proposed {
    pub at: Monotonic,
    pub requests: Vec<RequestId>,
    /// Cost of the requests' commands, summed.
    pub cost: u64,
}

/// Limit on the records that the commands of one entry may touch; a single command may exceed it.
/// An entry is applied without a pause. Other ranges wait for a round of the applier, which lasts
/// as long as its longest entry.
const ENTRY_COST_MAX: u64 = 128;

#[derive(Default)]
pub(super) struct Proposals {
    /// Commands that wait for the next entry.
    queue: VecDeque<QueuedCommand>,
    queue_bytes: usize,
    /// Cost of the commands in the queue and in entries not yet committed, summed.
    cost: u64,
    /// Entries in flight, by index and term. They outlive leadership, because they may still
    /// commit. So a replica that leads again, with a log that others have cut, proposes at lower
    /// indexes than before.
    in_flight: BTreeMap<(u64, u64), Proposed>,
}

impl Proposals {
    pub fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Takes the waiting commands out of the queue for which `is_wanted` is true.
    pub fn take_queued(
        &mut self,
        is_wanted: impl Fn(&QueuedCommand) -> bool,
    ) -> Vec<QueuedCommand> {
        let (taken, left): (Vec<_>, Vec<_>) = self.queue.drain(..).partition(is_wanted);
        self.queue = left.into();
        for command in &taken {
            self.queue_bytes -= command.command.len();
            self.cost -= u64::from(command.cost);
        }
        taken
    }
}

impl Peer {
    pub fn propose(&mut self, range: RangeRef, waiting: QueuedCommand, pass: &mut Pass) {
        let bytes = waiting.command.len();
        let refused = if let Some(quarantine) = &self.quarantine {
            let reason = quarantine.reason.clone();
            Some(Error::Quarantined { range: self.range, reason })
        } else if self.leading.is_none() {
            Some(self.not_leader())
        } else if range.epoch.version != self.descriptor().epoch().version {
            Some(self.stale_epoch())
        } else if !self.has_room_for(waiting.frees_space) {
            Some(Error::DiskFull(self.range))
        } else if self.raw.raft.lead_transferee.is_some() {
            Some(Error::TooBusy {
                range: self.range,
                reason: "its leadership is being handed over",
            })
        } else if self.proposals.queue_bytes + bytes > self.config.queue_bytes_max {
            Some(Error::TooBusy { range: self.range, reason: "too many commands wait" })
        } else if self.unanswered_cost() >= UNANSWERED_COST_MAX || self.in_apply.is_full() {
            Some(Error::TooBusy { range: self.range, reason: "what waits is too much work" })
        } else {
            None
        };
        match refused {
            Some(error) => pass.reply(waiting.request, Err(error)),
            None => {
                self.proposals.queue_bytes += bytes;
                self.proposals.cost += u64::from(waiting.cost);
                self.proposals.queue.push_back(waiting);
            }
        }
    }

    /// Proposes the waiting commands, once the fence is known.
    pub fn propose_waiting(&mut self, pass: &mut Pass) {
        self.refuse_for_room(pass);
        let Some(fence) = self.fence() else { return };
        while self.proposals.has_queued() {
            let mut commands = Vec::new();
            let (mut bytes, mut cost, mut frees_space) = (0, 0, true);
            for QueuedCommand { command, cost: more, frees_space: frees, .. } in
                &self.proposals.queue
            {
                let is_full = bytes + command.len() > self.config.entry_bytes_max
                    || cost + u64::from(*more) > ENTRY_COST_MAX;
                if !commands.is_empty() && is_full {
                    break;
                }
                frees_space &= frees;
                bytes += command.len();
                cost += u64::from(*more);
                commands.push(command.clone());
            }
            let fits = u32::try_from(cost).unwrap_or(u32::MAX);
            let count = commands.len();
            let epoch = self.descriptor().epoch;
            let entry = LogEntry {
                feature_level: FEATURE_LEVEL,
                epoch,
                fence,
                commands,
                cost: fits,
                frees_space,
            };
            // raft-rs refuses while too much is uncommitted: the commands stay queued.
            if self.raw.propose(Vec::new(), entry.encode_to_vec()).is_err() {
                return;
            }
            let requests =
                self.proposals.queue.drain(..count).map(|waiting| waiting.request).collect();
            self.proposals.queue_bytes -= bytes;
            self.note_proposed(pass.now, requests, cost);
        }
    }

    /// Records that this replica proposed the newest entry of the log.
    pub(super) fn note_proposed(&mut self, at: Monotonic, requests: Vec<RequestId>, cost: u64) {
        let place = (self.raw.raft.raft_log.last_index(), self.term());
        self.proposals.in_flight.insert(place, Proposed { at, requests, cost });
    }

    /// Cost of the commands that this replica accepted and has not answered, summed.
    fn unanswered_cost(&self) -> u64 {
        self.proposals.cost + self.in_apply.cost()
    }

    /// Removes the proposals up to this index. Returns the one that became this entry, and answers
    /// for those that another leader's entry replaced: their commands are gone for good.
    pub(super) fn take_proposed(
        &mut self,
        index: u64,
        term: u64,
    ) -> (Option<Proposed>, Vec<Answer>) {
        let above = self.proposals.in_flight.split_off(&(index + 1, 0));
        let mut here = std::mem::replace(&mut self.proposals.in_flight, above);
        let proposed = here.remove(&(index, term));
        let over = proposed.iter().chain(here.values()).map(|proposed| proposed.cost).sum::<u64>();
        self.proposals.cost -= over;
        if here.is_empty() {
            return (proposed, Vec::new());
        }
        let error = self.not_leader();
        let replaced = here.into_values().flat_map(|replaced| replaced.requests);
        (proposed, replaced.map(|request| Answer::refusal(request, &error)).collect())
    }

    /// Empties the queue. Returns answers for its commands: they were not proposed and certainly do
    /// not happen.
    pub(super) fn refuse_waiting(&mut self, error: &Error) -> Vec<Answer> {
        self.proposals.queue_bytes = 0;
        self.proposals.cost -=
            self.proposals.queue.iter().map(|waiting| u64::from(waiting.cost)).sum::<u64>();
        let refuse = |waiting: QueuedCommand| Answer::refusal(waiting.request, error);
        self.proposals.queue.drain(..).map(refuse).collect()
    }

    /// Gives up the entries in flight, which this replica will not see applied. Returns answers for
    /// their requests.
    pub(super) fn give_up_in_flight(&mut self) -> Vec<Answer> {
        let unknown = Error::Undetermined(self.range);
        let in_flight = std::mem::take(&mut self.proposals.in_flight);
        self.proposals.cost -= in_flight.values().map(|proposed| proposed.cost).sum::<u64>();
        let in_flight = in_flight.into_values();
        in_flight.flat_map(|p| p.requests).map(|r| Answer::refusal(r, &unknown)).collect()
    }
}
