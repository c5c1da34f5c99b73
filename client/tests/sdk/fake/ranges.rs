//! Answers of the fake cluster's nodes.

#![allow(clippy::result_large_err, reason = "errors of the wire are passed around as they are")]

use bytes::Bytes;
use rangedb_client::v1::{
    self, CommitOneRange, Epoch, RangeDescriptor, Replica, command, command_reply, condition,
    error::Kind, operation, request, response,
};
use rangedb_proto::RangeDescriptorExt;

use super::percolator::{Lock, Store};
use super::{Mode, State, address};

/// Actual state of a range.
#[derive(Clone)]
pub struct Range {
    pub descriptor: RangeDescriptor,
    /// Node id of the leader; 0: none.
    pub leader: u64,
}

pub type Answer = Result<response::Body, v1::Error>;

impl Range {
    pub fn new(id: u64, start: &str, end: &str, version: u64, nodes: &[u64], leader: u64) -> Self {
        let replica = |&node_id: &u64| Replica { replica_id: node_id, node_id, role: 0 };
        let descriptor = RangeDescriptor {
            range_id: id,
            start_key: start.to_owned().into(),
            end_key: end.to_owned().into(),
            epoch: Some(Epoch { version, conf_ver: 1 }),
            replicas: nodes.iter().map(replica).collect(),
            next_replica_id: 10,
        };
        Range { descriptor, leader }
    }
}

impl State {
    pub fn note(&mut self, node: u64, body: &request::Body) {
        self.log.push((node, kind(body)));
    }

    /// Returns the answer of a node, and true if it gets lost.
    pub fn serve(&mut self, node: u64, mode: Mode, body: request::Body) -> (Answer, bool) {
        let silence = || Err(v1::Error::unavailable("never sent"));
        match mode {
            Mode::Hanging => return (silence(), true),
            Mode::Busy(ms) => return (Err(v1::Error::too_busy(ms, "overloaded")), false),
            Mode::Isolated => return (Err(v1::Error::unavailable("no quorum")), false),
            Mode::Stranger => return (Err(v1::Error::failed_precondition("no cluster")), false),
            Mode::Confused if !matches!(body, request::Body::Locate(_)) => {
                let kind = Kind::StaleEpoch(v1::StaleEpoch::default());
                return (Err(v1::Error::new(kind, "the range has changed")), false);
            }
            Mode::Up | Mode::AnswersLost | Mode::Down | Mode::Confused => {}
        }
        let is_write = matches!(
            body,
            request::Body::Write(_) | request::Body::ConfigSet(_) | request::Body::HoldFloor(_)
        );
        let kind = kind(&body);
        let lost = self.kinds_lost.contains(kind);
        let answer = self.answer(node, body);
        if let Some((_, event)) = self.after.take_if(|(after, _)| *after == kind) {
            event(self);
        }
        if self.answers_to_lose > 0 && is_write && answer.is_ok() {
            self.answers_to_lose -= 1;
            return (answer, true);
        }
        (answer, lost || mode == Mode::AnswersLost)
    }

    fn answer(&mut self, node: u64, body: request::Body) -> Answer {
        match body {
            request::Body::PointRead(read) => {
                self.check(node, read.range)?;
                self.check_floor(read.read_ts)?;
                self.store.check_read(&read.key, read.read_ts, &read.pass_locks_of)?;
                let kv = self.store.read(&read.key, read.read_ts);
                Ok(response::Body::PointRead(v1::PointReadReply { kv }))
            }
            request::Body::Scan(scan) => {
                self.check(node, scan.range)?;
                self.check_floor(scan.read_ts)?;
                Ok(response::Body::Scan(self.scan(scan)?))
            }
            request::Body::Write(write) => {
                self.check(node, write.range)?;
                let commit = write.commit.unwrap();
                if self.bounded && commit.operations.iter().any(deletes_span) {
                    let kind = Kind::TooLarge(v1::TooLarge { what: "keys".into(), limit: 0 });
                    return Err(v1::Error::new(kind, "more than one command may delete"));
                }
                let committed = Some(self.commit(commit)?);
                Ok(response::Body::Write(v1::WriteReply { committed }))
            }
            request::Body::TransactionCommand(transaction) => {
                self.check(node, transaction.range)?;
                let mut command = transaction.command.unwrap().body.unwrap();
                if let command::Body::Prewrite(prewrite) = &mut command {
                    prewrite.async_commit &= self.async_commits;
                }
                let body = Some(self.store.apply(command, self.floor));
                if let Some(command_reply::Body::Prewritten(prewritten)) = &body
                    && prewritten.async_commit
                {
                    self.oracle = self.oracle.max(prewritten.min_commit_ts);
                }
                let reply = Some(v1::CommandReply { body });
                Ok(response::Body::TransactionCommand(v1::TransactionCommandReply { reply }))
            }
            request::Body::Validate(validate) => {
                self.check(node, validate.range)?;
                let v1::Validate { mut reads, start_ts, commit_ts, pass_locks_of, .. } = validate;
                let more = self.bounded && reads.len() > 1;
                if more {
                    reads.truncate(1);
                }
                self.store.fence = self.store.fence.max(commit_ts);
                let conflict =
                    self.store.validate(&reads, (start_ts, commit_ts), &pass_locks_of)?;
                let (resume_read, resume_key) = (more.into(), Bytes::new());
                let reply = v1::ValidateReply { conflict, more, resume_read, resume_key };
                Ok(response::Body::Validate(reply))
            }
            request::Body::Timestamps(v1::Timestamps { count }) => {
                self.oracle += u64::from(count);
                self.oracle = self.oracle.max(self.oracle_least);
                Ok(response::Body::Timestamps(v1::TimestampsReply { last: self.oracle, count }))
            }
            request::Body::Locate(_) if self.directory_down => {
                Err(v1::Error::unavailable("the control range has no leader"))
            }
            request::Body::Locate(locate) => Ok(response::Body::Locate(self.locate(locate))),
            request::Body::ListLocks(list) => {
                self.check(node, list.range)?;
                Ok(response::Body::ListLocks(self.list_locks(&list)))
            }
            request::Body::HoldFloor(hold) => {
                let floor_ts = self.floor;
                if hold.timestamp == 0 {
                    let held = self.holds.remove(&hold.name);
                    held.ok_or_else(|| v1::Error::not_found("no such hold"))?;
                    self.let_go.insert(hold.name);
                } else if hold.timestamp < floor_ts {
                    let too_old = v1::TooOld { floor_ts };
                    return Err(v1::Error::new(Kind::TooOld(too_old), "below the floor"));
                } else {
                    let held = self.holds.get(&hold.name).map_or(0, |(timestamp, _)| *timestamp);
                    if hold.ttl_ms > 0 && hold.name.starts_with("client-") {
                        let harmless = held <= hold.timestamp && !self.let_go.contains(&hold.name);
                        assert!(harmless, "a late copy of an earlier hold would undo {hold:?}");
                    }
                    self.holds.insert(hold.name, (hold.timestamp, hold.ttl_ms));
                }
                Ok(response::Body::HoldFloor(v1::HoldFloorReply { floor_ts }))
            }
            request::Body::GarbageStatus(_) => {
                let hold = |(name, (timestamp, ttl_ms)): (&String, &(u64, u32))| v1::HoldInfo {
                    name: name.clone(),
                    timestamp: *timestamp,
                    remaining_ms: (*ttl_ms > 0).then_some((*ttl_ms).into()),
                };
                let holds = self.holds.iter().map(hold).collect();
                let status =
                    v1::GarbageStatus { floor_ts: self.floor, holds, ..Default::default() };
                Ok(response::Body::GarbageStatus(status))
            }
            request::Body::ClusterStatus(_) => {
                let cluster_id = self.cluster_id;
                let status = v1::ClusterStatus { cluster_id, ..Default::default() };
                Ok(response::Body::ClusterStatus(status))
            }
            request::Body::ConfigSet(set) => {
                assert_ne!(set.request_id, 0, "by which a repetition is recognised");
                self.config_sets.insert(set.request_id);
                let entry = Some(v1::ConfigEntry::default());
                Ok(response::Body::ConfigSet(v1::ConfigSetReply { entry }))
            }
            other => panic!("the fake cluster does not answer {other:?}"),
        }
    }

    fn list_locks(&self, list: &v1::ListLocks) -> v1::ListLocksReply {
        let inside = |key: &Bytes| {
            *key >= list.start_key && (list.end_key.is_empty() || *key < list.end_key)
        };
        let mut inside = self.store.locks.iter().filter(|(key, _)| inside(key));
        let info = |(key, lock): (&Bytes, &Lock)| v1::LockInfo {
            key: key.clone(),
            primary: lock.primary.clone(),
            start_ts: lock.start_ts,
            ..Default::default()
        };
        let locks = inside.by_ref().take(self.page_rows).map(info).collect();
        let resume_key = inside.next().map(|(key, _)| key.clone()).unwrap_or_default();
        v1::ListLocksReply { locks, resume_key }
    }

    fn check_floor(&self, read_ts: u64) -> Result<(), v1::Error> {
        if read_ts == 0 || read_ts >= self.floor {
            return Ok(());
        }
        let too_old = v1::TooOld { floor_ts: self.floor };
        Err(v1::Error::new(Kind::TooOld(too_old), "below the floor"))
    }

    /// Checks that the node leads the range in the request's header.
    fn check(&self, node: u64, header: Option<v1::RangeHeader>) -> Result<(), v1::Error> {
        let header = header.unwrap();
        let range_id = header.range_id;
        let of_id = |range: &&Range| range.descriptor.range_id == range_id;
        let range = self.ranges.iter().find(of_id);
        let Some(range) = range.filter(|r| r.descriptor.replica_on(node).is_some()) else {
            let kind = Kind::RangeNotFound(v1::RangeNotFound { range_id });
            return Err(v1::Error::new(kind, "no replica here"));
        };
        if header.epoch != range.descriptor.epoch {
            let descriptors = self.ranges.iter().map(|r| r.descriptor.clone()).collect();
            let kind = Kind::StaleEpoch(v1::StaleEpoch { descriptors });
            return Err(v1::Error::new(kind, "the range has changed"));
        }
        if node != range.leader {
            let leader = range.descriptor.replica_on(range.leader).filter(|_| self.hints).cloned();
            let leader_address = leader.as_ref().map(|l| address(l.node_id)).unwrap_or_default();
            let leader_peer_address = String::new();
            let hint = v1::NotLeader { range_id, leader, leader_address, leader_peer_address };
            let kind = Kind::NotLeader(hint);
            return Err(v1::Error::new(kind, "not the leader"));
        }
        Ok(())
    }

    fn locate(&self, locate: v1::Locate) -> v1::LocateReply {
        let ranges = self.directory.as_ref().unwrap_or(&self.ranges);
        let count = locate.count.max(1) as usize;
        let location = |range: &Range| v1::RangeLocation {
            descriptor: Some(range.descriptor.clone()),
            leader_node_id: range.leader,
        };
        let key = &locate.key;
        let ranges = if locate.reverse {
            let below = |r: &&Range| key.is_empty() || r.descriptor.start_key < key;
            ranges.iter().rev().filter(below).take(count).map(location).collect()
        } else {
            let reaches = |end: &Bytes| end.is_empty() || end > key;
            let behind = |r: &&Range| reaches(&r.descriptor.end_key);
            ranges.iter().filter(behind).take(count).map(location).collect()
        };
        let node = |&node_id: &u64| v1::NodeDescriptor {
            node_id,
            client_address: address(node_id),
            ..Default::default()
        };
        v1::LocateReply { ranges, nodes: self.modes.keys().map(node).collect() }
    }

    fn scan(&mut self, scan: v1::Scan) -> Result<v1::ScanReply, v1::Error> {
        let inside = |key: &Bytes| {
            *key >= scan.start_key && (scan.end_key.is_empty() || *key < scan.end_key)
        };
        let mut rows: Vec<v1::KeyValue> = Vec::new();
        let mut keys = self.store.keys(inside);
        if scan.reverse {
            keys.reverse();
        }
        for key in keys {
            self.store.check_read(&key, scan.read_ts, &scan.pass_locks_of)?;
            rows.extend(self.store.read(&key, scan.read_ts));
        }
        let limit = if scan.limit == 0 { usize::MAX } else { scan.limit as usize };
        let page_rows = self.page_rows.min(limit);
        let more = rows.len() > page_rows;
        let mut resume_key = Bytes::new();
        if more && self.resume_keys {
            let at = if scan.reverse { page_rows - 1 } else { page_rows };
            resume_key = rows[at].key.clone();
        }
        rows.truncate(page_rows);
        if scan.keys_only {
            rows.iter_mut().for_each(|row| row.value = Bytes::new());
        }
        Ok(v1::ScanReply { kvs: rows, more, resume_key })
    }

    /// Applies a one-range commit as a range does: once for each start timestamp.
    fn commit(&mut self, command: CommitOneRange) -> Result<v1::Committed, v1::Error> {
        if let Some(committed) = self.applied.get(&command.start_ts) {
            return Ok(v1::Committed { repeated_command: true, ..committed.clone() });
        }
        command.reads.iter().try_for_each(|read| self.check_floor(read.read_ts))?;
        self.store.check_commit(&command)?;
        for (index, condition) in command.conditions.iter().enumerate() {
            let actual = self.store.rows.get(&condition.key);
            if !holds(condition, actual) {
                let conflict = v1::Conflict {
                    condition_index: index as u32,
                    key: condition.key.clone(),
                    actual: actual.cloned(),
                };
                return Err(v1::Error::new(Kind::Conflict(conflict), "a condition failed"));
            }
        }
        let commit_ts = command.start_ts.max(self.store.fence + 1).max(self.store.last_commit + 1);
        let ts = (command.start_ts, commit_ts);
        let store = &mut self.store;
        let results = command.operations.into_iter().map(|operation| {
            let (deleted, previous) = match operation.body.unwrap() {
                operation::Body::Put(put) => (0, store.write(&put.key, Some(put.value), ts)),
                operation::Body::Delete(delete) => {
                    let previous = store.write(&delete.key, None, ts);
                    (u64::from(previous.is_some()), previous)
                }
                operation::Body::DeleteRange(range) => (delete_rows(store, &range, ts), None),
            };
            let previous = previous.filter(|_| command.return_previous);
            v1::OperationResult { deleted, previous }
        });
        let results = results.collect();
        let committed = v1::Committed { commit_ts, results, repeated_command: false };
        self.applied.insert(command.start_ts, committed.clone());
        Ok(committed)
    }
}

fn delete_rows(store: &mut Store, range: &v1::DeleteRange, ts: (u64, u64)) -> u64 {
    let inside =
        |key: &Bytes| *key >= range.start_key && (range.end_key.is_empty() || *key < range.end_key);
    let mut keys = store.keys(inside);
    keys.retain(|key| store.rows.contains_key(key));
    keys.iter().for_each(|key| drop(store.write(key, None, ts)));
    keys.len() as u64
}

pub fn holds(condition: &v1::Condition, actual: Option<&v1::KeyValue>) -> bool {
    match condition.test.as_ref().unwrap() {
        condition::Test::Exists(exists) => *exists == actual.is_some(),
        condition::Test::Version(version) => *version == actual.map_or(0, |kv| kv.version),
        condition::Test::ModTs(mod_ts) => *mod_ts == actual.map_or(0, |kv| kv.mod_ts),
        condition::Test::Value(value) => actual.is_some_and(|kv| kv.value == *value),
    }
}

pub(super) fn kind(body: &request::Body) -> &'static str {
    match body {
        request::Body::PointRead(_) => "read",
        request::Body::Scan(_) => "scan",
        request::Body::Write(_) => "write",
        request::Body::Timestamps(_) => "timestamps",
        request::Body::Locate(_) => "locate",
        request::Body::Validate(_) => "validate",
        request::Body::TransactionCommand(transaction) => {
            match transaction.command.as_ref().and_then(|command| command.body.as_ref()).unwrap() {
                command::Body::Prewrite(_) => "prewrite",
                command::Body::CommitKeys(_) => "commit",
                command::Body::RollbackKeys(_) => "rollback",
                command::Body::CheckTransaction(_) => "check",
                command::Body::ResolveLocks(_) => "resolve",
                command::Body::HeartbeatLock(_) => "heartbeat",
                command::Body::AcquireLocks(_) => "lock",
                command::Body::CommitOneRange(_) => "write",
                command::Body::CheckSecondaries(_) => "secondaries",
                command::Body::CollectGarbage(_) => "collect",
            }
        }
        request::Body::HoldFloor(_) => "hold",
        _ => "other",
    }
}

fn deletes_span(operation: &v1::Operation) -> bool {
    matches!(operation.body, Some(operation::Body::DeleteRange(_)))
}
