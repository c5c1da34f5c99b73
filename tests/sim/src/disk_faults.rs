//! Disks that fail and fill up.
//!
//! A failed append or flush ends the process at once, as in production, where nobody knows what of it
//! is on the disk; somebody starts it again. While space is low the stores are told and refuse writes,
//! and reads go on. Once there is none at all, appends and flushes wait for it, as in production; a
//! process that ends meanwhile cannot come back before there is some. With a reserve left, what frees
//! space goes on. Writes to the state stay in
//! memory until a flush, and go on.

use rangedb_storage::{Error, FailedAppend, Result};

use crate::disk::Space;
use crate::occurrence::{Fault, Host, Occurrence};
use crate::world::World;

/// Of 100 disks that run out of space, how many are full to the last byte.
const NO_SPACE_PERCENT: u32 = 20;

/// Of 100 failures, how many are of a flush; the others are of a log write.
const FLUSH_FAILS_PERCENT: u32 = 30;

impl World {
    /// The next write of a disk fails: a flush, or else one of the log.
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

    /// An error that the disk explains ends the process. Any other is a fault of the code.
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
