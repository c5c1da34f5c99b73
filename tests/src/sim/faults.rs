//! What goes wrong, when its time has come, and how it is mended again.

use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{RangeOperation, TransferLeader, range_operation::Body};
use rangedb_storage::Result;

use super::disk::{Disk, Speed};
use super::network::Weather;
use super::occurrence::{Fault, Host, Occurrence};
use super::schedule::{MILLISECOND, Micros, SECOND};
use super::world::World;

/// Of 100 crashes, how many take all nodes down at once.
const ALL_AT_ONCE: u32 = 10;

/// A slow disk's sync and flush, at most.
const SLOW: Speed = Speed { sync_max: 800 * MILLISECOND, flush_max: 10 * SECOND };

/// The time of day jumps this far at most.
const JUMP_MILLIS_MAX: i64 = 60_000;

impl World {
    pub(super) fn fault(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Restart { slot } => return self.start(slot),
            Fault::Resume { slot } => {
                self.resume(slot);
                return Ok(());
            }
            Fault::Mend => {
                self.schedule.network(|network, _| network.mend());
                return Ok(());
            }
            _ if !self.faults_on => return Ok(()),
            _ => {}
        }
        match &fault {
            Fault::Crash => self.crash_some()?,
            Fault::Wipe => self.wipe()?,
            Fault::Pause => {
                let (slot, pause) = (self.any_slot(), self.outage());
                self.pause(slot, pause);
            }
            Fault::Partition => self.partition(),
            Fault::TransferLeader => self.transfer_leader(),
            Fault::SlowDisk => {
                let slot = self.any_slot();
                let slow = self.schedule.random(|rng| rng.bool());
                self.slots[slot].disk.speed = if slow { SLOW } else { self.plan.disk };
            }
            Fault::WallClockJump => {
                let slot = self.any_slot();
                let jump = -JUMP_MILLIS_MAX..=JUMP_MILLIS_MAX;
                let wrong_by = self.schedule.random(|rng| rng.i64(jump));
                self.slots[slot].site.time_of_day.set_wrong_by(wrong_by);
            }
            Fault::Restart { .. } | Fault::Resume { .. } | Fault::Mend => {
                unreachable!("handled above")
            }
        }
        self.schedule_next(fault);
        Ok(())
    }

    fn schedule_next(&self, fault: Fault) {
        let mean = self.plan.faults.iter().find(|(kind, _)| *kind == fault).map(|(_, mean)| *mean);
        if let Some(mean) = mean {
            let delay = self.schedule.between(1, 2 * mean);
            self.schedule.after(delay, Host::World, Occurrence::Fault(fault));
        }
    }

    /// Everything is well from now on.
    pub fn heal(&mut self) -> Result<()> {
        self.faults_on = false;
        self.schedule.network(|network, _| {
            network.mend();
            network.set_weather(Weather::fair());
        });
        for slot in 0..self.slots.len() {
            self.slots[slot].disk.speed = Speed::GOOD;
            self.slots[slot].site.stalls = 0;
            if let Some(process) = &mut self.slots[slot].process {
                process.site.stalls = 0;
            }
            self.resume(slot);
            self.start(slot)?;
        }
        Ok(())
    }

    fn any_slot(&self) -> usize {
        self.schedule.random(|rng| rng.usize(0..self.slots.len()))
    }

    /// Short ones are as likely as long ones of ten times the length.
    fn outage(&self) -> Micros {
        let tenths = self.schedule.between(0, 2);
        self.schedule.between(1, self.plan.outage_max / 10u64.pow(tenths as u32))
    }

    fn crash_some(&mut self) -> Result<()> {
        let all = self.schedule.random(|rng| rng.u32(0..100) < ALL_AT_ONCE);
        let one = self.any_slot();
        let slots = if all { 0..self.slots.len() } else { one..one + 1 };
        for slot in slots.filter(|slot| self.slots[*slot].up).collect::<Vec<_>>() {
            self.crash(slot)?;
            let restart = Occurrence::Fault(Fault::Restart { slot });
            self.schedule.after(self.outage(), Host::World, restart);
        }
        Ok(())
    }

    /// Once in a run: until the replicas that were lost are made again, another loss may be final.
    fn wipe(&mut self) -> Result<()> {
        let slot = self.any_slot();
        if self.wiped || !self.slots[slot].up || self.slots[slot].disk.identity.is_none() {
            return Ok(());
        }
        self.wiped = true;
        self.crash(slot)?;
        let directory_id = self.schedule.random(|rng| rng.u64(1..));
        self.slots[slot].disk = Disk::new(directory_id, self.plan.disk);
        let restart = Occurrence::Fault(Fault::Restart { slot });
        self.schedule.after(self.outage(), Host::World, restart);
        Ok(())
    }

    fn partition(&mut self) {
        let places = self.slots.len() + self.plan.load.clients;
        let outage = self.outage();
        self.schedule.network(|network, rng| {
            network.mend();
            let shape = rng.u32(0..4);
            let alone = rng.usize(0..places);
            let side: Vec<bool> = (0..places).map(|_| rng.bool()).collect();
            for from in 0..places {
                for to in (0..places).filter(|to| *to != from) {
                    let cut = match shape {
                        0 => from == alone || to == alone,
                        // Heard by nobody, but hears all; or the other way round.
                        1 => {
                            if side[0] {
                                from == alone
                            } else {
                                to == alone
                            }
                        }
                        2 => side[from] != side[to],
                        // Some links, in one direction.
                        _ => rng.u32(0..4) == 0,
                    };
                    if cut {
                        network.cut(from, to);
                    }
                }
            }
        });
        self.schedule.after(outage, Host::World, Occurrence::Fault(Fault::Mend));
    }

    /// As an operator would: some range's leader is told to hand over.
    fn transfer_leader(&mut self) {
        let leaders: Vec<_> =
            self.replicas().into_iter().filter(|(_, status)| status.leads).collect();
        if leaders.is_empty() {
            return;
        }
        let (slot, status) = &leaders[self.schedule.random(|rng| rng.usize(0..leaders.len()))];
        let body = Some(Body::TransferLeader(TransferLeader { to_replica_id: 0 }));
        let epoch = Some(status.descriptor.epoch());
        let operation = RangeOperation { range_id: status.descriptor.range_id, epoch, body };
        let slot = &self.slots[*slot];
        let Some(process) = &slot.process else { return };
        let handle = process.handle.clone();
        let host = Host::Process { slot: slot.site.slot, life: slot.life };
        // A refusal is as good: the next fault finds another range.
        self.spawn(host, async move { drop(handle.operate(operation).await) });
    }
}
