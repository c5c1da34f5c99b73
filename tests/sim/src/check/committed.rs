//! Committed entries never change. Once a replica has applied an entry, every log that holds an
//! entry at its index holds this one, with the same term and bytes, through crashes too.

use std::collections::BTreeMap;

use raft_proto::eraftpb::Entry;

use super::Verdict;
use crate::trace::Trace;

/// Term and hash of an entry.
type Print = (u64, u64);

#[derive(Default)]
pub struct Committed {
    entries: BTreeMap<(u64, u64), (Print, usize)>,
}

impl Committed {
    /// Checks an entry that the log of a replica at `slot` holds, and that the replica has applied.
    pub fn holds(&mut self, range: u64, slot: usize, entry: &Entry) -> Verdict {
        let print = (entry.term, content_hash(entry));
        let (known, by) = *self.entries.entry((range, entry.index)).or_insert((print, slot));
        if known == print {
            return Ok(());
        }
        Err(format!(
            "committed entry {} of range {range} differs: term {} hash {:x} on node-{by}, \
             term {} hash {:x} on node-{slot}",
            entry.index, known.0, known.1, print.0, print.1
        ))
    }
}

/// Hash of an entry without its index and term.
pub(super) fn content_hash(entry: &Entry) -> u64 {
    let mut content = Trace::default();
    content.word(entry.get_entry_type() as u64);
    content.bytes(&entry.data);
    content.bytes(&entry.context);
    content.hash()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64, data: &'static [u8]) -> Entry {
        Entry { index, term, data: data.into(), ..Default::default() }
    }

    #[test]
    fn equal_logs_pass_and_another_term_or_other_bytes_are_caught() {
        let mut committed = Committed::default();
        assert_eq!(committed.holds(1, 0, &entry(5, 2, b"a")), Ok(()));
        assert_eq!(committed.holds(1, 1, &entry(5, 2, b"a")), Ok(()));
        assert_eq!(committed.holds(2, 1, &entry(5, 3, b"b")), Ok(()));
        assert!(committed.holds(1, 1, &entry(5, 3, b"a")).is_err());
        assert!(committed.holds(1, 2, &entry(5, 2, b"b")).is_err());
    }
}
