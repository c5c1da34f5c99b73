//! Log truncation: drops a prefix that a finished flush covers (design D3), and keeps enough that a
//! briefly lagging follower needs no snapshot. Each replica decides for itself: any of them may
//! lead next. A leader also keeps entries that its followers still need.

use raft::ProgressState;
use rangedb_storage::{LogChange, Result};

use super::Peer;
use crate::Room;

/// Bytes of log that a leader keeps for followers that answer but lack the entries; a follower
/// further back begins again with a snapshot. As much as a busy range writes while a large snapshot
/// is in flight. With less, the follower would find the entries behind its snapshot gone, need
/// another snapshot, and never catch up.
const UNSENT_BYTES_MAX: u64 = 1 << 30;

impl Peer {
    /// Bytes of log written since the last flush was requested.
    pub fn log_since_flush(&mut self) -> u64 {
        self.storage_mut().size().since_flush()
    }

    /// Notes that a flush begins. Returns the applied index that it covers.
    pub fn flush_begins(&mut self) -> u64 {
        self.storage_mut().size().flush_asked();
        self.applied().index
    }

    /// Truncates the log after a finished flush that covers entries up to `flushed`.
    pub fn truncate(&mut self, flushed: u64) -> Result<Option<LogChange>> {
        // When room is short, a lagging follower may need a snapshot.
        let keep = if self.room == Room::Enough { self.config.log_keep_bytes } else { 0 };
        let needed = self.followers_need();
        let log = self.storage_mut();
        let Some(index) = log.size().index_keeping(keep) else { return Ok(None) };
        let given_up = log.size().index_keeping(UNSENT_BYTES_MAX).unwrap_or(0);
        let index = index.min(flushed).min(needed.max(given_up));
        if index <= log.truncated().index {
            return Ok(None);
        }
        log.truncate(index).map(Some)
    }

    /// Highest index that no answering follower needs any more, as far as raft knows.
    fn followers_need(&self) -> u64 {
        if !self.is_raft_leader() {
            return u64::MAX;
        }
        let followers = self.raw.raft.prs().iter();
        let answering =
            followers.filter(|(id, _)| **id != self.me.replica_id && self.is_heard(**id));
        let has = answering.map(|(_, progress)| match progress.state {
            ProgressState::Snapshot => progress.pending_snapshot,
            // After a delivered snapshot `matched` is still old, and `next_idx` stands behind the
            // snapshot.
            ProgressState::Probe => progress.matched.max(progress.next_idx.saturating_sub(1)),
            ProgressState::Replicate => progress.matched,
        });
        has.min().unwrap_or(u64::MAX)
    }
}
