//! Log Matching of Raft: entries of one index and one term are the same in every log, whether they
//! are committed or not (Ongaro's dissertation, 3.5). An entry that was cut off and written
//! differently in the same term would show here.

use std::collections::BTreeMap;

use raft_proto::eraftpb::Entry;

use super::Verdict;
use super::committed::content_hash;

#[derive(Default)]
pub struct LogMatching {
    /// Hash of each entry and the slot that had it first, by range, index and term.
    entries: BTreeMap<(u64, u64, u64), (u64, usize)>,
}

impl LogMatching {
    /// Checks an entry that the log of a replica at `slot` holds.
    pub fn holds(&mut self, range: u64, slot: usize, entry: &Entry) -> Verdict {
        let hash = content_hash(entry);
        let place = (range, entry.index, entry.term);
        let (known, by) = *self.entries.entry(place).or_insert((hash, slot));
        if known == hash {
            return Ok(());
        }
        Err(format!(
            "entry {} of term {} of range {range} differs: hash {known:x} on node-{by}, {hash:x} on \
             node-{slot}",
            entry.index, entry.term
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64, data: &'static [u8]) -> Entry {
        Entry { index, term, data: data.into(), ..Default::default() }
    }

    #[test]
    fn other_bytes_at_one_index_and_term_are_caught_and_another_term_passes() {
        let mut logs = LogMatching::default();
        assert_eq!(logs.holds(1, 0, &entry(5, 2, b"a")), Ok(()));
        assert_eq!(logs.holds(1, 1, &entry(5, 2, b"a")), Ok(()));
        assert_eq!(logs.holds(1, 1, &entry(5, 3, b"b")), Ok(()));
        assert_eq!(logs.holds(2, 1, &entry(5, 2, b"b")), Ok(()));
        assert!(logs.holds(1, 2, &entry(5, 2, b"b")).is_err());
    }
}
