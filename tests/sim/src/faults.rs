//! What goes wrong, when its time has come, and how it is mended again.

use std::sync::atomic::Ordering;

use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{RangeOperation, TransferLeader, range_operation::Body};
use rangedb_raftstore::RangeStatus;
use rangedb_server::founding::CONTROL_RANGE_ID;
use rangedb_storage::Result;

use crate::disk::{Disk, Space, Speed};
use crate::network::Weather;
use crate::occurrence::{Fault, Host, Occurrence};
use crate::schedule::{MILLISECOND, Micros, SECOND};
use crate::world::World;

/// Of 100 crashes, how many take all nodes down at once.
const ALL_AT_ONCE: u32 = 10;

/// Of 100 leaders that are told to hand over, how many hear nothing any more a moment later.
const DEAF_AFTER_TRANSFER: u32 = 30;

/// A process that restarts at once is back within this time.
const RESTART_AT_ONCE_MAX: Micros = 50 * MILLISECOND;

/// A slow disk's sync and flush, at most.
const SLOW: Speed = Speed { sync_max: 800 * MILLISECOND, flush_max: 10 * SECOND };

/// Messages of a slow link take this much longer at most: longer than an election takes to come.
const LAG_MAX: Micros = 2_500 * MILLISECOND;

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
            Fault::FreeDisk { slot } => {
                self.set_space(slot, Space::Enough);
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
            Fault::Isolate => self.isolate_leader(),
            Fault::Estrange => self.estrange(),
            Fault::Deafen { slot, others } => return self.deafen(*slot, others),
            Fault::Forget { leader, follower } => return self.forget(*leader, *follower),
            Fault::TransferLeader => self.transfer_leader(),
            Fault::Lag => self.lag(),
            Fault::Mute { slot, others } => {
                self.cut_from(*slot, others);
                return Ok(());
            }
            Fault::FailDisk => self.fail_disk(),
            Fault::FillDisk => self.fill_disk(),
            Fault::RemoveNode => self.remove_node(),
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
            Fault::KillClient => {
                // Whoever is in a transaction: what else a client is at, it notes down at its end.
                let in_transaction = &self.common.in_transaction;
                let dying = (0..in_transaction.len())
                    .filter(|place| in_transaction[*place].load(Ordering::Relaxed));
                let dying: Vec<usize> = dying.collect();
                if !dying.is_empty() {
                    let place = self.schedule.random(|rng| rng.usize(0..dying.len()));
                    self.kill_client(dying[place]);
                }
            }
            Fault::Restart { .. } | Fault::Resume { .. } | Fault::Mend | Fault::FreeDisk { .. } => {
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
            self.set_space(slot, Space::Enough);
            self.resume(slot);
            self.start(slot)?;
        }
        Ok(())
    }

    pub(super) fn any_slot(&self) -> usize {
        self.schedule.random(|rng| rng.usize(0..self.slots.len()))
    }

    /// Short ones are as likely as long ones of ten times the length.
    pub(super) fn outage(&self) -> Micros {
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
        self.replace_disk(slot);
        let restart = Occurrence::Fault(Fault::Restart { slot });
        self.schedule.after(self.outage(), Host::World, restart);
        Ok(())
    }

    /// An empty one takes its place.
    pub(super) fn replace_disk(&mut self, slot: usize) {
        let directory_id = self.schedule.random(|rng| rng.u64(1..));
        self.slots[slot].disk = Disk::new(directory_id, self.plan.disk);
    }

    /// Once in a run, as an operator would. The node comes back with an empty disk.
    fn remove_node(&mut self) {
        let slot = self.any_slot();
        let Some(process) = &self.slots[slot].process else { return };
        if std::mem::replace(&mut self.removed, true) {
            return;
        }
        let node = process.node_id.to_string();
        let worker = self.worker(0);
        self.spawn(worker.host, async move {
            // Refused while too few nodes would be left: then it stays.
            let _ = worker.client.admin().remove_node(&node, false).await;
        });
    }

    fn partition(&mut self) {
        let nodes = self.slots.len();
        let places = self.slots.len() + self.plan.load.clients;
        let outage = self.outage();
        self.schedule.network(|network, rng| {
            network.mend();
            let shape = rng.u32(0..5);
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
                        // Nodes in a ring, or a row if they are few: each reaches its neighbours.
                        3 => {
                            let apart = from.abs_diff(to);
                            let ends_meet = nodes > 3 && apart == nodes - 1;
                            from < nodes && to < nodes && apart > 1 && !ends_meet
                        }
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

    /// A leader's connections to the other nodes break; clients reach all of them.
    fn isolate_leader(&mut self) {
        if let Some((leader, _)) = self.any_leader() {
            self.cut_off(leader);
            let mend = Occurrence::Fault(Fault::Mend);
            self.schedule.after(self.outage(), Host::World, mend);
        }
    }

    fn cut_off(&mut self, slot: usize) {
        let others: Vec<usize> = (0..self.slots.len()).filter(|other| *other != slot).collect();
        self.schedule.network(|network, _| {
            for other in others {
                network.cut(slot, other);
                network.cut(other, slot);
            }
        });
    }

    /// First answers to a leader are late, then it is heard by nobody: what it is told for a while is
    /// of a time when it was followed.
    fn lag(&mut self) {
        let Some((leader, _)) = self.any_leader() else { return };
        let others: Vec<usize> = (0..self.slots.len()).filter(|other| *other != leader).collect();
        let by = self.schedule.between(200 * MILLISECOND, LAG_MAX);
        self.schedule.network(|network, _| {
            others.iter().for_each(|other| network.lag(*other, leader, by));
        });
        let delay = self.schedule.between(MILLISECOND, SECOND);
        let mute = Fault::Mute { slot: leader, others };
        self.schedule.after(delay, Host::World, Occurrence::Fault(mute));
    }

    fn cut_from(&mut self, slot: usize, others: &[usize]) {
        self.schedule.network(|network, _| {
            others.iter().for_each(|other| network.cut(slot, *other));
        });
        let mend = Occurrence::Fault(Fault::Mend);
        self.schedule.after(self.schedule.between(SECOND, 4 * SECOND), Host::World, mend);
    }

    /// Two followers are needed: one that is kept away, and one that keeps its promise meanwhile. Of
    /// the control range, because it is often read and seldom written: who misses a write cannot
    /// lead any more.
    fn estrange(&mut self) {
        let leads_control =
            |status: &RangeStatus| status.leads && status.descriptor.range_id == CONTROL_RANGE_ID;
        let leader = self.replicas().into_iter().find(|(_, status)| leads_control(status));
        let Some((leader, status)) = leader else { return };
        let followers = self.replicas().into_iter().filter(|(slot, other)| {
            *slot != leader && other.descriptor.range_id == status.descriptor.range_id
        });
        let followers: Vec<usize> = followers.map(|(slot, _)| slot).collect();
        let [first, second] = followers[..] else { return };
        self.schedule.network(|network, _| {
            network.mend();
            network.cut(leader, first);
            network.cut(first, leader);
        });
        let delay = self.schedule.between(SECOND, 3 * SECOND);
        let forget = Fault::Forget { leader, follower: second };
        self.schedule.after(delay, Host::World, Occurrence::Fault(forget));
    }

    fn forget(&mut self, leader: usize, follower: usize) -> Result<()> {
        self.cut_off(leader);
        self.crash(follower)?;
        let restart = Occurrence::Fault(Fault::Restart { slot: follower });
        self.schedule.after(self.schedule.between(1, RESTART_AT_ONCE_MAX), Host::World, restart);
        let mend = Occurrence::Fault(Fault::Mend);
        self.schedule.after(self.schedule.between(SECOND, 4 * SECOND), Host::World, mend);
        Ok(())
    }

    fn deafen(&mut self, slot: usize, others: &[usize]) -> Result<()> {
        self.schedule.network(|network, _| {
            others.iter().for_each(|other| network.cut(*other, slot));
        });
        let mend = Occurrence::Fault(Fault::Mend);
        self.schedule.after(self.outage(), Host::World, mend);
        Ok(())
    }

    /// A range's leader, of a user's range if there is one: those are read.
    fn any_leader(&self) -> Option<(usize, RangeStatus)> {
        let leaders: Vec<_> =
            self.replicas().into_iter().filter(|(_, status)| status.leads).collect();
        let users = |status: &RangeStatus| {
            status.descriptor.start_key.is_empty() || status.descriptor.end_key.is_empty()
        };
        let read: Vec<_> = leaders.iter().filter(|(_, status)| users(status)).collect();
        let all: Vec<_> = leaders.iter().collect();
        let among = if read.is_empty() { all } else { read };
        let place =
            (!among.is_empty()).then(|| self.schedule.random(|rng| rng.usize(0..among.len())));
        place.map(|place| among[place].clone())
    }

    /// As an operator would: some range's leader is told to hand over.
    fn transfer_leader(&mut self) {
        let leaders: Vec<_> =
            self.replicas().into_iter().filter(|(_, status)| status.leads).collect();
        if leaders.is_empty() {
            return;
        }
        let place = self.schedule.random(|rng| rng.usize(0..leaders.len()));
        let (leader, status) = &leaders[place];
        if self.schedule.random(|rng| rng.u32(0..100) < DEAF_AFTER_TRANSFER) {
            // It has told its successor, and hears nothing of what that does.
            let others = (0..self.slots.len()).filter(|other| other != leader);
            let cut = self.schedule.between(MILLISECOND, 10 * MILLISECOND);
            let deafen = Fault::Deafen { slot: *leader, others: others.collect() };
            self.schedule.after(cut, Host::World, Occurrence::Fault(deafen));
        }
        let body = Some(Body::TransferLeader(TransferLeader { to_replica_id: 0 }));
        let epoch = Some(status.descriptor.epoch());
        let operation = RangeOperation { range_id: status.descriptor.range_id, epoch, body };
        let slot = &self.slots[*leader];
        let Some(process) = &slot.process else { return };
        let handle = process.handle.clone();
        let host = Host::Process { slot: slot.site.slot, life: slot.life };
        // A refusal is as good: the next fault finds another range.
        self.spawn(host, async move { drop(handle.operate(operation).await) });
    }
}
