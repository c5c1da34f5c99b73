//! Watch over the disk's free space, which stops writes before the disk is full.
//!
//! Without room the log cannot be appended to. Nor can the state be flushed or compacted, not even
//! to make room. Data that was taken in is written to the disk once more: waiting commands go to
//! the log and to memtables, and memtables go to files. So the watch keeps room for all of these
//! bytes, and a reserve for writes that cannot be counted, compaction above all:
//! - In the upper half of the reserve, stores take in only commands that free space, so that a full
//!   disk can be emptied.
//! - In the lower half, stores take in nothing.
//! - Reads go on in either half.
//! - Above each bound, with some distance so that the node does not flap, stores take in more
//!   again.
//!
//! Other programs or a compaction may fill the disk faster than the watch looks. A write that finds
//! no room then waits until there is room ([`DiskWatch::insist`]), and the disk counts as full
//! meanwhile. Nothing is lost: a write that the engines refuse for want of room has changed
//! nothing, and unflushed data is in the log.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rangedb_raftstore::{Event, Room};
use rangedb_storage::{Error, Result};
use tokio::sync::Notify;

use crate::handle::StoreHandle;
use crate::node::{DiskSpace, Node};

/// Bounds of the interval between two looks. The less room is left, the sooner is the next look. A
/// look costs next to nothing.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);
const LOOK_EVERY_MIN: Duration = Duration::from_millis(10);

/// Room that is used up within a second at most: half of it by the log, half by memtables.
const USED_PER_SECOND: u64 = 1 << 30;

/// Size of the reserve: a share of the file system, within two bounds. The minimum is used up at
/// most between two late looks. The maximum is all that a large file system can use. On a very
/// small file system the reserve is a quarter.
const RESERVE_SHARE: u64 = 20;
const RESERVE_BYTES_MIN: u64 = 32 << 20;
const RESERVE_BYTES_MAX: u64 = 512 << 20;
const RESERVE_SHARE_MAX: u64 = 4;

/// Part of the reserve for compaction and flushes alone, as a divisor. Commands that free space may
/// not use it.
const ENGINES_SHARE: u64 = 2;

/// Interval between two looks for room by a waiting write.
pub(crate) const RETRY_EVERY: Duration = Duration::from_millis(200);

/// Free bytes required beyond a write's own before the write is retried: the engines make files,
/// and files grow in steps.
const RETRY_SLACK_BYTES: u64 = 8 << 20;

/// Free space of the node's disk, and the bounds that stop writes.
pub(crate) struct DiskWatch {
    data_dir: PathBuf,
    reserve_bytes: Option<u64>,
    seen: Mutex<DiskState>,
    /// Writes that found no room and wait for it.
    waiting: AtomicUsize,
    /// Notified when a write begins to wait.
    look_now: Notify,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct DiskState {
    pub space: DiskSpace,
    /// Bytes that must be free for writes to be taken.
    pub needed_bytes: u64,
    /// Bytes that must be free for commands that free space.
    pub needed_to_free_bytes: u64,
    pub room: Room,
}

impl DiskWatch {
    /// Creates a watch. Without a reserve it is calculated from the size of the file system.
    pub fn new(data_dir: &Path, reserve_bytes: Option<u64>) -> Self {
        DiskWatch {
            data_dir: data_dir.to_owned(),
            reserve_bytes,
            seen: Mutex::default(),
            waiting: AtomicUsize::new(0),
            look_now: Notify::new(),
        }
    }

    pub fn seen(&self) -> DiskState {
        *self.seen.lock()
    }

    /// Looks at the disk until the future is dropped, and tells the stores and the node. `owed`
    /// returns the bytes that were taken in and are still to be written.
    pub async fn run(&self, stores: &StoreHandle, node: &Node, owed: impl Fn() -> u64) {
        loop {
            let pause = self.look(stores, node, owed());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.look_now.notified() => {}
            }
        }
    }

    /// Looks at the disk once. Returns the time until the next look.
    pub fn look(&self, stores: &StoreHandle, node: &Node, owed: u64) -> Duration {
        match space_of(&self.data_dir) {
            Ok(space) => {
                node.set_disk_space(space);
                if let Some(room) = self.judge(space, owed) {
                    say(self.seen(), &self.data_dir);
                    stores.send_to_all(&Event::DiskRoom(room));
                }
            }
            Err(error) => tracing::warn!("cannot look at the disk's free space: {error}"),
        }
        pause_after(self.seen())
    }

    /// Does a write of about `bytes` bytes. If the write finds no room, retries it once there is
    /// room. Blocks for as long as that takes. `what` names the write for people.
    ///
    /// # Errors
    /// All errors of the write except [`Error::Full`].
    pub fn insist<T>(
        &self,
        what: &str,
        bytes: u64,
        mut write: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let mut waiting = None;
        loop {
            match write() {
                Err(Error::Full(reason)) => {
                    waiting.get_or_insert_with(|| self.wait(what, &reason));
                }
                outcome => return outcome,
            }
            std::thread::sleep(RETRY_EVERY);
            while !self.has_room(bytes) {
                std::thread::sleep(RETRY_EVERY);
            }
        }
    }

    /// Counts a write that found no room as waiting, until the returned guard is dropped. For a
    /// writer that has other work meanwhile, and so does not use [`DiskWatch::insist`].
    pub fn wait(&self, what: &str, reason: &str) -> WaitingWrite<'_> {
        tracing::error!("no room to {what}, which waits: {reason}");
        self.waiting.fetch_add(1, Ordering::AcqRel);
        self.look_now.notify_one();
        WaitingWrite(&self.waiting)
    }

    /// True if a retry of a write of `bytes` bytes may find room. Also true if the free space is
    /// unknown.
    pub fn has_room(&self, bytes: u64) -> bool {
        let wanted = bytes.saturating_add(RETRY_SLACK_BYTES);
        space_of(&self.data_dir).map_or(true, |space| space.available_bytes >= wanted)
    }

    /// Judges the free space. Returns the new [`Room`] if it changed.
    pub fn judge(&self, space: DiskSpace, owed: u64) -> Option<Room> {
        let mut seen = self.seen.lock();
        let before = seen.room;
        let reserve = self.reserve_bytes.unwrap_or_else(|| default_reserve(space.total_bytes));
        // A node that is short of room needs half as much again to leave that state.
        let above = |bytes: u64, is_short| {
            let distance = if is_short { bytes / 2 } else { 0 };
            bytes.saturating_add(distance).saturating_add(owed)
        };
        let needed_bytes = above(reserve, before != Room::Enough);
        let needed_to_free_bytes = above(reserve / ENGINES_SHARE, before == Room::None);
        let stuck = self.waiting.load(Ordering::Acquire) > 0;
        let room = match space.available_bytes {
            available if stuck || available < needed_to_free_bytes => Room::None,
            available if available < needed_bytes => Room::Reserve,
            _ => Room::Enough,
        };
        *seen = DiskState { space, needed_bytes, needed_to_free_bytes, room };
        (room != before).then_some(room)
    }
}

/// Guard that counts a write as waiting until it is dropped.
pub(crate) struct WaitingWrite<'a>(&'a AtomicUsize);

impl Drop for WaitingWrite<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
        tracing::info!("what waited for room goes on");
    }
}

fn default_reserve(total_bytes: u64) -> u64 {
    let share = (total_bytes / RESERVE_SHARE).clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX);
    share.min(total_bytes / RESERVE_SHARE_MAX)
}

/// Returns the time in which the room above the needed bytes may be used up.
fn pause_after(seen: DiskState) -> Duration {
    let needed_bytes = match seen.room {
        Room::Enough => seen.needed_bytes,
        Room::Reserve => seen.needed_to_free_bytes,
        // No writes are taken in, so no more room is used up.
        Room::None => return LOOK_EVERY_MAX,
    };
    let left = seen.space.available_bytes.saturating_sub(needed_bytes);
    let time = Duration::from_millis(left / (USED_PER_SECOND / 1000));
    time.clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX)
}

/// Returns the space of the file system that holds the path.
pub(crate) fn space_of(path: &Path) -> std::io::Result<DiskSpace> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(DiskSpace {
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

fn say(seen: DiskState, data_dir: &Path) {
    let DiskState {
        space: DiskSpace { available_bytes, .. },
        needed_bytes,
        needed_to_free_bytes,
        room,
    } = seen;
    let dir = data_dir.display();
    match room {
        Room::None => tracing::error!(
            available_bytes,
            needed_bytes,
            needed_to_free_bytes,
            "the disk of {dir} is full: all writes are refused"
        ),
        Room::Reserve => tracing::error!(
            available_bytes,
            needed_bytes,
            "the disk of {dir} is full: writes are refused, but for those that free space"
        ),
        Room::Enough => tracing::info!(
            available_bytes,
            needed_bytes,
            "the disk of {dir} has room again: writes are taken"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn available(available_bytes: u64) -> DiskSpace {
        DiskSpace { total_bytes: 1 << 40, available_bytes }
    }

    fn watch(reserve_bytes: u64) -> DiskWatch {
        DiskWatch::new(&std::env::temp_dir(), Some(reserve_bytes))
    }

    #[test]
    fn writing_stops_below_the_reserve_and_begins_again_well_above_it() {
        let watch = watch(100);
        assert_eq!(watch.judge(available(100), 0), None);
        assert_eq!(watch.judge(available(99), 0), Some(Room::Reserve));
        assert_eq!(watch.judge(available(120), 0), None);
        assert_eq!(watch.seen().room, Room::Reserve);
        assert_eq!(watch.judge(available(150), 0), Some(Room::Enough));
    }

    #[test]
    fn what_frees_space_is_taken_down_to_the_middle_of_the_reserve() {
        let watch = watch(100);
        assert_eq!(watch.judge(available(50), 0), Some(Room::Reserve));
        assert_eq!(watch.judge(available(49), 0), Some(Room::None));
        assert_eq!(watch.judge(available(74), 0), None);
        assert_eq!(watch.judge(available(75), 0), Some(Room::Reserve));
        assert_eq!(watch.judge(available(149), 0), None);
        assert_eq!(watch.judge(available(150), 0), Some(Room::Enough));
        assert_eq!(watch.judge(available(10), 0), Some(Room::None));
        assert_eq!(watch.judge(available(150), 0), Some(Room::Enough));
    }

    #[test]
    fn room_is_kept_for_what_was_taken_in_and_is_not_yet_written() {
        let watch = watch(100);
        assert_eq!(watch.judge(available(500), 400), None);
        assert_eq!(watch.judge(available(500), 401), Some(Room::Reserve));
        // Once written, the data uses the room that was kept for it.
        assert_eq!(watch.judge(available(99), 0), None);
        assert_eq!(watch.judge(available(150), 0), Some(Room::Enough));
    }

    #[test]
    fn the_less_room_is_left_the_sooner_comes_the_next_look() {
        let seen = |available_bytes, room| DiskState {
            space: available(available_bytes),
            needed_bytes: 1 << 20,
            needed_to_free_bytes: 1 << 19,
            room,
        };
        assert_eq!(pause_after(seen(1 << 40, Room::Enough)), LOOK_EVERY_MAX);
        let half = pause_after(seen((1 << 20) + USED_PER_SECOND / 2, Room::Enough));
        assert!(half > LOOK_EVERY_MAX / 3 && half < LOOK_EVERY_MAX, "{half:?}");
        assert_eq!(pause_after(seen(1 << 20, Room::Enough)), LOOK_EVERY_MIN);
        assert_eq!(pause_after(seen(1 << 19, Room::Reserve)), LOOK_EVERY_MIN);
        assert_eq!(pause_after(seen(0, Room::None)), LOOK_EVERY_MAX);
    }

    #[test]
    fn a_write_that_finds_no_room_waits_for_it_and_the_disk_is_full_meanwhile() {
        let watch = watch(100);
        let mut found = Vec::new();
        let written = watch.insist("write", 1, || {
            found.push(watch.judge(available(1000), 0));
            if found.len() < 3 { Err(Error::Full("nothing left".into())) } else { Ok(7) }
        });
        assert_eq!(written.unwrap(), 7);
        assert_eq!(found, [None, Some(Room::None), None]);
        assert_eq!(watch.judge(available(1000), 0), Some(Room::Enough));
    }

    #[test]
    fn a_write_that_fails_for_another_reason_is_not_done_again() {
        let mut writes = 0;
        let failed = watch(100).insist("write", 1, || {
            writes += 1;
            Err::<(), _>(Error::Io("broken".into()))
        });
        assert!(matches!(failed, Err(Error::Io(_))));
        assert_eq!(writes, 1);
    }

    #[test]
    fn the_reserve_fits_small_and_large_file_systems() {
        assert_eq!(default_reserve(64 << 20), 16 << 20);
        assert_eq!(default_reserve(256 << 20), RESERVE_BYTES_MIN);
        assert_eq!(default_reserve(1 << 30), (1 << 30) / 20);
        assert_eq!(default_reserve(1 << 40), RESERVE_BYTES_MAX);
    }

    #[test]
    fn the_space_of_a_directory_is_read() {
        let space = space_of(&std::env::temp_dir()).unwrap();
        assert!(space.total_bytes > 0 && space.available_bytes <= space.total_bytes);
    }
}
