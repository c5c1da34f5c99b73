//! Dropping a prefix of the log, only once a finished flush covers it (design D3), and not so far
//! that every follower that stumbles needs a snapshot. Each replica decides for itself: any of them
//! may lead next. A leader also keeps what its followers are still to be sent.

use raft::ProgressState;
use rangedb_storage::{LogChange, Result};

use super::Peer;
use crate::Room;

/// Bytes of log that a leader keeps for followers that answer but have not got them yet; those that
/// are further back begin again with a snapshot. As much as a busy range writes while a large
/// snapshot is on its way: dropped sooner, the follower would find the entries behind its snapshot
/// gone, need another one, and never catch up.
const UNSENT_BYTES_MAX: u64 = 1 << 30;

impl Peer {
    /// Bytes of log written since the last flush was asked for.
    pub fn log_since_flush(&mut self) -> u64 {
        self.log().size().since_flush()
    }

    /// The applied index that a flush begun now covers.
    pub fn flush_begins(&mut self) -> u64 {
        self.log().size().flush_asked();
        self.applied().index
    }

    /// A flush that covers entries up to `flushed` is finished.
    pub fn truncate(&mut self, flushed: u64) -> Result<Option<LogChange>> {
        // Short of room, a follower that stumbles may get a snapshot.
        let keep = if self.room == Room::Enough { self.config.log_keep_bytes } else { 0 };
        let needed = self.followers_need();
        let log = self.log();
        let Some(index) = log.size().index_keeping(keep) else { return Ok(None) };
        let given_up = log.size().index_keeping(UNSENT_BYTES_MAX).unwrap_or(0);
        let index = index.min(flushed).min(needed.max(given_up));
        if index <= log.truncated().index {
            return Ok(None);
        }
        log.truncate(index).map(Some)
    }

    /// The highest index that no follower which answers needs any more, as far as raft tells.
    fn followers_need(&self) -> u64 {
        if !self.is_raft_leader() {
            return u64::MAX;
        }
        let followers = self.raw.raft.prs().iter();
        let answering =
            followers.filter(|(id, _)| **id != self.me.replica_id && self.is_heard(**id));
        let has = answering.map(|(_, progress)| match progress.state {
            ProgressState::Snapshot => progress.pending_snapshot,
            // Behind a snapshot that was delivered, nothing is matched yet.
            ProgressState::Probe => progress.matched.max(progress.next_idx.saturating_sub(1)),
            ProgressState::Replicate => progress.matched,
        });
        has.min().unwrap_or(u64::MAX)
    }
}
