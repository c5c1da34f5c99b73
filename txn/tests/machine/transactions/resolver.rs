//! Client that found an expired asynchronous commit, and finds out whether it is committed. It
//! takes one step at a time, so that its knowledge gets old. Several may resolve the same
//! transaction at once.

use std::collections::BTreeMap;

use bytes::Bytes;
use rangedb_proto::v1::command::Body as CommandBody;
use rangedb_proto::v1::command_reply::Body as Answer;
use rangedb_proto::v1::transaction_status::State;
use rangedb_proto::v1::{CheckSecondaries, ResolveLocks, TransactionStatus};

use super::cluster::{Cluster, range_of};

#[derive(Clone)]
pub struct Resolver {
    start_ts: u64,
    primary: Bytes,
    /// Keys still to be checked, by range.
    todo: BTreeMap<usize, Vec<Bytes>>,
    /// Commit timestamp if all locks stand.
    commit_ts: u64,
}

impl Resolver {
    pub fn new(start_ts: u64, primary: Bytes, status: TransactionStatus) -> Self {
        let mut todo: BTreeMap<usize, Vec<Bytes>> = BTreeMap::new();
        for key in status.secondaries {
            todo.entry(range_of(&key)).or_default().push(key);
        }
        Resolver { start_ts, primary, todo, commit_ts: status.min_commit_ts }
    }

    /// Takes the next step. `None` if nothing is left to do: the primary now knows the outcome, for
    /// every client that meets a lock of the transaction.
    pub fn step(mut self, cluster: &mut Cluster) -> Option<Self> {
        let Some((range, keys)) = self.todo.first_key_value() else {
            self.decide(cluster, self.commit_ts);
            return None;
        };
        let (range, start_ts) = (*range, self.start_ts);
        let check = CheckSecondaries { start_ts, keys: keys.clone() };
        match cluster.send(range, CommandBody::CheckSecondaries(check)) {
            None => return Some(self),
            // The transaction ended long ago.
            Some(Answer::TooOld(_)) => return None,
            Some(Answer::TransactionStatus(status)) => match status.state() {
                State::Alive => {
                    self.commit_ts = self.commit_ts.max(status.min_commit_ts);
                    self.todo.remove(&range);
                }
                State::Committed => {
                    self.commit_ts = status.commit_ts;
                    self.todo.clear();
                }
                State::RolledBack => {
                    self.decide(cluster, 0);
                    return None;
                }
            },
            other => panic!("{other:?}"),
        }
        Some(self)
    }

    /// Resolves the primary's lock alone. The other locks follow from what the primary then says.
    fn decide(&self, cluster: &mut Cluster, commit_ts: u64) {
        let keys = vec![self.primary.clone()];
        let resolve =
            ResolveLocks { start_ts: self.start_ts, commit_ts, keys, ..Default::default() };
        match cluster.send(range_of(&self.primary), CommandBody::ResolveLocks(resolve)) {
            None | Some(Answer::Resolved(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}
