//! Range directory: ranges by key, as their leaders report them. The newer epoch wins. The
//! directory can be rebuilt from `_/partitions/` and from reports, so it may be lost at any time.

use std::collections::BTreeMap;
use std::ops::Bound::{Included, Unbounded};
use std::time::Duration;

use bytes::Bytes;
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{Epoch, RangeDescriptor, RangeReport};

/// One range, as last reported.
#[derive(Clone, Debug)]
pub struct Entry {
    pub report: RangeReport,
    /// `None` while only the stored descriptor is known.
    pub reported_at: Option<Duration>,
    /// True if this descriptor is stored under `_/partitions/`.
    pub stored: bool,
    /// Last decision of the scheduler for the range, in words. Empty if nothing is to be done.
    pub operation: String,
    /// Time of the first report with its leader, or of the last request to that leader to hand
    /// over.
    pub led_since: Option<Duration>,
}

/// Amount by which a report's epoch may exceed every known epoch. An epoch counts splits, merges
/// and changes of membership one by one, and no more than this can happen between two reports. A
/// report with a higher epoch is made up, and would block all true reports for ever.
const EPOCH_STEP_MAX: u64 = 1 << 20;

/// Ranges by start key. Invariant: entries do not overlap; an entry that overlaps a newer one is
/// dropped.
#[derive(Default)]
pub struct Directory {
    by_start: BTreeMap<Bytes, Entry>,
    /// Highest version and highest conf_ver of all entries there ever were, each by itself. `None`
    /// before the first entry.
    highest: Option<Epoch>,
}

/// Order of epochs, first by splits and merges, then by membership.
fn order(epoch: Epoch) -> (u64, u64) {
    (epoch.version, epoch.conf_ver)
}

impl Entry {
    pub fn descriptor(&self) -> &RangeDescriptor {
        self.report.descriptor.as_ref().expect("entries have a descriptor")
    }

    fn age(&self) -> ((u64, u64), u64) {
        (order(self.descriptor().epoch()), self.report.term)
    }
}

impl Directory {
    /// Takes in a stored descriptor.
    pub fn load(&mut self, descriptor: RangeDescriptor) {
        let report = RangeReport { descriptor: Some(descriptor), ..Default::default() };
        let operation = String::new();
        let stored = true;
        self.insert(Entry { report, reported_at: None, stored, operation, led_since: None });
    }

    /// Takes in a leader's report. True if the range's descriptor has to be stored.
    pub fn learn(&mut self, report: RangeReport, now: Duration) -> bool {
        let Some(descriptor) = report.descriptor.clone() else { return false };
        if self.is_made_up(descriptor.epoch()) {
            return false;
        }
        let known = self.by_start.get(&descriptor.start_key);
        let same = known.filter(|known| *known.descriptor() == descriptor);
        let stored = same.is_some_and(|known| known.stored);
        let operation = same.map(|known| known.operation.clone()).unwrap_or_default();
        let same_leader =
            known.filter(|known| known.report.leader_node_id == report.leader_node_id);
        let led_since = same_leader.and_then(|known| known.led_since).or(Some(now));
        let reported_at = Some(now);
        self.insert(Entry { report, reported_at, stored, operation, led_since }) && !stored
    }

    fn is_made_up(&self, epoch: Epoch) -> bool {
        let is_far = |figure: u64, known: u64| figure > known.saturating_add(EPOCH_STEP_MAX);
        self.highest.is_some_and(|highest| {
            is_far(epoch.version, highest.version) || is_far(epoch.conf_ver, highest.conf_ver)
        })
    }

    /// Marks the descriptor as stored.
    pub fn mark_stored(&mut self, descriptor: &RangeDescriptor) {
        let entry = self.by_start.get_mut(&descriptor.start_key);
        if let Some(entry) = entry.filter(|entry| entry.descriptor() == descriptor) {
            entry.stored = true;
        }
    }

    pub fn set_operation(&mut self, start_key: &[u8], operation: String) {
        if let Some(entry) = self.by_start.get_mut(start_key) {
            entry.operation = operation;
        }
    }

    /// Records that the leader of the range was asked to hand over.
    pub fn set_moved(&mut self, range_id: u64, now: Duration) {
        let mut entries = self.by_start.values_mut();
        if let Some(entry) = entries.find(|entry| entry.descriptor().range_id == range_id) {
            entry.led_since = Some(now);
            entry.operation = "moving leadership to a node that leads fewer ranges".to_owned();
        }
    }

    /// Ranges from the one that holds `key` upwards.
    pub fn from(&self, key: &[u8], count: usize) -> Vec<&Entry> {
        let first = self
            .by_start
            .range::<[u8], _>((Unbounded, Included(key)))
            .next_back()
            .map(|(start, _)| start);
        let Some(first) = first else { return Vec::new() };
        self.by_start.range(first.clone()..).take(count).map(|(_, entry)| entry).collect()
    }

    /// Ranges downwards from the one that holds the keys just below `end`. If `end` is empty, from
    /// the last range.
    pub fn below(&self, end: &[u8], count: usize) -> Vec<&Entry> {
        let all = self.by_start.iter().rev();
        let below = all.filter(|(start, _)| end.is_empty() || &start[..] < end);
        below.take(count).map(|(_, entry)| entry).collect()
    }

    /// All entries in key order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.by_start.values()
    }

    /// Start keys of the entries that overlap the descriptor: perhaps the one before its start, and
    /// those from its start on.
    fn overlapping(&self, descriptor: &RangeDescriptor) -> Vec<Bytes> {
        let from = &descriptor.start_key;
        let before = self.by_start.range::<Bytes, _>(..from).next_back();
        let behind = self.by_start.range::<Bytes, _>(from..);
        let behind = behind.take_while(|(_, other)| overlap(other.descriptor(), descriptor));
        let before = before.filter(|(_, other)| overlap(other.descriptor(), descriptor));
        before.into_iter().chain(behind).map(|(start, _)| start.clone()).collect()
    }

    /// Inserts an entry and removes the older ones that it overlaps. False if a newer entry
    /// overlaps it.
    fn insert(&mut self, entry: Entry) -> bool {
        let descriptor = entry.descriptor();
        let overlapping = self.overlapping(descriptor);
        if overlapping.iter().any(|start| self.by_start[start].age() > entry.age()) {
            return false;
        }
        for start in overlapping {
            self.by_start.remove(&start);
        }
        let (epoch, highest) = (descriptor.epoch(), self.highest.get_or_insert_default());
        highest.version = highest.version.max(epoch.version);
        highest.conf_ver = highest.conf_ver.max(epoch.conf_ver);
        self.by_start.insert(descriptor.start_key.clone(), entry);
        true
    }
}

fn overlap(a: &RangeDescriptor, b: &RangeDescriptor) -> bool {
    let before = |end: &[u8], start: &[u8]| !end.is_empty() && end <= start;
    !before(&a.end_key, &b.start_key) && !before(&b.end_key, &a.start_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(id: u64, start: &str, end: &str, version: u64, term: u64) -> RangeReport {
        RangeReport {
            descriptor: Some(RangeDescriptor {
                range_id: id,
                start_key: start.to_owned().into(),
                end_key: end.to_owned().into(),
                epoch: Some(Epoch { version, conf_ver: 1 }),
                ..Default::default()
            }),
            term,
            ..Default::default()
        }
    }

    fn ids(entries: Vec<&Entry>) -> Vec<u64> {
        entries.into_iter().map(|e| e.descriptor().range_id).collect()
    }

    fn directory() -> Directory {
        let mut directory = Directory::default();
        for (id, start, end) in [(1, "", "b"), (2, "b", "d"), (3, "d", "")] {
            assert!(directory.learn(report(id, start, end, 1, 1), Duration::ZERO));
        }
        directory
    }

    #[test]
    fn finds_ranges_upwards_and_downwards() {
        let directory = directory();
        assert_eq!(ids(directory.from(b"b", 2)), [2, 3]);
        assert_eq!(ids(directory.from(b"", 9)), [1, 2, 3]);
        assert_eq!(ids(directory.below(b"d", 2)), [2, 1]);
        assert_eq!(ids(directory.below(b"", 1)), [3]);
    }

    #[test]
    fn an_older_report_changes_nothing() {
        let mut directory = directory();
        directory.learn(report(2, "b", "d", 2, 5), Duration::ZERO);
        assert!(!directory.learn(report(2, "b", "d", 1, 9), Duration::ZERO));
        assert!(!directory.learn(report(2, "b", "d", 2, 4), Duration::ZERO));
        assert_eq!(directory.from(b"b", 1)[0].report.term, 5);
    }

    #[test]
    fn an_epoch_that_nothing_led_to_is_not_believed() {
        let mut directory = directory();
        assert!(!directory.learn(report(2, "b", "d", 1 << 63, 1), Duration::ZERO));
        let mut of_conf_ver = report(2, "b", "d", 1, 1);
        of_conf_ver.descriptor.as_mut().unwrap().epoch.as_mut().unwrap().conf_ver = 1 << 63;
        assert!(!directory.learn(of_conf_ver, Duration::ZERO));
        assert!(directory.learn(report(2, "b", "d", 1 + EPOCH_STEP_MAX, 1), Duration::ZERO));
        assert!(Directory::default().learn(report(1, "", "", 1 << 63, 1), Duration::ZERO));
    }

    #[test]
    fn a_split_replaces_what_it_covers() {
        let mut directory = directory();
        directory.learn(report(4, "c", "d", 2, 1), Duration::ZERO);
        directory.learn(report(2, "b", "c", 2, 1), Duration::ZERO);
        assert_eq!(ids(directory.from(b"", 9)), [1, 2, 4, 3]);
    }
}
