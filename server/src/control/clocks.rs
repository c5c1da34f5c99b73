//! Clocks of the nodes, as nodes report them with their heartbeats.
//!
//! A reading is late by the time that its heartbeat was in flight. So of a node's last readings the
//! one that shows the latest time counts: it was in flight for the shortest time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rangedb_proto::Timestamp;

/// Difference beyond which two clocks do not agree. More than heartbeats take on a busy machine,
/// and small against everything that ends by the time of day: locks, and the GC floor.
pub const DIFFERENCE_MAX: Duration = Duration::from_millis(500);

/// Readings kept for each node: those of some seconds, as nodes report every half second.
const READINGS_MAX: usize = 8;

/// Age of a node's last reading beyond which the node does not count: its clock may have been set
/// since.
pub const AGE_MAX: Duration = Duration::from_secs(5);

/// Reading of a node's clock, since 1970, and of the local monotonic clock at its arrival.
#[derive(Clone, Copy)]
struct Reading {
    shown: Duration,
    at: Duration,
}

/// The last readings of all nodes' clocks.
#[derive(Default)]
pub struct Clocks {
    readings: BTreeMap<u64, VecDeque<Reading>>,
    /// Nodes whose clocks differ from the majority's.
    differing: BTreeSet<u64>,
}

/// A change of a node's clock: it began to differ from the majority's, or agrees again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub node_id: u64,
    pub differs: bool,
    /// Lead over the majority's time, in milliseconds.
    pub offset_ms: i64,
}

impl Clocks {
    pub fn hear(&mut self, node_id: u64, unix_ms: u64, now: Duration) {
        let readings = self.readings.entry(node_id).or_default();
        if readings.len() == READINGS_MAX {
            readings.pop_front();
        }
        let shown = Duration::from_millis(unix_ms.min(Timestamp::MILLIS_MAX));
        readings.push_back(Reading { shown, at: now });
    }

    /// Forgets nodes that are not in `nodes`.
    pub fn keep(&mut self, nodes: &BTreeSet<u64>) {
        self.readings.retain(|node_id, _| nodes.contains(node_id));
        self.differing.retain(|node_id| nodes.contains(node_id));
    }

    /// Latest time that a majority of these nodes' clocks shows or has passed. `None` if fewer
    /// nodes than a majority were heard of.
    pub fn majority(&self, nodes: &BTreeSet<u64>, now: Duration) -> Option<Duration> {
        let mut shown: Vec<Duration> =
            nodes.iter().filter_map(|node_id| self.shown(*node_id, now)).collect();
        shown.sort_unstable_by(|a, b| b.cmp(a));
        shown.get(nodes.len() / 2).copied()
    }

    /// Lead of a node's clock over the majority's time, in milliseconds.
    pub fn offset_ms(&self, node_id: u64, majority: Duration, now: Duration) -> Option<i64> {
        Some(difference_ms(self.shown(node_id, now)?, majority))
    }

    /// Compares every clock with the majority's time. Returns the clocks that began to differ or
    /// agree again.
    pub fn compare(&mut self, nodes: &BTreeSet<u64>, now: Duration) -> Vec<Change> {
        let Some(majority) = self.majority(nodes, now) else { return Vec::new() };
        let mut changes = Vec::new();
        for &node_id in nodes {
            let Some(offset_ms) = self.offset_ms(node_id, majority, now) else { continue };
            let differs = u128::from(offset_ms.unsigned_abs()) > DIFFERENCE_MAX.as_millis();
            let changed = match differs {
                true => self.differing.insert(node_id),
                false => self.differing.remove(&node_id),
            };
            if changed {
                changes.push(Change { node_id, differs, offset_ms });
            }
        }
        changes
    }

    /// True if the node's clock differed from the majority's time at the last comparison.
    pub fn differs(&self, node_id: u64) -> bool {
        self.differing.contains(&node_id)
    }

    fn shown(&self, node_id: u64, now: Duration) -> Option<Duration> {
        let young = |reading: &&Reading| now.saturating_sub(reading.at) <= AGE_MAX;
        let readings = self.readings.get(&node_id)?.iter().filter(young);
        readings.map(|reading| reading.shown + now.saturating_sub(reading.at)).max()
    }
}

/// Lead of `a` over `b`, in milliseconds.
pub fn difference_ms(a: Duration, b: Duration) -> i64 {
    let apart = i64::try_from(a.abs_diff(b).as_millis()).unwrap_or(i64::MAX);
    if a < b { -apart } else { apart }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON_MS: u64 = 1_780_000_000_000;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn nodes(count: u64) -> BTreeSet<u64> {
        (1..=count).collect()
    }

    #[test]
    fn a_majority_is_needed_and_one_clock_cannot_move_it() {
        let mut clocks = Clocks::default();
        clocks.hear(1, NOON_MS, ms(0));
        assert_eq!(clocks.majority(&nodes(1), ms(10)), Some(ms(NOON_MS + 10)));
        assert_eq!(clocks.majority(&nodes(3), ms(10)), None);
        clocks.hear(2, NOON_MS + 100, ms(0));
        assert_eq!(clocks.majority(&nodes(3), ms(0)), Some(ms(NOON_MS)));
        for wrong in [0, u64::MAX] {
            clocks.hear(3, wrong, ms(0));
            let majority = clocks.majority(&nodes(3), ms(0)).unwrap();
            assert!(majority >= ms(NOON_MS) && majority <= ms(NOON_MS + 100), "{majority:?}");
        }
        // A majority of four is three.
        assert_eq!(clocks.majority(&nodes(4), ms(0)), Some(ms(NOON_MS)));
    }

    #[test]
    fn the_reading_that_was_under_way_for_the_shortest_time_counts_until_it_is_old() {
        let mut clocks = Clocks::default();
        clocks.hear(1, NOON_MS, ms(0));
        clocks.hear(1, NOON_MS + 500, ms(1_200));
        assert_eq!(clocks.majority(&nodes(1), ms(1_200)), Some(ms(NOON_MS + 1_200)));
        let later = AGE_MAX + ms(1);
        assert_eq!(clocks.majority(&nodes(1), later), Some(later + ms(NOON_MS - 700)));
        assert_eq!(clocks.majority(&nodes(1), later + ms(1_200)), None);
    }

    #[test]
    fn readings_are_bounded_and_go_with_their_node() {
        let mut clocks = Clocks::default();
        for number in 0..100 {
            clocks.hear(1, NOON_MS, ms(number));
        }
        assert_eq!(clocks.readings[&1].len(), READINGS_MAX);
        clocks.keep(&BTreeSet::from([2]));
        assert!(clocks.readings.is_empty());
    }

    #[test]
    fn a_clock_that_differs_is_named_once_and_once_more_when_it_agrees() {
        let mut clocks = Clocks::default();
        let mut hear = |third_ms: u64, at: u64| {
            for node_id in [1, 2] {
                clocks.hear(node_id, NOON_MS + at, ms(at));
            }
            clocks.hear(3, third_ms, ms(at));
            clocks.compare(&nodes(3), ms(at))
        };
        let change = |differs, offset_ms| vec![Change { node_id: 3, differs, offset_ms }];
        assert_eq!(hear(NOON_MS + 400, 0), []);
        assert_eq!(hear(NOON_MS + 4_000, 1_000), change(true, 3_000));
        assert_eq!(hear(NOON_MS + 5_000, 2_000), []);
        assert_eq!(hear(NOON_MS + 20_100, 20_000), change(false, 100));
        assert_eq!(hear(NOON_MS, 40_000), change(true, -40_000));
    }
}
