//! Faults of the network: partitions and late messages, for a while.
//!
//! Some of these faults take several steps, one after the other (an *episode*). While one is under
//! way, most others wait. So not every episode is cut short, and only its own end mends it.

use rangedb_storage::Result;

use crate::network::Lag;
use crate::occurrence::{Fault, Host, Occurrence};
use crate::plan::choose;
use crate::schedule::{MILLISECOND, Micros, SECOND};
use crate::world::World;

/// Percentage of the episodes drawn while another is under way that do not begin.
const WAITS_PERCENT: u32 = 95;

/// Maximum additional delay of messages on a slow link: longer than an election takes to begin.
const LAG_MAX: Micros = 2_500 * MILLISECOND;

/// Time after which a lag has surely grown to its full length.
fn grown(by: Micros) -> Micros {
    by + by / 4
}

/// Maximum additional delay of a client's requests: longer than most clients wait.
const CLIENT_LAG_MAX: Micros = 6 * SECOND;

/// Maximum time for which a client's requests are delayed.
const CLIENT_LAGS_FOR_MAX: Micros = 2 * SECOND;

impl World {
    /// Begins an episode and returns its number. `None` if another episode goes on instead.
    pub(crate) fn begin_episode(&mut self) -> Option<u64> {
        let waits = self.schedule.random(|rng| rng.u32(0..100) < WAITS_PERCENT);
        if self.in_episode && waits {
            return None;
        }
        self.in_episode = true;
        self.episode += 1;
        Some(self.episode)
    }

    pub(crate) fn end_episode_after(&self, episode: u64, delay: Micros) {
        let mend = Occurrence::Fault(Fault::Mend { episode });
        self.schedule.after(delay, Host::World, mend);
    }

    pub(crate) fn is_under_way(&self, episode: u64) -> bool {
        self.in_episode && self.episode == episode
    }

    /// Begins the next step of an episode and returns its number. The number is new, so that the
    /// end scheduled for the earlier step has no effect. `None` if the episode is over.
    pub(crate) fn go_on(&mut self, episode: u64) -> Option<u64> {
        if !self.is_under_way(episode) {
            return None;
        }
        self.episode += 1;
        Some(self.episode)
    }

    pub(crate) fn mend(&mut self, episode: u64) {
        if self.is_under_way(episode) {
            self.in_episode = false;
            self.schedule.network(|network, _| network.mend());
        }
    }

    /// Draws the length of a partition: half of the time that of an outage, else about that of an
    /// election.
    fn absence(&self) -> Micros {
        match self.schedule.random(|rng| rng.bool()) {
            true => self.outage(),
            false => self.schedule.between(SECOND, 4 * SECOND),
        }
    }

    pub(crate) fn partition(&mut self) {
        let nodes = self.slots.len();
        let places = self.slots.len() + self.plan.load.clients;
        let Some(episode) = self.begin_episode() else { return };
        self.schedule.network(|network, rng| {
            network.mend();
            let shape = rng.u32(0..5);
            let alone = rng.usize(0..places);
            let side: Vec<bool> = (0..places).map(|_| rng.bool()).collect();
            for from in 0..places {
                for to in (0..places).filter(|to| *to != from) {
                    let cut = match shape {
                        0 => from == alone || to == alone,
                        // One place is mute, or one is deaf.
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
        self.end_episode_after(episode, self.absence());
    }

    /// Cuts a leader's links to the other nodes. Clients reach all nodes.
    pub(crate) fn isolate_leader(&mut self) {
        let Some((leader, _)) = self.any_leader() else { return };
        let Some(episode) = self.begin_episode() else { return };
        self.cut_off(leader);
        self.end_episode_after(episode, self.absence());
    }

    pub(crate) fn cut_off(&mut self, slot: usize) {
        let others = self.others(slot);
        self.schedule.network(|network, _| {
            for other in others {
                network.cut(slot, other);
                network.cut(other, slot);
            }
        });
    }

    fn others(&self, slot: usize) -> Vec<usize> {
        (0..self.slots.len()).filter(|other| *other != slot).collect()
    }

    /// Delays the answers to a leader more and more, then makes the leader mute. Answers that the
    /// leader gets after that are from the time when it was followed.
    pub(crate) fn lag(&mut self) {
        let Some((leader, _)) = self.any_leader() else { return };
        let Some(episode) = self.begin_episode() else { return };
        let others = self.others(leader);
        let by = self.schedule.between(200 * MILLISECOND, LAG_MAX);
        let lag = Lag { since: self.schedule.now(), until: Micros::MAX, by, grows: true };
        self.schedule.network(|network, _| {
            network.mend();
            others.iter().for_each(|other| network.lag(*other, leader, lag));
        });
        let delay = grown(by) + self.schedule.between(0, SECOND);
        let mute = Fault::Mute { episode, slot: leader, others };
        self.schedule.after(delay, Host::World, Occurrence::Fault(mute));
    }

    pub(crate) fn mute(&mut self, episode: u64, slot: usize, others: &[usize]) {
        if self.is_under_way(episode) {
            self.schedule.network(|network, _| {
                others.iter().for_each(|other| network.cut(slot, *other));
            });
            self.end_episode_after(episode, self.schedule.between(SECOND, 5 * SECOND));
        }
    }

    pub(crate) fn deafen(&mut self, slot: usize, others: &[usize]) -> Result<()> {
        let Some(episode) = self.begin_episode() else { return Ok(()) };
        self.schedule.network(|network, _| {
            others.iter().for_each(|other| network.cut(*other, slot));
        });
        self.end_episode_after(episode, self.absence());
        Ok(())
    }

    /// Delays what one client sends for a while, to all nodes or to one.
    pub(crate) fn delay_client(&mut self) {
        let nodes = self.slots.len();
        let since = self.schedule.now();
        let clients = self.plan.load.clients;
        self.schedule.network(|network, rng| {
            let place = nodes + rng.usize(0..clients);
            let slots = if rng.bool() {
                0..nodes
            } else {
                let one = rng.usize(0..nodes);
                one..one + 1
            };
            let until = since + rng.u64(MILLISECOND..=CLIENT_LAGS_FOR_MAX);
            // Short delays are as likely as delays a hundred times as long.
            let most = CLIENT_LAG_MAX / *choose(rng, &[1, 10, 100]);
            let by = rng.u64(MILLISECOND..=most);
            let lag = Lag { since, until, by, grows: false };
            slots.for_each(|slot| network.lag(place, slot, lag));
        });
    }
}
