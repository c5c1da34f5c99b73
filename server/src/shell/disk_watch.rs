//! Stops writing before the disk is full.
//!
//! Without room the log cannot be appended to and the state cannot be flushed or compacted, not even
//! to make room. What was taken in is owed to the disk once more: commands that wait go to the log
//! and to memtables, and memtables to files. So room is kept for all of that, and a reserve for what
//! cannot be counted, compaction above all. Where the reserve begins, stores take in only what frees
//! space, so that a full disk can be emptied; from its middle on they take in nothing at all. Reads
//! go on. Above it again, with some distance so that the node does not flap, all is as before.
//!
//! Others may fill the disk faster than anybody looks, and a compaction may. Then a write waits until
//! there is room ([`DiskWatch::insist`]), and the disk counts as full meanwhile. Nothing is lost by
//! that: the engines say of a write that found no room that it changed nothing, and what they have
//! not flushed stands in the log.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rangedb_raftstore::{Event, Room};
use rangedb_storage::{Error, Result};
use tokio::sync::Notify;

use crate::handle::StoreHandle;
use crate::node::{DiskSpace, Node};

/// Between two looks: the sooner, the less room is left. The shortest costs next to nothing.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);
const LOOK_EVERY_MIN: Duration = Duration::from_millis(10);

/// Room that goes away within a second at most: half of it into the log, half into memtables.
const USED_PER_SECOND: u64 = 1 << 30;

/// The reserve: a share of the file system, but at least what goes away between two looks that come
/// late, and no more than a large one can use. A quarter of a very small one must do.
const RESERVE_SHARE: u64 = 20;
const RESERVE_BYTES_MIN: u64 = 32 << 20;
const RESERVE_BYTES_MAX: u64 = 512 << 20;
const RESERVE_SHARE_MAX: u64 = 4;

/// The part of the reserve that is for compaction and flushes alone, and not for commands that free
/// space.
const ENGINES_SHARE: u64 = 2;

/// Between two looks for room by a write that waits.
pub(crate) const RETRY_EVERY: Duration = Duration::from_millis(200);

/// Free beyond what a write wants before it is tried again: files are made, and grow in steps.
const RETRY_SLACK_BYTES: u64 = 8 << 20;

/// Whether the node may write, as of the last look.
pub(crate) struct DiskWatch {
    data_dir: PathBuf,
    reserve_bytes: Option<u64>,
    seen: Mutex<Seen>,
    /// Writes that found no room and wait for it.
    waiting: AtomicUsize,
    /// A write began to wait.
    look_now: Notify,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Seen {
    pub space: DiskSpace,
    /// What must be free for writes to be taken.
    pub needed_bytes: u64,
    /// Bytes that must be free for commands that free space.
    pub needed_to_free_bytes: u64,
    pub room: Room,
}

impl DiskWatch {
    /// Without a reserve it is worked out from the file system's size.
    pub fn new(data_dir: &Path, reserve_bytes: Option<u64>) -> Self {
        DiskWatch {
            data_dir: data_dir.to_owned(),
            reserve_bytes,
            seen: Mutex::default(),
            waiting: AtomicUsize::new(0),
            look_now: Notify::new(),
        }
    }

    pub fn seen(&self) -> Seen {
        *self.seen.lock().expect("no panic holds it")
    }

    /// Looks for as long as it is polled, and tells stores and node. `owed` says how many bytes that
    /// were taken in have still to be written.
    pub async fn run(&self, stores: &StoreHandle, node: &Node, owed: impl Fn() -> u64) {
        loop {
            let pause = self.look(stores, node, owed());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.look_now.notified() => {}
            }
        }
    }

    /// Looks once; says when to look again.
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

    /// Does a write that takes up about so many bytes; when it finds no room, again once there is
    /// some. Blocks for as long as that takes. `what` names it for people.
    ///
    /// # Errors
    /// All others than [`Error::Full`].
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

    /// Counts a write that found no room among those that wait, until what is returned is dropped.
    /// For a writer that has other things to do meanwhile than [`DiskWatch::insist`].
    pub fn wait(&self, what: &str, reason: &str) -> Waiting<'_> {
        tracing::error!("no room to {what}, which waits: {reason}");
        self.waiting.fetch_add(1, Ordering::AcqRel);
        self.look_now.notify_one();
        Waiting(&self.waiting)
    }

    /// True if a write of so many bytes is worth another try, as far as anybody can tell.
    pub fn has_room(&self, bytes: u64) -> bool {
        let wanted = bytes.saturating_add(RETRY_SLACK_BYTES);
        space_of(&self.data_dir).map_or(true, |space| space.available_bytes >= wanted)
    }

    /// Takes note; returns what changed.
    pub fn judge(&self, space: DiskSpace, owed: u64) -> Option<Room> {
        let mut seen = self.seen.lock().expect("no panic holds it");
        let before = seen.room;
        let reserve = self.reserve_bytes.unwrap_or_else(|| default_reserve(space.total_bytes));
        // Once short of room, it takes half as much again to be no longer so.
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
        *seen = Seen { space, needed_bytes, needed_to_free_bytes, room };
        (room != before).then_some(room)
    }
}

/// See [`DiskWatch::wait`].
pub(crate) struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
        tracing::info!("what waited for room goes on");
    }
}

fn default_reserve(total_bytes: u64) -> u64 {
    let share = (total_bytes / RESERVE_SHARE).clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX);
    share.min(total_bytes / RESERVE_SHARE_MAX)
}

/// The time in which the room above what is needed may go away.
fn pause_after(seen: Seen) -> Duration {
    let needed_bytes = match seen.room {
        Room::Enough => seen.needed_bytes,
        Room::Reserve => seen.needed_to_free_bytes,
        // Nothing is taken in that could use more of it up.
        Room::None => return LOOK_EVERY_MAX,
    };
    let left = seen.space.available_bytes.saturating_sub(needed_bytes);
    let time = Duration::from_millis(left / (USED_PER_SECOND / 1000));
    time.clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX)
}

/// Of the file system that the path is on.
pub(crate) fn space_of(path: &Path) -> std::io::Result<DiskSpace> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(DiskSpace {
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

fn say(seen: Seen, data_dir: &Path) {
    let Seen { space: DiskSpace { available_bytes, .. }, needed_bytes, needed_to_free_bytes, room } =
        seen;
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
        // Written, it takes the room that was kept for it.
        assert_eq!(watch.judge(available(99), 0), None);
        assert_eq!(watch.judge(available(150), 0), Some(Room::Enough));
    }

    #[test]
    fn the_less_room_is_left_the_sooner_comes_the_next_look() {
        let seen = |available_bytes, room| Seen {
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
