//! Faults while leaders change: votes that a crash could make somebody forget, elections that not
//! everybody sees, and a leader that gives up just when it has promised something.
//!
//! All wait for their moment (`ambush.rs`), because what they need of each other's timing is too much
//! to be left to chance.

use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{RangeOperation, TransferLeader, range_operation::Body};
use rangedb_raftstore::RangeStatus;
use rangedb_server::founding::CONTROL_RANGE_ID;
use rangedb_storage::Result;

use crate::ambush::{Moment, Snare};
use crate::network::Lag;
use crate::occurrence::{Fault, Host, Occurrence};
use crate::schedule::{MILLISECOND, Micros, SECOND};
use crate::world::World;

/// Of 100 leaders that are told to hand over, how many hear nothing any more a moment later.
const DEAF_AFTER_TRANSFER: u32 = 30;

/// Of 100 estranged followers, how many are the control range's in any case.
const ESTRANGED_FROM_CONTROL_PERCENT: u32 = 70;

/// A process that restarts at once is back within this time.
const RESTART_AT_ONCE_MAX: Micros = 50 * MILLISECOND;

/// A vote that is asked for takes so long at most that whoever restarts at once is back for it.
const ASKS_FOR_MAX: Micros = 2 * RESTART_AT_ONCE_MAX;

/// A replica that hears of no leader asks for votes within two seconds, and after as much again.
const ELECTION_MAX: Micros = 4 * SECOND;

/// From a vote's leaving to the voter's crash, at most: less than most syncs take.
const CRASH_AFTER_VOTE_MAX: Micros = MILLISECOND / 5;

/// From a read to the order to hand over, at most: the answer may be given by then or not.
const TRANSFER_AFTER_READ_MAX: Micros = 5 * MILLISECOND;

impl World {
    /// Two followers are needed: one that is kept away until it would like to lead, and one that
    /// keeps its promise meanwhile. Who misses a write cannot lead any more, so they are mostly the
    /// control range's, which is often read and seldom written.
    pub(crate) fn estrange(&mut self) {
        let leads_control =
            |status: &RangeStatus| status.leads && status.descriptor.range_id == CONTROL_RANGE_ID;
        let of_control = self.replicas().into_iter().find(|(_, status)| leads_control(status));
        let any = self.any_leader();
        let control = self.schedule.random(|rng| rng.u32(0..100) < ESTRANGED_FROM_CONTROL_PERCENT);
        let Some((leader, status)) = (if control { of_control } else { any }) else { return };
        let range = status.descriptor.range_id;
        let [first, second] = self.followers(leader, range)[..] else { return };
        let Some(episode) = self.begin_episode() else { return };
        let by = self.schedule.between(RESTART_AT_ONCE_MAX, ASKS_FOR_MAX);
        let since = self.schedule.now();
        self.schedule.network(|network, _| {
            network.mend();
            network.cut(leader, first);
            network.cut(first, leader);
            let until = since + ELECTION_MAX;
            network.lag(first, second, Lag { since, until, by, grows: false });
        });
        self.ambush.lay(Snare {
            moment: Moment::VoteIsAsked,
            slot: Some(first),
            range: Some(range),
            delay_max: MILLISECOND,
            fault: Box::new(move |_| Fault::Forget { episode, leader, first, second }),
        });
        self.end_episode_after(episode, ELECTION_MAX);
    }

    /// The first follower has asked for votes, and the second one restarts before it hears of it.
    pub(crate) fn forget(
        &mut self,
        episode: u64,
        leader: usize,
        [first, second]: [usize; 2],
    ) -> Result<()> {
        let Some(episode) = self.go_on(episode) else { return Ok(()) };
        self.cut_off(leader);
        let now = self.schedule.now();
        let over = Lag { since: now, until: now, by: 0, grows: false };
        self.schedule.network(|network, _| network.lag(first, second, over));
        self.restart_at_once(second)?;
        self.end_episode_after(episode, self.schedule.between(SECOND, 3 * SECOND));
        Ok(())
    }

    /// A leader is cut off, so that it does not see how the others elect another one. As soon as one
    /// of them has voted, it crashes, and nobody hears the new leader any more ([`World::lose_voter`]).
    /// Then those two who are left elect a leader without it: they have the same term for it unless
    /// the vote was kept.
    pub(crate) fn elect_twice(&mut self) {
        let Some((leader, status)) = self.any_leader() else { return };
        let range = status.descriptor.range_id;
        let [_, _] = self.followers(leader, range)[..] else { return };
        let Some(episode) = self.begin_episode() else { return };
        self.schedule.network(|network, _| network.mend());
        self.cut_off(leader);
        self.ambush.lay(Snare {
            moment: Moment::VoteIsGiven,
            slot: None,
            range: Some(range),
            delay_max: CRASH_AFTER_VOTE_MAX,
            fault: Box::new(move |came| {
                let (voter, winner) = (came.slot, came.other.unwrap_or(came.slot));
                Fault::LoseVoter { episode, leader, voter, winner }
            }),
        });
        self.end_episode_after(episode, ELECTION_MAX);
    }

    /// The old leader stays alone until it gives up, and the new one for longer.
    pub(crate) fn lose_voter(
        &mut self,
        episode: u64,
        [leader, voter, winner]: [usize; 3],
    ) -> Result<()> {
        let Some(episode) = self.go_on(episode) else { return Ok(()) };
        self.cut_off(leader);
        self.cut_off(winner);
        self.restart_at_once(voter)?;
        let reunite = Fault::Reunite { episode, winner };
        let gives_up = self.schedule.between(500 * MILLISECOND, 1_500 * MILLISECOND);
        self.schedule.after(gives_up, Host::World, Occurrence::Fault(reunite));
        Ok(())
    }

    /// All but one hear each other again.
    pub(crate) fn reunite(&mut self, episode: u64, winner: usize) {
        let Some(episode) = self.go_on(episode) else { return };
        self.schedule.network(|network, _| network.mend());
        self.cut_off(winner);
        self.end_episode_after(episode, self.schedule.between(2 * SECOND, ELECTION_MAX));
    }

    /// Where the range's other replicas are, in any order.
    pub(crate) fn followers(&self, leader: usize, range: u64) -> Vec<usize> {
        let replicas = self.replicas().into_iter();
        let others = replicas
            .filter(|(slot, status)| *slot != leader && status.descriptor.range_id == range);
        let mut slots: Vec<usize> = others.map(|(slot, _)| slot).collect();
        self.schedule.random(|rng| rng.shuffle(&mut slots));
        slots
    }

    fn restart_at_once(&mut self, slot: usize) -> Result<()> {
        self.crash(slot)?;
        let restart = Occurrence::Fault(Fault::Restart { slot });
        self.schedule.after(self.schedule.between(1, RESTART_AT_ONCE_MAX), Host::World, restart);
        Ok(())
    }

    /// As an operator would: some range's leader is told to hand over.
    pub(crate) fn transfer_leader(&mut self) {
        let Some((leader, status)) = self.any_leader() else { return };
        if self.schedule.random(|rng| rng.u32(0..100) < DEAF_AFTER_TRANSFER) {
            // It has told its successor, and hears nothing of what that does.
            let others = (0..self.slots.len()).filter(|other| *other != leader);
            let cut = self.schedule.between(MILLISECOND, 10 * MILLISECOND);
            let deafen = Fault::Deafen { slot: leader, others: others.collect() };
            self.schedule.after(cut, Host::World, Occurrence::Fault(deafen));
        }
        self.hand_over(leader, &status);
    }

    /// The next leader that is asked what it held at a timestamp is told to hand over right then.
    pub(crate) fn await_read(&self) {
        self.ambush.lay(Snare {
            moment: Moment::PastIsRead,
            slot: None,
            range: None,
            delay_max: TRANSFER_AFTER_READ_MAX,
            fault: Box::new(|came| Fault::HandOver {
                slot: came.slot,
                range: came.range.unwrap_or_default(),
            }),
        });
    }

    pub(crate) fn hand_over_range(&mut self, slot: usize, range: u64) {
        let leads = |(at, status): &(usize, RangeStatus)| {
            *at == slot && status.leads && status.descriptor.range_id == range
        };
        if let Some((slot, status)) = self.replicas().into_iter().find(leads) {
            self.hand_over(slot, &status);
        }
    }

    fn hand_over(&mut self, slot: usize, status: &RangeStatus) {
        let body = Some(Body::TransferLeader(TransferLeader { to_replica_id: 0 }));
        let epoch = Some(status.descriptor.epoch());
        let operation = RangeOperation { range_id: status.descriptor.range_id, epoch, body };
        let slot = &self.slots[slot];
        let Some(process) = &slot.process else { return };
        let handle = process.handle.clone();
        let host = Host::Process { slot: slot.site.slot, life: slot.life };
        // A refusal is as good: the next fault finds another range.
        self.spawn(host, async move { drop(handle.operate(operation).await) });
    }
}
