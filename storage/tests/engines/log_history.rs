//! Random histories of a log engine, checked against plain vectors: overwritten suffixes, dropped
//! prefixes, resets, destroyed ranges that come back, purges, restarts and crashes.

use std::collections::BTreeMap;

use raft_proto::eraftpb::{Entry, HardState};
use rangedb_storage::{Error, FailedAppend, LogBatch, LogChange, LogEngine, LogState, MemLog};

use crate::log_node::{LogNode, MemNode};
use crate::log_script::entry;

#[derive(Clone, Default)]
struct Model {
    hard_state: HardState,
    truncated: (u64, u64),
    entries: Vec<Entry>,
}

impl Model {
    fn last_index(&self) -> u64 {
        self.truncated.0 + self.entries.len() as u64
    }
}

struct History<N> {
    node: N,
    rng: fastrand::Rng,
    model: BTreeMap<u64, Model>,
    term: u64,
}

impl<N: LogNode> History<N> {
    fn new(node: N, seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self { node, rng, model: BTreeMap::new(), term: 1 }
    }

    fn step(&mut self) {
        match self.rng.u8(0..40) {
            0..30 => self.append(),
            30..32 => self.node.engine().purge().unwrap(),
            32..37 => self.check(),
            37 => {
                self.node.restart();
                self.check();
            }
            _ => {
                self.node.crash();
                self.check();
            }
        }
    }

    fn append(&mut self) {
        let mut batch = LogBatch::default();
        for _ in 0..self.rng.usize(1..4) {
            let range_id = self.rng.u64(1..5);
            batch.changes.extend(self.change(range_id));
        }
        self.node.engine().append(batch).unwrap();
    }

    fn change(&mut self, range_id: u64) -> Option<LogChange> {
        let mut log = self.model.get(&range_id).cloned().unwrap_or_default();
        self.term += self.rng.u64(0..2);
        let term = self.term;
        let change = match self.rng.u8(0..20) {
            0..12 => {
                let first = match self.rng.u8(0..4) {
                    // Replace existing entries.
                    0 => self.rng.u64(log.truncated.0 + 1..=log.last_index() + 1),
                    _ => log.last_index() + 1,
                };
                let count = self.rng.u64(1..8);
                let entries: Vec<Entry> = (first..first + count)
                    .map(|index| entry(index, term, &vec![self.rng.u8(..); self.rng.usize(0..300)]))
                    .collect();
                log.entries.truncate((first - log.truncated.0 - 1) as usize);
                log.entries.extend(entries.clone());
                LogChange::Append { range_id, entries }
            }
            12..15 => {
                let commit = self.rng.u64(..);
                log.hard_state = HardState { term, vote: range_id, commit, ..Default::default() };
                LogChange::HardState { range_id, state: log.hard_state.clone() }
            }
            15..18 => {
                if log.entries.is_empty() {
                    return None;
                }
                let count = self.rng.usize(1..=log.entries.len());
                let last = log.entries.drain(..count).next_back().expect("at least one");
                log.truncated = (last.index, last.term);
                LogChange::Truncate { range_id, index: last.index, term: last.term }
            }
            18 => {
                let index = self.rng.u64(log.truncated.0 + 1..log.last_index() + 10);
                log.entries.clear();
                log.truncated = (index, term);
                LogChange::Reset { range_id, index, term }
            }
            _ => {
                self.model.remove(&range_id);
                return Some(LogChange::Destroy { range_id });
            }
        };
        self.model.insert(range_id, log);
        Some(change)
    }

    fn check(&mut self) {
        let engine = self.node.engine();
        let ranges: Vec<u64> = self.model.keys().copied().collect();
        assert_eq!(engine.ranges().unwrap(), ranges);
        for (range_id, log) in &self.model {
            let state = LogState {
                hard_state: log.hard_state.clone(),
                truncated_index: log.truncated.0,
                truncated_term: log.truncated.1,
                last_index: log.last_index(),
            };
            assert_eq!(engine.state(*range_id).unwrap(), Some(state));
            let (low, high) = (log.truncated.0 + 1, log.last_index() + 1);
            assert_eq!(engine.entries(*range_id, low, high, u64::MAX).unwrap(), log.entries);
            let low = self.rng.u64(low..=high);
            let bytes_max = self.rng.u64(0..1500);
            let some = engine.entries(*range_id, low, high, bytes_max).unwrap();
            let rest = &log.entries[(low - log.truncated.0 - 1) as usize..];
            assert_eq!(some, rest[..some.len()]);
            assert_eq!(some.len(), count_within(rest, bytes_max));
        }
    }
}

fn count_within(entries: &[Entry], bytes_max: u64) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        bytes += u64::from(protobuf::Message::compute_size(*entry));
        bytes <= bytes_max
    };
    entries.iter().take_while(fits).count().max(1).min(entries.len())
}

fn run(node: impl LogNode, seed: u64, steps: usize) {
    let mut history = History::new(node, seed);
    for _ in 0..steps {
        history.step();
    }
    history.check();
}

#[test]
fn random_histories_of_logs_in_memory_keep_the_contract() {
    for seed in 0..100 {
        run(MemNode::default(), seed, 300);
    }
}

#[cfg(feature = "disk")]
#[test]
fn random_histories_of_logs_on_disk_keep_the_contract() {
    for seed in 0..8 {
        run(crate::log_node::DiskNode::new(), seed, 400);
    }
}

fn one(change: LogChange) -> LogBatch {
    LogBatch { changes: vec![change] }
}

fn append_of(indexes: std::ops::Range<u64>) -> LogBatch {
    let entries = indexes.map(|index| entry(index, 1, b"data")).collect();
    one(LogChange::Append { range_id: 1, entries })
}

#[test]
#[should_panic(expected = "range 1: entry 3 appended to a log of 0+1..=1")]
fn a_hole_is_refused() {
    let log = MemLog::new();
    log.append(append_of(1..2)).unwrap();
    let _ = log.append(append_of(3..4));
}

#[test]
#[should_panic(expected = "range 1: entry 2 appended to a log of 2+1..=3")]
fn an_entry_in_place_of_a_dropped_one_is_refused() {
    let log = MemLog::new();
    log.append(append_of(1..4)).unwrap();
    log.append(one(LogChange::Truncate { range_id: 1, index: 2, term: 1 })).unwrap();
    let _ = log.append(append_of(2..3));
}

#[test]
#[should_panic(expected = "range 1: entries 1..5 read from a log of 0+1..=3")]
fn entries_that_are_not_there_are_not_read() {
    let log = MemLog::new();
    log.append(append_of(1..4)).unwrap();
    let _ = log.entries(1, 1, 5, u64::MAX);
}

#[cfg(feature = "disk")]
#[test]
#[should_panic(expected = "range 1: entry 3 appended to a log of 0+1..=1")]
fn a_hole_is_refused_on_disk() {
    let node = crate::log_node::DiskNode::new();
    node.engine().append(append_of(1..2)).unwrap();
    let _ = node.engine().append(append_of(3..4));
}

#[test]
fn after_a_failed_append_there_is_no_other_but_after_a_full_disk_there_is() {
    let log = MemLog::new();
    log.set_full(true);
    assert!(matches!(log.append(append_of(1..2)), Err(Error::Full(_))));
    log.set_full(false);
    log.append(append_of(1..2)).unwrap();
    for (written, last_index) in [(false, 2), (true, 3)] {
        log.fail_append(FailedAppend { after: 1, written });
        log.append(append_of(2..3)).unwrap();
        assert!(matches!(log.append(append_of(3..4)), Err(Error::Io(_))));
        assert!(matches!(log.append(append_of(3..4)), Err(Error::Io(_))));
        log.crash();
        assert_eq!(log.state(1).unwrap().unwrap().last_index, last_index);
    }
    log.append(append_of(4..5)).unwrap();
}

#[cfg(feature = "disk")]
#[test]
fn logs_of_one_process_do_not_read_each_others_entries() {
    use crate::log_node::DiskNode;
    let nodes = [b"a", b"b", b"c"].map(|data| {
        let node = DiskNode::new();
        let entries = vec![entry(1, 1, data)];
        let change = LogChange::Append { range_id: 1, entries };
        node.engine().append(one(change)).unwrap();
        (node, data)
    });
    for _ in 0..2 {
        for (node, data) in &nodes {
            let entries = node.engine().entries(1, 1, 2, 0).unwrap();
            assert_eq!(entries[0].data, data.to_vec());
        }
    }
}
