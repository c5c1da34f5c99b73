//! Size of a replica's log, for flushes and truncation.

use std::collections::VecDeque;

use raft::eraftpb::Entry;

use crate::entry_cache::entry_bytes;

/// Approximate bytes of log behind an index. Truncation goes by bytes, because entries may be of
/// any size.
#[derive(Default)]
pub(crate) struct LogSize {
    /// Bytes appended since the replica was opened.
    total: u64,
    /// Value of `total` when the last flush was requested.
    flushed: u64,
    /// (index, total up to and including it), one for each [`LogSize::STEP`] bytes.
    marks: VecDeque<(u64, u64)>,
}

impl LogSize {
    const STEP: u64 = 64 << 10;

    pub fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            while self.marks.back().is_some_and(|(index, _)| *index >= entry.index) {
                self.marks.pop_back();
            }
            self.total += entry_bytes(entry) as u64;
            let marked = self.marks.back().map_or(0, |(_, total)| *total);
            if self.total - marked >= Self::STEP {
                self.marks.push_back((entry.index, self.total));
            }
        }
    }

    pub fn truncate(&mut self, index: u64) {
        while self.marks.front().is_some_and(|(marked, _)| *marked <= index) {
            self.marks.pop_front();
        }
    }

    pub fn since_flush(&self) -> u64 {
        self.total - self.flushed
    }

    pub fn flush_asked(&mut self) {
        self.flushed = self.total;
    }

    /// The newest index behind which at least `bytes` of log stand.
    pub fn index_keeping(&self, bytes: u64) -> Option<u64> {
        let mark = |(index, total): &(u64, u64)| (self.total - total >= bytes).then_some(*index);
        self.marks.iter().rev().find_map(mark)
    }
}
