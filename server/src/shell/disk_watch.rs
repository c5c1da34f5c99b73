//! Stops writing before the disk is full.
//!
//! Without room the log cannot be appended to and the state cannot be flushed or compacted, not even
//! to make room. So a reserve is kept: below it, stores propose nothing and take no entries in, and
//! reads go on; above it again, with some distance so that the node does not flap, all is as before.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use rangedb_raftstore::Event;

use crate::handle::StoreHandle;
use crate::node::{DiskSpace, Node};

/// Between two looks: at a gigabyte a second, a disk loses no more than that in between.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The reserve: a share of the file system, but at least room for a few flushes of a small node,
/// and no more than a large one can use.
const RESERVE_SHARE: u64 = 20;
const RESERVE_BYTES_MIN: u64 = 16 << 20;
const RESERVE_BYTES_MAX: u64 = 512 << 20;

/// Whether the node may write, as of the last look.
pub(crate) struct DiskWatch {
    reserve_bytes: Option<u64>,
    seen: Mutex<Seen>,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Seen {
    pub space: DiskSpace,
    pub full: bool,
}

impl DiskWatch {
    pub fn new(reserve_bytes: Option<u64>) -> Self {
        DiskWatch { reserve_bytes, seen: Mutex::default() }
    }

    pub fn seen(&self) -> Seen {
        *self.seen.lock().expect("no panic holds it")
    }

    /// Looks for as long as it is polled, and tells stores and node.
    pub async fn run(&self, data_dir: &Path, stores: &StoreHandle, node: &Node) {
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            match space_of(data_dir) {
                Ok(space) => {
                    node.set_disk_space(space);
                    if let Some(full) = self.look(space) {
                        say(full, space, data_dir);
                        stores.send_to_all(&Event::DiskFull(full));
                    }
                }
                Err(error) => tracing::warn!("cannot look at the disk's free space: {error}"),
            }
        }
    }

    /// Takes note; returns what changed.
    fn look(&self, space: DiskSpace) -> Option<bool> {
        let mut seen = self.seen.lock().expect("no panic holds it");
        let before = seen.full;
        let reserve = self.reserve_bytes.unwrap_or_else(|| default_reserve(space.total_bytes));
        // Once full, it takes half as much again to be no longer so.
        let needed = if before { reserve.saturating_add(reserve / 2) } else { reserve };
        *seen = Seen { space, full: space.available_bytes < needed };
        (seen.full != before).then_some(seen.full)
    }
}

fn default_reserve(total_bytes: u64) -> u64 {
    (total_bytes / RESERVE_SHARE).clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX)
}

fn space_of(path: &Path) -> std::io::Result<DiskSpace> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(DiskSpace {
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

fn say(full: bool, space: DiskSpace, data_dir: &Path) {
    let available_bytes = space.available_bytes;
    let dir = data_dir.display();
    if full {
        tracing::error!(available_bytes, "the disk of {dir} is full: writes are refused");
    } else {
        tracing::info!(available_bytes, "the disk of {dir} has room again: writes are taken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn available(available_bytes: u64) -> DiskSpace {
        DiskSpace { total_bytes: 1 << 40, available_bytes }
    }

    #[test]
    fn writing_stops_below_the_reserve_and_begins_again_well_above_it() {
        let watch = DiskWatch::new(Some(100));
        assert_eq!(watch.look(available(100)), None);
        assert_eq!(watch.look(available(99)), Some(true));
        assert_eq!(watch.look(available(120)), None);
        assert!(watch.seen().full);
        assert_eq!(watch.look(available(150)), Some(false));
    }

    #[test]
    fn the_reserve_fits_small_and_large_file_systems() {
        assert_eq!(default_reserve(64 << 20), RESERVE_BYTES_MIN);
        assert_eq!(default_reserve(1 << 30), (1 << 30) / 20);
        assert_eq!(default_reserve(1 << 40), RESERVE_BYTES_MAX);
    }

    #[test]
    fn the_space_of_a_directory_is_read() {
        let space = space_of(&std::env::temp_dir()).unwrap();
        assert!(space.total_bytes > 0 && space.available_bytes <= space.total_bytes);
    }
}
