//! A replica with the log of what it applied, so that it can crash.

use rangedb_proto::v1::{CommandReply, command};
use rangedb_storage::StateEngine;

use rangedb_txn::{Floors, floors};

use super::changes::Listener;
use super::{Entry, Replica, forget_dropped};

pub struct Logged {
    /// Seed of the run, for messages.
    seed: u64,
    pub replica: Replica,
    /// Highest timestamp of a read.
    pub fence: u64,
    bounds: (Vec<u8>, Vec<u8>),
    log: Vec<Entry>,
    replies: Vec<CommandReply>,
    listener: Listener,
}

impl Logged {
    pub fn new(seed: u64, start_key: &[u8], end_key: &[u8]) -> Self {
        let replica = Replica { with_changes: true, ..Replica::new(start_key, end_key) };
        Logged {
            seed,
            replica,
            fence: 0,
            bounds: (start_key.to_vec(), end_key.to_vec()),
            log: Vec::new(),
            replies: Vec::new(),
            listener: Listener::default(),
        }
    }

    pub fn floors(&self) -> Floors {
        floors(&self.replica.state, self.replica.start_key()).unwrap()
    }

    pub fn apply(&mut self, command: command::Body) -> CommandReply {
        let entry = Entry::of(command, self.fence);
        let reply = self.replica.apply(std::slice::from_ref(&entry)).remove(0);
        self.listener.listen(self.replica.changes.remove(0));
        self.log.push(entry);
        self.replies.push(reply.clone());
        self.replies.last_mut().into_iter().for_each(forget_dropped);
        reply
    }

    /// Restarts the machine, flushes, compacts or crashes, at random.
    pub fn disturb(&mut self, rng: &mut fastrand::Rng) {
        self.listener.check(&self.replica.state, self.replica.size());
        match rng.u32(0..4) {
            0 => self.replica.restart(),
            1 => self.replica.state.flush().unwrap(),
            2 => self.replica.thin_out(|| rng.bool()),
            _ => self.crash(rng),
        }
    }

    /// Crashes the state, which may lose unflushed writes. Replaying the log restores them, with
    /// the same replies.
    fn crash(&mut self, rng: &mut fastrand::Rng) {
        self.replica.state.crash(rng);
        self.replica.restart();
        let applied = self.replica.applied();
        let mut replies = self.replica.apply(&self.log[applied..]);
        replies.iter_mut().for_each(forget_dropped);
        assert_eq!(replies, self.replies[applied..], "seed {}: from {applied}", self.seed);
        self.listener.check_repeated(applied, &self.replica.changes);
    }

    /// Checks that another replica that gets the same log in batches of other sizes, and to whose
    /// changes nobody listens, has the same bytes.
    pub fn check_second_replica(&self, rng: &mut fastrand::Rng) {
        let mut second = Replica::new(&self.bounds.0, &self.bounds.1);
        let mut replies = Vec::new();
        while replies.len() < self.log.len() {
            let end = (replies.len() + rng.usize(1..20)).min(self.log.len());
            replies.extend(second.apply(&self.log[replies.len()..end]));
            if rng.u32(0..4) == 0 {
                second.restart();
            }
        }
        replies.iter_mut().for_each(forget_dropped);
        assert_eq!(replies, self.replies, "seed {}", self.seed);
        let [own, others] = [&self.replica, &second].map(Replica::records_above_garbage);
        assert_eq!(own, others, "seed {}", self.seed);
        self.listener.check(&self.replica.state, self.replica.size());
        assert_eq!(second.size(), self.replica.size(), "seed {}", self.seed);
    }
}
