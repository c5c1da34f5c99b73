//! Dropping a prefix of the log, only once a finished flush covers it (design D3), and not so far
//! that every follower that stumbles needs a snapshot. Each replica decides for itself: any of them
//! may lead next.

use rangedb_storage::{LogChange, Result};

use super::Peer;

impl Peer {
    /// Whether enough log was written since the last flush to want another.
    pub fn wants_flush(&mut self) -> bool {
        let bytes_max = self.config.flush_log_bytes;
        self.log().size().since_flush() >= bytes_max
    }

    /// The applied index that a flush begun now covers.
    pub fn flush_begins(&mut self) -> u64 {
        self.log().size().flush_asked();
        self.applied().index
    }

    /// A flush that covers entries up to `flushed` is finished.
    pub fn truncate(&mut self, flushed: u64) -> Result<Option<LogChange>> {
        let keep = self.config.log_keep_bytes;
        let log = self.log();
        let Some(index) = log.size().index_keeping(keep) else { return Ok(None) };
        let index = index.min(flushed);
        if index <= log.truncated().index {
            return Ok(None);
        }
        log.truncate(index).map(Some)
    }
}
