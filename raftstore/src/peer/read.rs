//! Reads: under the lease at once, otherwise after a quorum confirmed that this replica still
//! leads.
//!
//! A latest read may see anything that was applied. A snapshot read at T takes three steps, after
//! which nothing can commit at or below T:
//!
//! 1. raise the timestamp above which later commits must go;
//! 2. wait until everything already in the log is applied;
//! 3. take the reader.
//!
//! Quorum rounds are raft's ReadIndex. Every attempt has a context that was never used before: a
//! response to an abandoned attempt must not confirm a later one (etcd-io/raft#397).

use raft::ReadState;
use rangedb_proto::RangeDescriptorExt;
use rangedb_storage::StateEngine;

use super::Peer;
use crate::pass::Pass;
use crate::planted::planted;
use crate::{Answer, Error, Monotonic, RangeRef, ReadGrant, ReadMode, RequestId};

/// Most reads that may wait in one range. Each costs little, but they pile up in a range without
/// quorum.
const READS_WAITING_MAX: usize = 64 * 1024;

struct WaitingRead {
    request: RequestId,
    /// Index up to which entries must be applied.
    index: u64,
    /// True if only a quorum may let the read through: its lease ran out once, or leases are off.
    confirm: bool,
    confirmed: bool,
}

impl WaitingRead {
    fn needs_round(&self, leased: bool) -> bool {
        !self.confirmed && (self.confirm || !leased)
    }
}

/// A ReadIndex round in flight.
struct Round {
    context: u64,
    sent: Monotonic,
    ticks: usize,
    reads: Vec<WaitingRead>,
}

#[derive(Default)]
pub(super) struct Reads {
    waiting: Vec<WaitingRead>,
    round: Option<Round>,
    rounds_started: u64,
}

impl Peer {
    pub fn read(
        &mut self,
        request: RequestId,
        range: RangeRef,
        at: ReadMode,
        confirm: bool,
        pass: &mut Pass,
    ) {
        let in_log = self.raw.raft.raft_log.last_index();
        let stale = range.epoch.version != self.descriptor().epoch().version;
        let quarantined = self.quarantine.as_ref().map(|quarantine| Error::Quarantined {
            range: self.range,
            reason: quarantine.reason.clone(),
        });
        let refused = match &mut self.leading {
            _ if quarantined.is_some() => quarantined,
            None => Some(self.not_leader()),
            Some(_) if stale => Some(self.stale_epoch()),
            Some(_) if self.reads.waiting.len() >= READS_WAITING_MAX => {
                Some(Error::TooBusy { range: self.range, reason: "too many reads wait" })
            }
            Some(leading) => {
                let index = match at {
                    ReadMode::Latest => 0,
                    ReadMode::Snapshot(timestamp) => {
                        if !planted!(FenceNotRaised) {
                            leading.highest_read = leading.highest_read.max(timestamp.0);
                        }
                        if planted!(InFlightWaitSkipped) { 0 } else { in_log }
                    }
                };
                let confirm = confirm || !self.config.lease_reads;
                let read = WaitingRead { request, index, confirm, confirmed: false };
                self.reads.waiting.push(read);
                None
            }
        };
        if let Some(error) = refused {
            pass.answer(Answer::Read { request, result: Err(error) });
        }
    }

    /// True if a read waits that only a quorum can let through, and a round can begin.
    pub fn wants_read_round(&self, now: Monotonic) -> bool {
        let ready = self.leading.as_ref().is_some_and(|leading| leading.ready);
        let leased = self.is_leased(now);
        ready
            && self.reads.round.is_none()
            && self.reads.waiting.iter().any(|read| read.needs_round(leased))
    }

    fn is_leased(&self, now: Monotonic) -> bool {
        self.leading.as_ref().is_some_and(|leading| leading.lease.valid_until(now).is_some())
    }

    /// Starts a ReadIndex round for all reads that no lease covers.
    pub fn start_read_round(&mut self, now: Monotonic) {
        if !self.wants_read_round(now) {
            return;
        }
        let leased = self.is_leased(now);
        let needs = |read: &mut WaitingRead| read.needs_round(leased);
        let reads: Vec<_> = self.reads.waiting.extract_if(.., needs).collect();
        self.reads.rounds_started += 1;
        // Id and term distinguish the context from those of other replicas, the count from this
        // replica's own.
        let context = self.reads.rounds_started;
        let context = if planted!(ReadContextReused) { 1 } else { context };
        let mut bytes = self.me.replica_id.to_be_bytes().to_vec();
        bytes.extend(self.term().to_be_bytes());
        bytes.extend(context.to_be_bytes());
        self.reads.round = Some(Round { context, sent: now, ticks: 0, reads });
        self.raw.read_index(bytes);
    }

    /// Handles a quorum's answer to the round.
    pub(super) fn on_read_state(&mut self, state: ReadState, now: Monotonic) {
        let context = state.request_ctx.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
        if self.reads.round.as_ref().map(|round| round.context) != context {
            return;
        }
        let round = self.reads.round.take().expect("just compared");
        self.renew_lease(self.term(), round.sent, now);
        for mut read in round.reads {
            read.index = read.index.max(state.index);
            read.confirmed = true;
            self.reads.waiting.push(read);
        }
    }

    /// Gives a reader to every read that may be served. The reader may show committed entries that
    /// the store does not yet know to be applied. The descriptor may then be older than the reader,
    /// but only by membership changes, which move no key.
    pub fn serve_reads(&mut self, state: &dyn StateEngine, pass: &mut Pass) {
        let applied = self.applied().index;
        let Some(leading) = self.leading.as_ref().filter(|leading| leading.ready) else { return };
        let lease_until = leading.lease.valid_until(pass.now);
        let servable = |read: &mut WaitingRead| {
            read.index <= applied && (read.confirmed || (!read.confirm && lease_until.is_some()))
        };
        let reads: Vec<_> = self.reads.waiting.extract_if(.., servable).collect();
        if reads.is_empty() {
            return;
        }
        let reader = state.snapshot();
        if planted!(DataReadInPass) {
            scan_all(&*reader);
        }
        for read in reads {
            let grant = ReadGrant {
                reader: reader.clone(),
                descriptor: self.descriptor().clone(),
                lease_until: if read.confirmed { None } else { lease_until },
            };
            pass.answer(Answer::Read { request: read.request, result: Ok(grant) });
        }
    }

    /// Counts a tick of the round. A round whose messages were lost is given up; its reads go into
    /// the next one.
    pub(super) fn tick_reads(&mut self) {
        let patience = self.config.election_ticks / 2;
        if let Some(round) = &mut self.reads.round {
            round.ticks += 1;
            if round.ticks > patience {
                let round = self.reads.round.take().expect("just seen");
                self.reads.waiting.extend(round.reads);
            }
        }
    }

    /// Refuses all waiting reads, which this replica cannot serve any more. Returns their answers.
    pub(super) fn refuse_reads(&mut self, error: &Error) -> Vec<Answer> {
        let in_round = self.reads.round.take().into_iter().flat_map(|round| round.reads);
        let waiting = self.reads.waiting.drain(..).chain(in_round);
        let refuse =
            |read: WaitingRead| Answer::Read { request: read.request, result: Err(error.clone()) };
        waiting.map(refuse).collect()
    }
}

/// Planted bug: scans all rows, in a pass whose cost must not depend on the data.
fn scan_all(reader: &dyn rangedb_storage::Reader) {
    use rangedb_storage::{ColumnFamily, Direction};
    let rows = reader.scan(ColumnFamily::Current, b"", b"", Direction::Forward);
    let mut rows = rows.expect("the engine in memory can always be read");
    while let Ok(Some(_)) = rows.next() {}
}
