//! Execution of faults at their time, and their mending.

use std::sync::atomic::Ordering;

use rangedb_raftstore::RangeStatus;
use rangedb_server::founding::CONTROL_RANGE_ID;
use rangedb_storage::{LogEngine, Result};

use crate::ambush::Moment;
use crate::disk::{Disk, Space, Speed};
use crate::network::Weather;
use crate::occurrence::{Fault, Host, Occurrence};
use crate::schedule::{MILLISECOND, Micros, SECOND};
use crate::world::World;

/// Percentage of crashes that take all nodes down at once.
const ALL_AT_ONCE: u32 = 10;

/// Percentages by which a leader is chosen: below the first one of a user's range, below the second
/// one of any range, else one of the control range.
const USERS_RANGE_PERCENT: u32 = 70;
const ANY_RANGE_PERCENT: u32 = 80;

/// Maximum sync and flush times of a slow disk.
const SLOW: Speed = Speed { sync_max: 800 * MILLISECOND, flush_max: 10 * SECOND };

/// Maximum difference of the time of day from the true one after a jump, in milliseconds.
const JUMP_MILLIS_MAX: i64 = 60_000;

/// Maximum difference for the one node whose clock leaps, in days.
const LEAP_DAYS_MAX: i64 = 100;
const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;

/// Maximum jump of the time of day from its current value, in milliseconds: twice as long as a lock
/// lives.
const STEP_MILLIS_MAX: i64 = 20_000;

/// Maximum time for which a follower is kept away from its leader's log.
const LEFT_BEHIND_MAX: Micros = 8 * SECOND;

/// Time between two checks of how far a follower is behind.
const LOOK_BEHIND_EVERY: Micros = 50 * MILLISECOND;

/// Percentage of followers left behind for which a process crashes when a snapshot arrives.
const AMBUSHED_BEHIND_PERCENT: u32 = 70;

impl World {
    pub(super) fn fault(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Restart { slot } => return self.start(slot),
            Fault::Resume { slot } => {
                self.resume(slot);
                return Ok(());
            }
            Fault::ResumeClient { place } => {
                self.resume_client(place);
                return Ok(());
            }
            Fault::Mend { episode } => {
                self.mend(episode);
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
            Fault::Ambush => self.lie_in_ambush(),
            Fault::Strike { slot } => return self.crash_one(*slot),
            Fault::Wipe => self.wipe()?,
            Fault::Pause => {
                let (slot, pause) = (self.any_slot(), self.outage());
                self.pause(slot, pause);
            }
            Fault::Partition => self.partition(),
            Fault::Isolate => self.isolate_leader(),
            Fault::Estrange => self.estrange(),
            Fault::Deafen { slot, others } => return self.deafen(*slot, others),
            Fault::Forget { episode, leader, first, second } => {
                return self.forget(*episode, *leader, [*first, *second]);
            }
            Fault::ElectTwice => self.elect_twice(),
            Fault::LoseVoter { episode, leader, voter, winner } => {
                return self.lose_voter(*episode, [*leader, *voter, *winner]);
            }
            Fault::Reunite { episode, winner } => {
                self.reunite(*episode, *winner);
                return Ok(());
            }
            Fault::TransferLeader => self.transfer_leader(),
            Fault::TransferAfterRead => self.await_read(),
            Fault::HandOver { slot, range } => {
                self.hand_over_range(*slot, *range);
                return Ok(());
            }
            Fault::LeaveBehind => self.leave_behind()?,
            Fault::LookBehind { episode, slot, range } => {
                return self.look_behind(*episode, *slot, *range);
            }
            Fault::Lag => self.lag(),
            Fault::Mute { episode, slot, others } => {
                self.mute(*episode, *slot, others);
                return Ok(());
            }
            Fault::DelayClient => self.delay_client(),
            Fault::FailDisk => self.fail_disk(),
            Fault::FillDisk => self.fill_disk(),
            Fault::RemoveNode => self.remove_node(),
            Fault::SlowDisk => {
                let slot = self.any_slot();
                let slow = self.schedule.random(|rng| rng.bool());
                self.slots[slot].disk.speed = if slow { SLOW } else { self.plan.disk };
            }
            Fault::WallClockJump => {
                let slot = self.slot_of_somebody();
                let clock = &self.slots[slot].site.time_of_day;
                // A new cluster takes its first time from its oracle's clock, so no clock leaps
                // before that.
                let leaps = self.plan.liar == Some(slot);
                self.schedule.random(|rng| match rng.bool() {
                    _ if leaps && rng.bool() => {
                        clock.set_wrong_by(rng.i64(-LEAP_DAYS_MAX..=LEAP_DAYS_MAX) * DAY_MILLIS);
                    }
                    true => clock.set_wrong_by(rng.i64(-JUMP_MILLIS_MAX..=JUMP_MILLIS_MAX)),
                    false => clock.step_by(rng.i64(-STEP_MILLIS_MAX..=STEP_MILLIS_MAX)),
                });
            }
            Fault::KillClient => {
                if let Some(place) = self.client_in_transaction() {
                    self.kill_client(place);
                }
            }
            Fault::PauseClient => {
                let any = || self.schedule.random(|rng| rng.usize(0..self.clients.len()));
                let (place, pause) =
                    (self.client_in_transaction().unwrap_or_else(any), self.outage());
                self.pause_client(place, pause);
            }
            Fault::Restart { .. }
            | Fault::Resume { .. }
            | Fault::ResumeClient { .. }
            | Fault::Mend { .. }
            | Fault::FreeDisk { .. } => unreachable!("handled above"),
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

    /// Mends everything, and ends all faults.
    pub fn heal(&mut self) -> Result<()> {
        self.faults_on = false;
        self.ambush.lift();
        self.schedule.network(|network, _| {
            network.heal();
            network.set_weather(Weather::fair());
        });
        for slot in 0..self.slots.len() {
            self.slots[slot].disk.speed = Speed::GOOD;
            self.slots[slot].site.stalls = 0;
            self.slots[slot].site.heavy_read_max.store(0, Ordering::Relaxed);
            if let Some(process) = &mut self.slots[slot].process {
                process.site.stalls = 0;
            }
            self.set_space(slot, Space::Enough);
            self.resume(slot);
            self.start(slot)?;
        }
        (0..self.clients.len()).for_each(|place| self.resume_client(place));
        Ok(())
    }

    /// Keeps one node out of the cluster: the node is down, deaf, mute or cut off from the others.
    /// Half of the time it leads a range.
    pub(crate) fn leave_one_out(&mut self) -> Result<()> {
        let slot = self.slot_of_somebody();
        let others: Vec<usize> = (0..self.slots.len()).filter(|other| *other != slot).collect();
        let (hears, is_heard) = match self.schedule.random(|rng| rng.u32(0..4)) {
            0 => return self.crash(slot),
            1 => (false, true),
            2 => (true, false),
            _ => (false, false),
        };
        self.schedule.network(|network, _| {
            for other in others {
                if !hears {
                    network.cut(other, slot);
                }
                if !is_heard {
                    network.cut(slot, other);
                }
            }
        });
        Ok(())
    }

    pub(super) fn any_slot(&self) -> usize {
        self.schedule.random(|rng| rng.usize(0..self.slots.len()))
    }

    /// Draws a slot, half of the time that of a leader: where nothing leads, a wrong clock does no
    /// harm.
    fn slot_of_somebody(&self) -> usize {
        let leader = self.schedule.random(|rng| rng.bool()).then(|| self.any_leader()).flatten();
        leader.map_or_else(|| self.any_slot(), |(slot, _)| slot)
    }

    /// Draws the length of an outage: up to the maximum, a tenth or a hundredth of it, each as
    /// likely.
    pub(super) fn outage(&self) -> Micros {
        let tenths = self.schedule.between(0, 2);
        self.schedule.between(1, self.plan.outage_max / 10u64.pow(tenths as u32))
    }

    fn crash_some(&mut self) -> Result<()> {
        let all = self.schedule.random(|rng| rng.u32(0..100) < ALL_AT_ONCE);
        let one = self.any_slot();
        let mut slots = if all { 0..self.slots.len() } else { one..one + 1 };
        slots.try_for_each(|slot| self.crash_one(slot))
    }

    /// Crashes a process, which restarts after an outage.
    fn crash_one(&mut self, slot: usize) -> Result<()> {
        if self.slots[slot].up {
            self.crash(slot)?;
            let restart = Occurrence::Fault(Fault::Restart { slot });
            self.schedule.after(self.outage(), Host::World, restart);
        }
        Ok(())
    }

    fn lie_in_ambush(&mut self) {
        let moment = self.schedule.random(|rng| rng.usize(0..Moment::CRASHES.len()));
        self.ambush.lie(Moment::CRASHES[moment]);
    }

    /// Ends a follower's process, and restarts it when the leader's log begins after what the
    /// follower has. The follower then needs a snapshot, and mostly a process crashes when one
    /// arrives. An episode, so that the network lets the other replicas go on.
    fn leave_behind(&mut self) -> Result<()> {
        let Some((leader, status)) = self.any_leader() else { return Ok(()) };
        let range = status.descriptor.range_id;
        let Some(slot) = self.followers(leader, range).pop() else { return Ok(()) };
        let Some(episode) = self.begin_episode() else { return Ok(()) };
        self.schedule.network(|network, _| network.mend());
        self.crash(slot)?;
        if self.schedule.random(|rng| rng.u32(0..100) < AMBUSHED_BEHIND_PERCENT) {
            self.ambush.lie(Moment::SnapshotComes);
        }
        let restart = Occurrence::Fault(Fault::Restart { slot });
        self.schedule.after(LEFT_BEHIND_MAX, Host::World, restart);
        self.end_episode_after(episode, LEFT_BEHIND_MAX);
        self.look_behind(episode, slot, range)
    }

    fn look_behind(&mut self, episode: u64, slot: usize, range: u64) -> Result<()> {
        if !self.is_under_way(episode) {
            return Ok(());
        }
        let last = self.slots[slot].disk.log.state(range)?.map_or(0, |log| log.last_index);
        let leaves_behind = |(_, status): &(usize, RangeStatus)| {
            status.leads && status.descriptor.range_id == range && status.truncated_index > last
        };
        if self.replicas().iter().any(leaves_behind) {
            self.mend(episode);
            return self.start(slot);
        }
        let look = Occurrence::Fault(Fault::LookBehind { episode, slot, range });
        self.schedule.after(LOOK_BEHIND_EVERY, Host::World, look);
        Ok(())
    }

    /// Replaces a disk by an empty one. Once in a run: until the lost replicas are made again,
    /// another loss may be final.
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

    /// Replaces the disk by an empty one.
    pub(super) fn replace_disk(&mut self, slot: usize) {
        let directory_id = self.schedule.random(|rng| rng.u64(1..));
        self.slots[slot].disk = Disk::new(directory_id, self.plan.disk);
    }

    /// Removes a node, once in a run, as an operator would. The node comes back with an empty disk.
    fn remove_node(&mut self) {
        let slot = self.any_slot();
        let Some(process) = &self.slots[slot].process else { return };
        if self.removed.is_some() {
            return;
        }
        let node_id = process.node_id;
        self.removed = Some(node_id);
        let node = node_id.to_string();
        let worker = self.worker(0);
        self.spawn(worker.host, async move {
            // Refused if too few nodes would be left. The node then stays.
            let _ = worker.client.admin().remove_node(&node, false).await;
        });
    }

    /// Draws a leader: mostly of a user's range, because clients read those, else mostly of the
    /// control range, on which all others depend. `None` if no range has a leader.
    pub(super) fn any_leader(&self) -> Option<(usize, RangeStatus)> {
        let leaders: Vec<_> =
            self.replicas().into_iter().filter(|(_, status)| status.leads).collect();
        let users = |status: &RangeStatus| {
            status.descriptor.start_key.is_empty() || status.descriptor.end_key.is_empty()
        };
        let control = |status: &RangeStatus| status.descriptor.range_id == CONTROL_RANGE_ID;
        let among: Vec<_> = match self.schedule.random(|rng| rng.u32(0..100)) {
            ..USERS_RANGE_PERCENT => leaders.iter().filter(|(_, status)| users(status)).collect(),
            ANY_RANGE_PERCENT.. => leaders.iter().filter(|(_, status)| control(status)).collect(),
            _ => leaders.iter().collect(),
        };
        let among = if among.is_empty() { leaders.iter().collect() } else { among };
        let place =
            (!among.is_empty()).then(|| self.schedule.random(|rng| rng.usize(0..among.len())));
        place.map(|place| among[place].clone())
    }
}
