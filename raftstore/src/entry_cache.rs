//! The newest entries of one range's log, in memory.
//!
//! An entry is nowhere else between the hand-over to the log writer and durability: raft-rs has
//! released it, and the log engine does not have it yet. Durable entries are kept up to a bound,
//! because followers and apply mostly want the newest ones.

use std::collections::VecDeque;

use raft::eraftpb::Entry;

/// Cache of the newest entries. Invariant: they are a suffix of the log, without a hole.
#[derive(Default)]
pub(crate) struct EntryCache {
    entries: VecDeque<Entry>,
    bytes: usize,
}

/// Approximate bytes that an entry takes in memory and on disk.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    const OVERHEAD: usize = 64;
    entry.data.len() + entry.context.len() + OVERHEAD
}

impl EntryCache {
    pub fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.index)
    }

    pub fn get(&self, index: u64) -> Option<&Entry> {
        let first = self.first_index()?;
        self.entries.get(index.checked_sub(first)? as usize)
    }

    /// Returns entries `[low, high)`, all of which must be cached: up to `bytes_max`, but at least
    /// one.
    pub fn slice(&self, low: u64, high: u64, bytes_max: u64) -> Vec<Entry> {
        let first = self.first_index().expect("slice of an empty entry cache");
        assert!(first <= low, "entry {low} is not cached: the cache begins at {first}");
        let mut bytes = 0;
        let mut out = Vec::new();
        for entry in self.entries.range((low - first) as usize..(high - first) as usize) {
            bytes += entry_bytes(entry) as u64;
            if !out.is_empty() && bytes > bytes_max {
                break;
            }
            out.push(entry.clone());
        }
        out
    }

    /// Appends entries. They replace cached entries from their first index on.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(new_first) = entries.first().map(|entry| entry.index) else { return };
        while self.entries.back().is_some_and(|entry| entry.index >= new_first) {
            self.bytes -= entry_bytes(&self.entries.pop_back().expect("just seen"));
        }
        if self.entries.back().is_some_and(|entry| entry.index + 1 != new_first) {
            self.clear();
        }
        self.bytes += entries.iter().map(entry_bytes).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Drops the oldest entries up to `index`, until the cache is within `bytes_max`.
    pub fn shrink(&mut self, index: u64, bytes_max: usize) {
        while self.bytes > bytes_max && self.entries.front().is_some_and(|e| e.index <= index) {
            self.bytes -= entry_bytes(&self.entries.pop_front().expect("just seen"));
        }
    }

    /// Drops all entries up to `index`.
    pub fn truncate(&mut self, index: u64) {
        self.shrink(index, 0);
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: vec![0; 100].into(), ..Default::default() }
    }

    fn cache(range: std::ops::RangeInclusive<u64>) -> EntryCache {
        let mut cache = EntryCache::default();
        cache.append(&range.map(|i| entry(i, 1)).collect::<Vec<_>>());
        cache
    }

    #[test]
    fn a_conflicting_append_replaces_the_suffix() {
        let mut cache = cache(1..=5);
        cache.append(&[entry(3, 2)]);
        assert_eq!(cache.get(3).map(|e| e.term), Some(2));
        assert!(cache.get(4).is_none());
        assert_eq!(cache.bytes, 3 * 164);
    }

    #[test]
    fn shrinking_stops_at_what_is_not_yet_durable() {
        let mut cache = cache(1..=5);
        cache.shrink(3, 0);
        assert_eq!(cache.first_index(), Some(4));
    }

    #[test]
    fn a_slice_has_at_least_one_entry() {
        let cache = cache(1..=5);
        assert_eq!(cache.slice(2, 5, 1).len(), 1);
        assert_eq!(cache.slice(2, 5, u64::MAX).len(), 3);
    }
}
