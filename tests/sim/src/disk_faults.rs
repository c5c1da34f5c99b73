//! Disks that fail and fill up.
//!
//! A failed append or flush ends the process at once, as in production: nobody knows which part of
//! it is on the disk. The process restarts after an outage.
//!
//! A disk fills up to one of three levels:
//! - With a reserve left, only writes that free space go on.
//! - With little space, the stores refuse all writes. Reads go on.
//! - With none, appends and flushes wait for space, as in production. A process that ends meanwhile
//!   cannot start before there is some.
//!
//! Writes to the state stay in memory until a flush, and go on.

use rangedb_storage::{Error, FailedAppend, Result};

use crate::disk::Space;
use crate::occurrence::{Fault, Host, Occurrence};
use crate::world::World;

/// Percentage of full disks that are full to the last byte.
const NO_SPACE_PERCENT: u32 = 20;

/// Percentage of disk failures that hit a flush; the others hit a log write.
const FLUSH_FAILS_PERCENT: u32 = 30;

impl World {
    /// Makes the next flush or the next log write of a disk fail.
    pub(crate) fn fail_disk(&mut self) {
        let slot = self.any_slot();
        let (flush, written) =
            self.schedule.random(|rng| (rng.u32(0..100) < FLUSH_FAILS_PERCENT, rng.bool()));
        let disk = &mut self.slots[slot].disk;
        match flush {
            true => disk.fail_flush(),
            false => disk.fail_append(FailedAppend { after: 0, written }),
        }
    }

    pub(crate) fn fill_disk(&mut self) {
        let slot = self.any_slot();
        let space = self.schedule.random(|rng| match rng.u32(0..100) {
            0..NO_SPACE_PERCENT => Space::None,
            _ if rng.bool() => Space::Reserve,
            _ => Space::Low,
        });
        self.set_space(slot, space);
        let free = Occurrence::Fault(Fault::FreeDisk { slot });
        self.schedule.after(self.outage(), Host::World, free);
    }

    pub(crate) fn set_space(&mut self, slot: usize, space: Space) {
        self.slots[slot].disk.set_space(space);
        if let Some(process) = &self.slots[slot].process {
            process.tell_of_space(space);
        }
    }

    /// Ends the process after an error that the disk explains. Any other error is a fault of the
    /// code.
    pub(crate) fn on_error(&mut self, at: usize, error: Error) -> Result<()> {
        if !self.slots[at].disk.explains(&error) {
            return Err(error);
        }
        self.schedule.remark(|| format!("node-{at} ends: {error}"));
        self.crash(at)?;
        let restart = Occurrence::Fault(Fault::Restart { slot: at });
        self.schedule.after(self.outage(), Host::World, restart);
        Ok(())
    }
}
