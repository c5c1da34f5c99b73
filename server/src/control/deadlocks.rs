//! Deadlock detection: cycles of transactions that wait for each other's locks.
//!
//! Nodes report which of their requests wait for which transaction (`node/waiting.rs`). The waits
//! are the edges of a graph of transactions. A wait that closes a cycle is a deadlock, and the
//! reply names it to the node that reported the wait. The graph is in memory only. Nodes report all
//! their waits again every second, so a new control plane learns the graph from them, and waits
//! that are not reported again are forgotten.
//!
//! Deadlocks are found within the time of a report or two. If the report of a wait's end is lost,
//! the wait stays in the graph for at most [`FORGOTTEN_AFTER`]. In that time a transaction may be
//! rolled back for a deadlock that no longer exists; it then begins again for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use rangedb_proto::v1::{Deadlock, LockWait, LockWaits, LockWaitsReply};

use super::Control;

/// Time after which a wait that is not reported again is forgotten. Nodes report all waits every
/// second: three reports may be lost.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(4);

/// Waits of the whole cluster: some tens of megabytes. Beyond that, new waits are not checked, and
/// end by their time-outs.
const WAITS_MAX: usize = 200_000;

/// Graph of the transactions that wait for each other's locks.
#[derive(Default)]
pub struct Detector {
    /// By waiting transaction and key: the holder, and the time of the last report.
    waits: BTreeMap<u64, BTreeMap<Bytes, Wait>>,
    count: usize,
}

struct Wait {
    holder: u64,
    node_id: u64,
    told_at: Duration,
}

impl Detector {
    pub fn ended(&mut self, wait: &LockWait, node_id: u64) {
        self.remove(wait, |known| known.node_id == node_id);
    }

    /// Takes in a wait. If the wait closes a cycle, returns the cycle and does not keep the wait.
    pub fn begun(&mut self, wait: LockWait, node_id: u64, now: Duration) -> Option<Deadlock> {
        if let Some(rest) = self.path(wait.holder_start_ts, wait.waiter_start_ts) {
            self.remove(&wait, |_| true);
            let cycle = [wait].into_iter().chain(rest).collect();
            return Some(Deadlock { cycle });
        }
        let held_up = self.waits.entry(wait.waiter_start_ts).or_default();
        let wait_now = Wait { holder: wait.holder_start_ts, node_id, told_at: now };
        let is_new = held_up.insert(wait.key, wait_now).is_none();
        self.count += usize::from(is_new);
        None
    }

    pub fn is_full(&self) -> bool {
        self.count >= WAITS_MAX
    }

    /// Forgets waits that have not been reported for `FORGOTTEN_AFTER`.
    pub fn forget_old(&mut self, now: Duration) {
        self.waits.retain(|_, waits| {
            waits.retain(|_, wait| wait.told_at + FORGOTTEN_AFTER > now);
            !waits.is_empty()
        });
        self.count = self.waits.values().map(BTreeMap::len).sum();
    }

    fn remove(&mut self, wait: &LockWait, unless_other: impl Fn(&Wait) -> bool) {
        let Some(waits) = self.waits.get_mut(&wait.waiter_start_ts) else { return };
        if waits.get(&wait.key).is_some_and(unless_other) {
            waits.remove(&wait.key);
            self.count -= 1;
        }
        if waits.is_empty() {
            self.waits.remove(&wait.waiter_start_ts);
        }
    }

    /// Path of waits that leads from one transaction to another.
    fn path(&self, from: u64, to: u64) -> Option<Vec<LockWait>> {
        if from == to {
            return Some(Vec::new());
        }
        let mut seen = BTreeSet::from([from]);
        // Depth first. Each edge has the index of the edge before it on the path.
        let mut reached: Vec<(LockWait, Option<usize>)> = Vec::new();
        let mut next = vec![(from, None)];
        while let Some((transaction, by)) = next.pop() {
            for (key, wait) in self.waits.get(&transaction).into_iter().flatten() {
                let edge = LockWait {
                    waiter_start_ts: transaction,
                    holder_start_ts: wait.holder,
                    key: key.clone(),
                };
                reached.push((edge, by));
                let at = reached.len() - 1;
                if wait.holder == to {
                    return Some(way_to(reached, at));
                }
                if seen.insert(wait.holder) {
                    next.push((wait.holder, Some(at)));
                }
            }
        }
        None
    }
}

/// Path that ends with the edge at `at`.
fn way_to(reached: Vec<(LockWait, Option<usize>)>, at: usize) -> Vec<LockWait> {
    let mut path = Vec::new();
    let mut next = Some(at);
    while let Some(at) = next {
        path.push(reached[at].0.clone());
        next = reached[at].1;
    }
    path.reverse();
    path
}

impl Control {
    pub(super) fn lock_waits(&self, waits: LockWaits) -> LockWaitsReply {
        let now = self.around.net.now();
        let mut detector = self.deadlocks.lock();
        detector.forget_old(now);
        waits.ended.iter().for_each(|wait| detector.ended(wait, waits.node_id));
        let mut deadlocks = Vec::new();
        for wait in waits.begun {
            if !detector.is_full() {
                deadlocks.extend(detector.begun(wait, waits.node_id, now));
            }
        }
        LockWaitsReply { deadlocks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: u64 = 1;

    fn wait(waiter_start_ts: u64, holder_start_ts: u64) -> LockWait {
        let key = format!("key of {holder_start_ts}").into();
        LockWait { waiter_start_ts, holder_start_ts, key }
    }

    fn begun(detector: &mut Detector, waiter: u64, holder: u64) -> Option<Deadlock> {
        detector.begun(wait(waiter, holder), NODE, Duration::ZERO)
    }

    #[test]
    fn the_wait_that_closes_a_cycle_is_told_the_way_around() {
        let mut detector = Detector::default();
        assert_eq!(begun(&mut detector, 1, 2), None);
        assert_eq!(begun(&mut detector, 2, 3), None);
        assert_eq!(begun(&mut detector, 2, 9), None, "a branch that leads nowhere");
        let cycle = vec![wait(3, 1), wait(1, 2), wait(2, 3)];
        assert_eq!(begun(&mut detector, 3, 1), Some(Deadlock { cycle }));
    }

    #[test]
    fn one_of_those_who_wait_in_a_circle_is_told_and_not_the_others() {
        let mut detector = Detector::default();
        assert_eq!(begun(&mut detector, 1, 2), None);
        assert!(begun(&mut detector, 2, 1).is_some());
        assert_eq!(begun(&mut detector, 1, 2), None, "told again, as every second");
    }

    #[test]
    fn waits_that_ended_or_were_not_told_again_close_no_cycle() {
        let mut detector = Detector::default();
        begun(&mut detector, 1, 2);
        detector.ended(&wait(1, 2), NODE + 1);
        assert!(begun(&mut detector, 2, 1).is_some(), "another node's word does not count");
        detector.ended(&wait(1, 2), NODE);
        assert_eq!(begun(&mut detector, 2, 1), None);
        detector.forget_old(FORGOTTEN_AFTER);
        assert_eq!(begun(&mut detector, 1, 2), None);
        assert_eq!(detector.count, 1);
    }

    #[test]
    fn who_waits_in_line_is_no_deadlock() {
        let mut detector = Detector::default();
        for waiter in 2..100 {
            assert_eq!(begun(&mut detector, waiter, 1), None);
            assert_eq!(begun(&mut detector, waiter, waiter - 1), None);
        }
    }

    #[test]
    fn a_wait_for_oneself_is_a_cycle_of_one() {
        let cycle = vec![wait(1, 1)];
        assert_eq!(begun(&mut Detector::default(), 1, 1), Some(Deadlock { cycle }));
    }
}
