//! Disk of a node, which outlives the node's processes: the engines, the log writes in flight, and
//! the identity of the data directory.

use std::collections::VecDeque;
use std::sync::Arc;

use rangedb_proto::v1::{Formation, NodeDescriptor};
use rangedb_storage::{
    Error, FailedAppend, LogBatch, LogChange, LogEngine, MemLog, MemState, Result,
};

use crate::schedule::{MILLISECOND, Micros};

/// Identity of the data directory, as in the `IDENTITY` file.
#[derive(Clone)]
pub struct Identity {
    pub cluster_id: u64,
    pub node_id: u64,
    /// Formation of the cluster, if this directory took part in it.
    pub formation: Option<Formation>,
    /// True once stores were opened on the directory: its replicas are no longer new.
    pub opened: bool,
    /// Longest time for which replicas of earlier lives refuse votes, in microseconds, as in
    /// production.
    pub vote_embargo_us: u64,
    /// Descriptors of nodes, as last known.
    pub known_nodes: Vec<NodeDescriptor>,
}

/// Maximum times that the disk takes.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    pub sync_max: Micros,
    pub flush_max: Micros,
}

impl Speed {
    pub const GOOD: Speed = Speed { sync_max: 2 * MILLISECOND, flush_max: 20 * MILLISECOND };
}

/// Room on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    Enough,
    /// Room only for writes that free space.
    Reserve,
    /// Room for no command, which the node's disk watch reports to the stores. The room reserved
    /// for the logs is still there.
    Low,
    /// Room for nothing: no write finishes before there is some, and no process starts.
    None,
}

/// Log writes of a pass that are not yet durable.
pub struct Append {
    /// Time at which the writes were handed to the log writer.
    pub at: Micros,
    pub shard: usize,
    pub token: u64,
    pub batch: LogBatch,
}

pub struct Disk {
    pub directory_id: u64,
    pub identity: Option<Identity>,
    pub log: Arc<MemLog>,
    pub state: Arc<MemState>,
    pub speed: Speed,
    pub space: Space,
    /// True if a write of this life of the process was made to fail, or is going to fail.
    failing: bool,
    /// Log writes handed to the log writer, in order.
    appends: VecDeque<Append>,
    /// Number of log writes that the sync under way covers; 0 if no sync is under way.
    syncing: usize,
}

impl Disk {
    pub fn new(directory_id: u64, speed: Speed) -> Self {
        Disk {
            directory_id,
            identity: None,
            log: Arc::default(),
            state: Arc::default(),
            speed,
            space: Space::Enough,
            failing: false,
            appends: VecDeque::new(),
            syncing: 0,
        }
    }

    /// Queues log writes. True if a sync is to begin for them.
    pub fn append(&mut self, append: Append) -> bool {
        self.appends.push_back(append);
        self.syncing == 0
    }

    /// Returns the time for which the oldest log write has waited.
    pub fn waits_for(&self, now: Micros) -> Micros {
        self.appends.front().map_or(0, |append| now - append.at)
    }

    /// Begins a sync of all log writes that wait. False if none waits.
    pub fn begin_sync(&mut self) -> bool {
        self.syncing = self.appends.len();
        self.syncing > 0
    }

    /// Finishes the sync, after which the writes that it covers are durable. Returns the last token
    /// of each shard. After an error none of the waiting writes is written any more.
    pub fn finish_sync(&mut self, shards: usize) -> Result<Vec<Option<u64>>> {
        let mut tokens = vec![None; shards];
        let mut waiting = std::mem::take(&mut self.appends);
        for append in waiting.drain(..self.syncing) {
            self.log.append(append.batch)?;
            tokens[append.shard] = Some(append.token);
        }
        self.appends = waiting;
        self.syncing = 0;
        Ok(tokens)
    }

    /// True if log writes in flight throw away all that the log holds of a range.
    pub fn is_replacing(&self, range: u64) -> bool {
        let replaces = |change: &LogChange| match change {
            LogChange::Reset { range_id, .. } | LogChange::Destroy { range_id } => {
                *range_id == range
            }
            _ => false,
        };
        self.appends.iter().any(|append| append.batch.changes.iter().any(replaces))
    }

    pub fn fail_flush(&mut self) {
        self.failing = true;
        self.state.fail_next_flush();
    }

    pub fn fail_append(&mut self, fails: FailedAppend) {
        self.failing = true;
        self.log.fail_append(fails);
    }

    pub fn set_space(&mut self, space: Space) {
        self.space = space;
        self.log.set_full(space == Space::None);
    }

    /// True if the error comes from a fault of this disk.
    pub fn explains(&self, error: &Error) -> bool {
        match error {
            Error::Io(_) => self.failing,
            Error::Full(_) => self.space == Space::None,
            _ => false,
        }
    }

    /// Loses what the end of the process loses. A random prefix of the log writes in flight
    /// survives, unless the disk is full. So do some of the state's batches that were not flushed.
    pub fn crash(&mut self, rng: &mut fastrand::Rng) -> Result<()> {
        self.failing = false;
        self.log.crash();
        let most = if self.space == Space::None { 0 } else { self.appends.len() };
        let survive = rng.usize(0..=most);
        for append in self.appends.drain(..survive) {
            self.log.append(append.batch)?;
        }
        self.appends.clear();
        self.syncing = 0;
        self.state.crash(rng);
        self.set_space(self.space);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reset(range_id: u64) -> Append {
        let changes = vec![LogChange::Reset { range_id, index: 5, term: 1 }];
        Append { at: 0, shard: 0, token: range_id, batch: LogBatch { changes } }
    }

    #[test]
    fn a_crash_keeps_a_prefix_of_what_was_on_its_way_and_all_that_was_synced() {
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let mut disk = Disk::new(1, Speed::GOOD);
            assert!(disk.append(reset(1)));
            assert!(disk.begin_sync());
            for range in 2..=5 {
                assert!(!disk.append(reset(range)));
            }
            assert_eq!(disk.finish_sync(1).unwrap(), [Some(1)]);
            disk.crash(&mut fastrand::Rng::with_seed(seed)).unwrap();
            let survived = disk.log.ranges().unwrap();
            assert_eq!(survived, (1..=survived.len() as u64).collect::<Vec<_>>());
            lengths.insert(survived.len());
        }
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    }
}
