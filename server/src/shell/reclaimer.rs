//! Thread that gives back room on a nearly full disk. Deleted and garbage-collected records remain
//! in files until the files are rewritten. While there is room the thread does nothing.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rangedb_raftstore::Room;
use rangedb_storage::RocksState;

use crate::shell::disk_watch::DiskWatch;
use crate::shell::end;

/// Interval between two looks at the disk. Garbage is collected once a second, at a bounded rate.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Part of the free room that a rewrite may use for a moment, as a divisor.
const ROOM_SHARE: u64 = 2;

/// Handle to the thread, which ends when the handle is dropped.
pub(crate) struct Reclaimer(#[expect(dead_code, reason = "kept for its drop")] Sender<()>);

impl Reclaimer {
    pub fn start(
        state: Arc<RocksState>,
        disk: Arc<DiskWatch>,
    ) -> std::io::Result<(Reclaimer, JoinHandle<()>)> {
        let (sender, receiver) = crossbeam_channel::bounded(0);
        let run = move || reclaim_when_needed(&receiver, &state, &disk);
        Ok((Reclaimer(sender), end::thread("reclaimer".to_owned(), run)?))
    }
}

fn reclaim_when_needed(ending: &Receiver<()>, state: &RocksState, disk: &DiskWatch) {
    while ending.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        let seen = disk.seen();
        if seen.room == Room::Enough {
            continue;
        }
        match state.reclaim(seen.space.available_bytes / ROOM_SHARE) {
            Ok(0) => {}
            Ok(families) => {
                tracing::info!(families, "rewrote files for the room of what is deleted")
            }
            // Nothing was changed. The engine reports its error to the next writer.
            Err(error) => tracing::warn!("cannot reclaim the room of what is deleted: {error}"),
        }
    }
}
