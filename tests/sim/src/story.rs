//! Stories of seeds. Most bugs of replication and of transactions need several faults in one order
//! within a second or two. A mixture of all faults seldom gets there. So most seeds have a story: a
//! few kinds of faults that belong together strike often, settings and load fit them, and the other
//! kinds are rare.

use crate::occurrence::Fault;
use crate::plan::{Plan, RETENTION_MIN, choose};
use crate::schedule::{MILLISECOND, Micros, SECOND};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Story {
    /// No story: everything stays as drawn.
    Mixture,
    /// A leader loses its followers, or hears from them too late, and still gets reads. Tests
    /// leases and ReadIndex.
    LostLeader,
    /// Leaders change often, on a slow network, under snapshot reads and few writes. Tests votes
    /// and the end of leases.
    Elections,
    /// A leader hands over just after a snapshot read, while writes with older timestamps are in
    /// flight. Tests fences.
    Handovers,
    /// Writes are many, logs short and flushes slow, and processes crash in between. Tests
    /// truncation and snapshots.
    Logs,
    /// A follower falls so far behind that it needs a snapshot, and processes crash when one
    /// arrives. Tests the installation of snapshots.
    Snapshots,
    /// Transactions of clients that die, with late messages and wrong clocks. Tests locks and
    /// records of outcomes.
    LateClients,
    /// Versions are kept for a few seconds only, and reads take longer. Tests the GC floor and the
    /// holds on it.
    OldVersions,
}

/// Percentage of seeds that have each story; the rest are mixtures.
const SHARES: [(Story, u32); 7] = [
    (Story::LostLeader, 14),
    (Story::Elections, 10),
    (Story::Handovers, 7),
    (Story::Logs, 12),
    (Story::Snapshots, 7),
    (Story::LateClients, 12),
    (Story::OldVersions, 10),
];

/// In a story, percentage of the drawn kinds of faults outside of it that stay in the plan. Wipes
/// and removals of nodes stay always.
const OTHERS_STAY: u32 = 20;

/// Percentage of a story's own kinds of faults that strike. Some stories need all of theirs.
const OWN_STRIKE: u32 = 70;
const ALL_STRIKE: u32 = 100;

/// Mean times between two faults of a kind, of which one is drawn.
const ALWAYS: &[Micros] = &[300 * MILLISECOND, SECOND];
const OFTEN: &[Micros] = &[700 * MILLISECOND, 2 * SECOND];
/// Long enough for work to go on in between.
const SELDOM: &[Micros] = &[3 * SECOND, 6 * SECOND];
/// Long enough for a control plane to raise the floor in between.
const RARELY: &[Micros] = &[15 * SECOND];

impl Story {
    pub fn draw(rng: &mut fastrand::Rng) -> Story {
        let mut drawn = rng.u32(0..100);
        for (story, share) in SHARES {
            if drawn < share {
                return story;
            }
            drawn -= share;
        }
        Story::Mixture
    }

    /// Percentage of clusters that grow from one node. In these all replicas but the first come as
    /// snapshots.
    pub fn growing_percent(self) -> u32 {
        if self == Story::Logs { 40 } else { 15 }
    }

    fn own_strike(self) -> u32 {
        match self {
            Story::Handovers | Story::Snapshots => ALL_STRIKE,
            _ => OWN_STRIKE,
        }
    }

    /// Kinds of faults of the story, each with the mean times between two of which one is drawn.
    fn faults(self) -> &'static [(Fault, &'static [Micros])] {
        match self {
            Story::Mixture => &[],
            Story::LostLeader => &[
                (Fault::Isolate, OFTEN),
                (Fault::Lag, OFTEN),
                (Fault::Estrange, OFTEN),
                (Fault::WallClockJump, OFTEN),
            ],
            Story::Elections => &[
                (Fault::TransferLeader, ALWAYS),
                (Fault::DelayClient, OFTEN),
                (Fault::Isolate, SELDOM),
                (Fault::ElectTwice, SELDOM),
            ],
            Story::Handovers => &[(Fault::TransferAfterRead, ALWAYS), (Fault::DelayClient, OFTEN)],
            Story::Logs => &[
                (Fault::Ambush, OFTEN),
                (Fault::Crash, SELDOM),
                (Fault::Pause, SELDOM),
                (Fault::Partition, SELDOM),
            ],
            Story::Snapshots => &[(Fault::LeaveBehind, OFTEN)],
            Story::OldVersions => &[
                (Fault::TransferLeader, SELDOM),
                (Fault::DelayClient, SELDOM),
                (Fault::PauseClient, SELDOM),
                (Fault::Pause, SELDOM),
                (Fault::Isolate, RARELY),
                (Fault::Crash, RARELY),
                (Fault::LeaveBehind, SELDOM),
            ],
            Story::LateClients => &[
                (Fault::DelayClient, OFTEN),
                (Fault::KillClient, OFTEN),
                (Fault::PauseClient, OFTEN),
                (Fault::WallClockJump, OFTEN),
                (Fault::Partition, SELDOM),
            ],
        }
    }

    /// Adapts the drawn plan to the story.
    pub fn tell(self, plan: &mut Plan, rng: &mut fastrand::Rng) {
        if self == Story::Mixture {
            return;
        }
        let own = self.faults();
        let mut stays = |fault: &Fault| {
            let rare = matches!(fault, Fault::Wipe | Fault::RemoveNode);
            rare || (own.iter().all(|(own, _)| own != fault) && rng.u32(0..100) < OTHERS_STAY)
        };
        plan.faults.retain(|(fault, _)| stays(fault));
        let (config, load) = (&mut plan.config, &mut plan.load);
        // Weights are in the order of `Kind::ALL`.
        match self {
            Story::Mixture => {}
            Story::LostLeader => {
                config.lease_reads = rng.u32(0..5) != 0;
                load.weights = [5, 20, 1, 1, 1, 1, 3, 4, 1, 1, 1, 1, 0, 0];
                load.timeout_max = SECOND;
            }
            Story::Elections => {
                plan.weather.delay_max = *choose(rng, &[2 * MILLISECOND, 10 * MILLISECOND]);
                load.weights = [4, 2, 1, 0, 1, 0, 8, 0, 8, 0, 0, 0, 0, 0];
                load.timeout_max = 4 * SECOND;
            }
            Story::Handovers => {
                plan.weather.delay_max = *choose(rng, &[2 * MILLISECOND, 20 * MILLISECOND]);
                plan.disk.sync_max = MILLISECOND;
                load.weights = [8, 1, 1, 1, 2, 1, 4, 0, 1, 0, 0, 0, 0, 0];
                load.timeout_max = 4 * SECOND;
            }
            Story::Snapshots => {
                config.flush_log_bytes = 4 << 10;
                config.log_keep_bytes = 0;
                plan.disk.flush_max = *choose(rng, &[200 * MILLISECOND, SECOND]);
                plan.disk.sync_max = MILLISECOND;
                plan.weather.delay_max = 500;
                load.weights = [10, 2, 2, 2, 6, 2, 1, 1, 0, 2, 1, 1, 0, 0];
                load.padding_max = 16 << 10;
                load.timeout_max = SECOND;
            }
            Story::Logs => {
                config.flush_log_bytes = *choose(rng, &[4 << 10, 32 << 10, 128 << 10]);
                config.log_keep_bytes = *choose(rng, &[0, 0, 64 << 10]);
                plan.disk.flush_max = *choose(rng, &[200 * MILLISECOND, 3 * SECOND]);
                plan.disk.sync_max = MILLISECOND;
                plan.weather.delay_max = 500;
                load.weights = [10, 2, 2, 2, 6, 2, 1, 1, 0, 2, 1, 1, 0, 0];
                load.padding_max = *choose(rng, &[4 << 10, 16 << 10]);
            }
            Story::LateClients => {
                load.weights = [1, 1, 0, 0, 1, 0, 1, 1, 1, 12, 8, 3, 0, 0];
                load.snapshot_percent = *choose(rng, &[0, 50, 100]);
            }
            Story::OldVersions => {
                plan.retention_seconds = Some(RETENTION_MIN);
                load.weights = [10, 2, 4, 2, 4, 2, 6, 1, 3, 3, 2, 1, 2, 0];
            }
        }
        load.clients = rng.usize(3..=5);
        load.pause_max = *choose(rng, &[5 * MILLISECOND, 50 * MILLISECOND]);
        for (fault, means) in own {
            if rng.u32(0..100) < self.own_strike() {
                plan.faults.push((fault.clone(), *choose(rng, means)));
            }
        }
    }
}
