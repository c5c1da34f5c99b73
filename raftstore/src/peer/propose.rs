//! Client commands to raft proposals. Commands that wait are packed into one entry, so that a round
//! of the log is shared by all who came while the last one was under way.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use prost::Message;
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::LogEntry;

use super::apply::UNANSWERED_COST_MAX;
use super::{Answer, Peer};
use crate::pass::Pass;
use crate::{Error, FEATURE_LEVEL, Monotonic, RangeRef, RequestId, Room};

/// A command that waits for the next entry.
pub(crate) struct Waiting {
    pub request: RequestId,
    pub command: Bytes,
    pub cost: u32,
    pub frees_space: bool,
}

/// An entry that this replica proposed.
pub(super) struct Proposed {
    pub at: Monotonic,
    pub requests: Vec<RequestId>,
    /// Of the requests' commands together.
    pub cost: u64,
}

/// Records that the commands of one entry may touch, unless a single one may touch more. An entry is
/// applied without a pause, and a round of the applier, which other ranges wait for, is as long as its
/// longest entry.
const ENTRY_COST_MAX: u64 = 128;

#[derive(Default)]
pub(super) struct Proposals {
    /// Wait for the next entry.
    queue: VecDeque<Waiting>,
    queue_bytes: usize,
    /// Of commands in the queue and in entries that are not committed yet.
    cost: u64,
    /// By index and term. They outlive leadership, because their entries may still commit; so a replica
    /// that leads again, with a log that others have cut, proposes below what it proposed before.
    in_flight: BTreeMap<(u64, u64), Proposed>,
}

impl Peer {
    pub fn propose(&mut self, range: RangeRef, waiting: Waiting, pass: &mut Pass) {
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
            Some(error) => pass.answer((waiting.request, Err(error))),
            None => {
                self.proposals.queue_bytes += bytes;
                self.proposals.cost += u64::from(waiting.cost);
                self.proposals.queue.push_back(waiting);
            }
        }
    }

    /// Puts waiting commands into the log, once the fence is known.
    pub fn propose_waiting(&mut self, now: Monotonic) {
        let Some(fence) = self.fence() else { return };
        while let Some(first) = self.proposals.queue.front() {
            let mut commands = Vec::new();
            let (mut bytes, mut cost, mut frees_space) = (0, 0, true);
            // Where room is short, what frees some is not held up by an entry that does not.
            let apart = |kind| self.room != Room::Enough && first.frees_space != kind;
            for Waiting { command, cost: more, frees_space: frees, .. } in &self.proposals.queue {
                let is_full = bytes + command.len() > self.config.entry_bytes_max
                    || cost + u64::from(*more) > ENTRY_COST_MAX
                    || apart(*frees);
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
            // Refused while too much is uncommitted: the commands wait for their turn.
            if self.raw.propose(Vec::new(), entry.encode_to_vec()).is_err() {
                return;
            }
            let requests =
                self.proposals.queue.drain(..count).map(|waiting| waiting.request).collect();
            self.proposals.queue_bytes -= bytes;
            self.note_proposed(now, requests, cost);
        }
    }

    /// Remembers that the newest entry of the log was proposed here.
    pub(super) fn note_proposed(&mut self, at: Monotonic, requests: Vec<RequestId>, cost: u64) {
        let place = (self.raw.raft.raft_log.last_index(), self.term());
        self.proposals.in_flight.insert(place, Proposed { at, requests, cost });
    }

    /// Of commands that this replica took in and has not answered.
    fn unanswered_cost(&self) -> u64 {
        self.proposals.cost + self.in_apply.cost()
    }

    /// What was proposed here at this entry's place, and answers for those whose place was taken by
    /// another leader's entry: their commands are gone for good.
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
        (proposed, replaced.map(|request| (request, Err(error.clone()))).collect())
    }

    /// Answers for commands that wait and were not proposed: they certainly do not happen.
    pub(super) fn refuse_waiting(&mut self, error: &Error) -> Vec<Answer> {
        self.proposals.queue_bytes = 0;
        self.proposals.cost -=
            self.proposals.queue.iter().map(|waiting| u64::from(waiting.cost)).sum::<u64>();
        let refuse = |waiting: Waiting| (waiting.request, Err(error.clone()));
        self.proposals.queue.drain(..).map(refuse).collect()
    }

    /// Answers for proposals whose entries this replica will not see applied.
    pub(super) fn give_up_in_flight(&mut self) -> Vec<Answer> {
        let unknown = Error::Undetermined(self.range);
        let in_flight = std::mem::take(&mut self.proposals.in_flight);
        self.proposals.cost -= in_flight.values().map(|proposed| proposed.cost).sum::<u64>();
        let in_flight = in_flight.into_values();
        in_flight.flat_map(|p| p.requests).map(|r| (r, Err(unknown.clone()))).collect()
    }

    /// The timestamp that commits must go above, if this replica may commit anything yet.
    fn fence(&self) -> Option<u64> {
        let leading = self.leading.as_ref().filter(|leading| leading.ready)?;
        #[cfg(feature = "planted")]
        if rangedb_planted::Bug::FenceNotRefreshed.is_planted() {
            return Some(leading.highest_read);
        }
        leading.fence.map(|fence| fence.max(leading.highest_read))
    }
}
