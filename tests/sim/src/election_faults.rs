//! Faults while leaders change: a crash that could make a replica forget its vote, an election that
//! not all replicas see, and a leader that hands over just after it made a promise.
//!
//! Most of these faults wait for their moment (`ambush.rs`), because chance seldom meets the timing
//! that they need.

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

/// Percentage of the leaders told to hand over that hear nothing a moment later.
const DEAF_AFTER_TRANSFER: u32 = 30;

/// Percentage of the estranged followers that are the control range's in any case.
const ESTRANGED_FROM_CONTROL_PERCENT: u32 = 70;

/// Maximum time until a process that restarts at once is back.
const RESTART_AT_ONCE_MAX: Micros = 50 * MILLISECOND;

/// Maximum delay of a vote request. The minimum is `RESTART_AT_ONCE_MAX`, so that a process that
/// restarts at once is back before the request arrives.
const ASKS_FOR_MAX: Micros = 2 * RESTART_AT_ONCE_MAX;

/// Maximum time until a replica without a leader has asked for votes twice, two seconds for each.
const ELECTION_MAX: Micros = 4 * SECOND;

/// Maximum time from the sending of a vote to the voter's crash: less than most syncs take.
const CRASH_AFTER_VOTE_MAX: Micros = MILLISECOND / 5;

/// Maximum time from a read to the order to hand over. The answer may have been given by then.
const TRANSFER_AFTER_READ_MAX: Micros = 5 * MILLISECOND;

impl World {
    /// Keeps a follower from its leader until the follower asks for votes; then [`World::forget`]
    /// goes on. A second follower keeps its vote promise meanwhile. A follower that misses a write
    /// cannot be elected. So the range is mostly the control range, which is often read and seldom
    /// written.
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

    /// Isolates the leader, and restarts the second follower before the first one's vote request
    /// arrives.
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

    /// Isolates a leader while the others elect a new one. As soon as one of them has voted, the
    /// voter crashes, and nobody hears the new leader any more ([`World::lose_voter`]). Then the
    /// old leader and the voter elect a leader without it. Both elections have the same term,
    /// unless the vote was kept.
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

    /// Cuts the winner off and restarts the voter. The old leader stays alone until it steps down,
    /// and the winner for longer.
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

    /// Mends the network for all nodes but the winner.
    pub(crate) fn reunite(&mut self, episode: u64, winner: usize) {
        let Some(episode) = self.go_on(episode) else { return };
        self.schedule.network(|network, _| network.mend());
        self.cut_off(winner);
        self.end_episode_after(episode, self.schedule.between(2 * SECOND, ELECTION_MAX));
    }

    /// Returns the slots of the range's other replicas, in random order.
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

    /// Tells the leader of some range to hand over, as an operator would.
    pub(crate) fn transfer_leader(&mut self) {
        let Some((leader, status)) = self.any_leader() else { return };
        if self.schedule.random(|rng| rng.u32(0..100) < DEAF_AFTER_TRANSFER) {
            // By then the leader has told its successor, and hears nothing of what the successor
            // does.
            let others = (0..self.slots.len()).filter(|other| *other != leader);
            let cut = self.schedule.between(MILLISECOND, 10 * MILLISECOND);
            let deafen = Fault::Deafen { slot: leader, others: others.collect() };
            self.schedule.after(cut, Host::World, Occurrence::Fault(deafen));
        }
        self.hand_over(leader, &status);
    }

    /// Makes the next leader that serves a snapshot read hand over right then.
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
        // A refusal does no harm: the next fault finds another range.
        self.spawn(host, async move { drop(handle.operate(operation).await) });
    }
}
