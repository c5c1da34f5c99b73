//! Operations of the scheduler: add, promote and remove replicas, move leadership. Membership
//! changes run one at a time. Each is checked here against the epoch that its sender saw, and again
//! at apply.

use bytes::Bytes;
use prost::Message;
use raft::ProgressState;
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{
    MembershipChange, RangeOperation, Replica, ReplicaRole, range_operation::Body,
};

use super::Peer;
use crate::membership::Change;
use crate::pass::Pass;
use crate::{Answer, Error, RequestId};

/// A membership change in the log, and the request that waits for it.
pub(super) struct PendingOperation {
    request: RequestId,
    index: u64,
    term: u64,
}

impl Peer {
    pub fn operate(&mut self, request: RequestId, operation: RangeOperation, pass: &mut Pass) {
        let result = self.check_operation(&operation).and_then(|()| match operation.body {
            Some(Body::TransferLeader(transfer)) => {
                self.transfer_leader(transfer.to_replica_id).map(|()| true)
            }
            Some(body) => {
                let change = self.plan_change(body)?;
                self.propose_change(request, change, pass).map(|()| false)
            }
            None => Err(Error::Refused("an operation without a body".into())),
        });
        match result {
            Ok(true) => pass.reply(request, Ok(Bytes::new())),
            Ok(false) => {}
            Err(error) => pass.reply(request, Err(error)),
        }
    }

    fn check_operation(&self, operation: &RangeOperation) -> Result<(), Error> {
        let ready = self.leading.as_ref().is_some_and(|leading| leading.ready);
        if !ready || !self.is_raft_leader() {
            return Err(self.not_leader());
        }
        if operation.epoch.unwrap_or_default() != self.descriptor().epoch() {
            return Err(self.stale_epoch());
        }
        Ok(())
    }

    fn plan_change(&self, body: Body) -> Result<Change, Error> {
        let descriptor = self.descriptor();
        let role = |id: u64| {
            let replica = descriptor.replica(id);
            replica.map(|r| r.role()).ok_or_else(|| Error::Refused(format!("no replica {id}")))
        };
        match body {
            Body::AddLearner(add) => {
                if descriptor.replica_on(add.node_id).is_some() {
                    let reason = format!("node {} already has a replica", add.node_id);
                    return Err(Error::Refused(reason));
                }
                Ok(Change::AddLearner(Replica {
                    replica_id: descriptor.next_replica_id,
                    node_id: add.node_id,
                    role: ReplicaRole::Learner.into(),
                }))
            }
            Body::ReplaceVoter(replace) => {
                let promote = replace.promote_replica_id;
                if role(promote)? != ReplicaRole::Learner {
                    return Err(Error::Refused(format!("replica {promote} is not a learner")));
                }
                self.check_caught_up(promote)?;
                let remove = (replace.remove_replica_id != 0).then_some(replace.remove_replica_id);
                if let Some(id) = remove {
                    self.check_removable(id, role(id)?)?;
                }
                Ok(Change::Replace { promote: Some(promote), remove })
            }
            Body::RemoveReplica(remove) => {
                let id = remove.replica_id;
                match role(id)? {
                    ReplicaRole::Learner => Ok(Change::RemoveLearner(id)),
                    other => {
                        self.check_removable(id, other)?;
                        Ok(Change::Replace { promote: None, remove: Some(id) })
                    }
                }
            }
            Body::TransferLeader(_) => unreachable!("handled by the caller"),
        }
    }

    fn check_removable(&self, id: u64, role: ReplicaRole) -> Result<(), Error> {
        if role != ReplicaRole::Voter {
            return Err(Error::Refused(format!("replica {id} is not a voter")));
        }
        if id == self.me.replica_id {
            return Err(Error::Refused(format!("replica {id} leads: move the leadership first")));
        }
        let voters = self.descriptor().replicas.iter().filter(|r| r.role() == ReplicaRole::Voter);
        if voters.count() < 2 {
            return Err(Error::Refused(format!("replica {id} is the only voter")));
        }
        Ok(())
    }

    /// Refuses a learner that lags: once promoted, it would hold up every commit that needs it.
    fn check_caught_up(&self, id: u64) -> Result<(), Error> {
        if self.is_near(id) {
            return Ok(());
        }
        Err(Error::Refused(format!("learner {id} has not caught up")))
    }

    /// True if a replica's log is near this leader's. After a snapshot, raft resumes the stream of
    /// entries only with the next entry, which never comes in an idle range. So a replica outside
    /// the stream counts as near if it has all entries.
    pub(super) fn is_near(&self, id: u64) -> bool {
        let last = self.raw.raft.raft_log.last_index();
        self.raw.raft.prs().get(id).is_some_and(|progress| {
            let lag_max = match progress.state {
                ProgressState::Replicate => self.config.promote_lag_entries,
                ProgressState::Probe | ProgressState::Snapshot => 0,
            };
            progress.matched + lag_max >= last
        })
    }

    fn propose_change(
        &mut self,
        request: RequestId,
        change: Change,
        pass: &mut Pass,
    ) -> Result<(), Error> {
        // It is small, so a quorum accepts it however full its disks are.
        if !self.has_own_room_for(!matches!(change, Change::AddLearner(_))) {
            return Err(Error::DiskFull(self.range));
        }
        if self.raw.raft.has_pending_conf() || self.descriptor().in_joint_change() {
            return Err(Error::Refused("another membership change is under way".into()));
        }
        let descriptor = self.descriptor();
        let adds = matches!(change, Change::AddLearner(_));
        let context = MembershipChange {
            epoch: descriptor.epoch,
            replicas: change.replicas_after(&descriptor.replicas),
            next_replica_id: descriptor.next_replica_id + u64::from(adds),
        };
        self.raw
            .propose_conf_change(context.encode_to_vec(), change.conf_change())
            .map_err(|e| Error::Refused(format!("raft does not take the change now: {e}")))?;
        self.note_proposed(pass.now, Vec::new(), 0);
        let (index, term) = (self.raw.raft.raft_log.last_index(), self.term());
        self.operation = Some(PendingOperation { request, index, term });
        Ok(())
    }

    /// Hands leadership to a voter, and gives up the lease. 0 picks the live voter with the longest
    /// log.
    pub(super) fn transfer_leader(&mut self, to: u64) -> Result<(), Error> {
        let descriptor = self.descriptor().clone();
        let prs = self.raw.raft.prs();
        let best = || {
            let others = descriptor
                .replicas
                .iter()
                .filter(|r| r.role() == ReplicaRole::Voter && r.replica_id != self.me.replica_id);
            let progress = others.filter_map(|r| Some((prs.get(r.replica_id)?, r.replica_id)));
            let active = progress.filter(|(_, id)| self.is_heard(*id));
            active.max_by_key(|(progress, id)| (progress.matched, *id)).map(|(_, id)| id)
        };
        let to = if to == 0 { best() } else { Some(to) };
        let target = to
            .and_then(|id| descriptor.replica(id))
            .filter(|r| r.role() == ReplicaRole::Voter && r.replica_id != self.me.replica_id)
            .ok_or_else(|| Error::Refused("no other voter to lead".into()))?;
        if let Some(leading) = &mut self.leading {
            leading.lease.give_up();
        }
        self.raw.transfer_leader(target.replica_id);
        self.rejitter();
        Ok(())
    }

    /// Answers the pending operation: its entry is applied, or another entry took its place.
    pub(super) fn answer_operation(
        &mut self,
        index: u64,
        term: u64,
        result: Result<Bytes, Error>,
        pass: &mut Pass,
    ) {
        if let Some(pending) = self.operation.take_if(|pending| pending.index <= index) {
            let here = (pending.index, pending.term) == (index, term);
            let result = if here { result } else { Err(self.not_leader()) };
            pass.reply(pending.request, result);
        }
    }

    /// Refuses the pending operation if another entry took its place in the log.
    pub(super) fn refuse_replaced_operation(&mut self, applied_index: u64, pass: &mut Pass) {
        if let Some(pending) = self.operation.take_if(|pending| pending.index <= applied_index) {
            pass.reply(pending.request, Err(self.not_leader()));
        }
    }

    pub(super) fn fail_operation(&mut self) -> Option<Answer> {
        let unknown = Error::Undetermined(self.range);
        self.operation.take().map(|pending| Answer::refusal(pending.request, &unknown))
    }
}
