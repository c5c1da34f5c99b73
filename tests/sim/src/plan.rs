//! Plan of a world, drawn from its seed: the cluster's size, its settings, the load, and the
//! faults. Swarm testing: each seed draws the kinds of faults that it has at all. So one kind
//! dominates some runs, and no fault always hides another.

use rangedb_raftstore::Config;
use rangedb_server::node::WalkPace;

use crate::disk::Speed;
use crate::network::Weather;
use crate::occurrence::Fault;
use crate::schedule::{MILLISECOND, Micros, SECOND};
use crate::story::Story;
use crate::workload::Kind;

/// Shortest retention of old versions that can be set, in seconds.
pub(crate) const RETENTION_MIN: u64 = 5;

/// Percentage of seeds that keep old versions for `RETENTION_MIN` only, besides those of
/// `Story::OldVersions`.
const RETENTION_PERCENT: u32 = 15;

/// Percentage of seeds in which a quarter of the clients' operations are attacks.
const ATTACKED_PERCENT: u32 = 25;

/// Percentage of seeds in which the nodes' ticks differ in length.
const UNEQUAL_TICKS_PERCENT: u32 = 15;

/// Keys at which ranges of users may be split from the start. They separate a pair, the registers,
/// and the accounts of a bank.
pub(crate) const SPLIT_KEYS: [&str; 5] =
    ["%bank/account/000002", "/pair-b", "/register-1", "x/pair-b", "y/bank/account/000003"];

/// Everything that is drawn before the world begins.
#[derive(Clone, Debug)]
pub struct Plan {
    pub story: Story,
    pub shape: Shape,
    /// Keys at which ranges of users are split from the start.
    pub split_keys: Vec<&'static str>,
    /// Stores on each node.
    pub stores: usize,
    pub config: Config,
    pub weather: Weather,
    pub disk: Speed,
    /// Maximum drift of a clock, in microseconds per million.
    pub drift: u32,
    /// Maximum initial error of a node's time of day, in milliseconds.
    pub skew_millis: i64,
    pub mailbox_full: u32,
    pub stalls: u32,
    /// Percentage of starts of a process at which its disk fails while the stores open, or soon
    /// after.
    pub failed_openings: u32,
    /// Silence after which a node is taken for dead, if not the default. The replicas of a dead
    /// node are removed from their ranges. If no other node can take new ones, a wiped disk may be
    /// half of what is left, so plans with wipes keep the default.
    pub node_dead_after: Option<&'static str>,
    /// Retention of old versions in seconds; `None` for one that is longer than a run.
    pub retention_seconds: Option<u64>,
    /// Pace at which commands collect old versions. A slow pace leaves versions to compaction.
    pub walk_pace: WalkPace,
    /// Maximum time for which a snapshot waits until it is read and sent. Above 0 only where old
    /// versions are dropped: only there does the snapshot's view change in the meantime.
    pub stream_waits_max: Micros,
    /// Maximum delay of an applier's work. It stands for heavy commands of other ranges and for
    /// stalled writes.
    pub apply_max: Micros,
    /// Time that an applier takes for each record that it looks up or walks over. Each record
    /// stands for many.
    pub record_cost: Micros,
    /// Maximum delay of a heavy read.
    pub heavy_read_max: Micros,
    /// The only slot whose address the nodes that join later are given; `None` if they are given
    /// all addresses.
    pub joined_through: Option<usize>,
    /// Lengths of a tick in microseconds, of which a node draws one at each start; empty if no tick
    /// differs. Stands for timings that an operator changes one node after the other.
    pub ticks_us: Vec<u64>,
    /// Slot of a node whose time of day leaps by days, while that of a majority does not.
    pub liar: Option<usize>,
    /// Kinds of faults, each with the mean time between two of that kind.
    pub faults: Vec<(Fault, Micros)>,
    /// Maximum length of an outage, such as the time for which a node is down or paused.
    pub outage_max: Micros,
    /// Length of the safety phase.
    pub safety_phase: Micros,
    pub load: Load,
}

/// Shape of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Number of nodes on which the cluster is founded.
    pub founders: usize,
    /// Number of nodes that join later.
    pub joiners: usize,
}

impl Shape {
    pub fn nodes(self) -> usize {
        self.founders + self.joiners
    }
}

/// Load that the clients put on the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    pub clients: usize,
    /// Maximum pause between two operations of a client.
    pub pause_max: Micros,
    pub timeout_max: Micros,
    /// Maximum length of the padding of a value, in bytes.
    pub padding_max: usize,
    /// Weights of the kinds of operations, in the order of [`crate::workload::Kind::ALL`].
    pub weights: [u32; Kind::COUNT],
    /// Percentage of the operations on single keys and pairs that go to a node's gateway.
    pub gateway_percent: u32,
    /// Percentage of the transactions on lists that run under snapshot isolation.
    pub snapshot_percent: u32,
}

impl Plan {
    pub fn draw(rng: &mut fastrand::Rng) -> Plan {
        let story = Story::draw(rng);
        let growing = rng.u32(0..100) < story.growing_percent();
        let shape = match rng.u32(0..85) {
            _ if growing => Shape { founders: 1, joiners: 2 },
            0..60 => Shape { founders: 3, joiners: 0 },
            60..75 => Shape { founders: 5, joiners: 0 },
            75..80 => Shape { founders: 3, joiners: 1 },
            _ => Shape { founders: 1, joiners: 0 },
        };
        let faults = faults(rng, shape);
        let wipes = faults.iter().any(|(fault, _)| *fault == Fault::Wipe);
        let mut plan = Plan {
            story,
            shape,
            split_keys: split_keys(rng),
            stores: rng.usize(1..=2),
            config: config(rng),
            weather: weather(rng),
            disk: disk(rng),
            drift: if rng.bool() { 50_000 } else { 100 },
            skew_millis: if rng.bool() { 2_000 } else { 5 },
            mailbox_full: if rng.u32(0..4) == 0 { 100 } else { 0 },
            stalls: if rng.u32(0..3) == 0 { rng.u32(1..=50) } else { 0 },
            failed_openings: if rng.u32(0..3) == 0 { 20 } else { 0 },
            node_dead_after: (!wipes && rng.u32(0..6) == 0).then_some("3s"),
            retention_seconds: (rng.u32(0..100) < RETENTION_PERCENT).then_some(RETENTION_MIN),
            walk_pace: WalkPace::default(),
            stream_waits_max: 0,
            apply_max: 0,
            record_cost: 0,
            heavy_read_max: 0,
            joined_through: None,
            ticks_us: Vec::new(),
            liar: None,
            faults,
            outage_max: *choose(rng, &[500 * MILLISECOND, 3 * SECOND, 8 * SECOND]),
            safety_phase: rng.u64(10..=40) * SECOND,
            load: load(rng),
        };
        story.tell(&mut plan, rng);
        if plan.retention_seconds.is_some() {
            plan.safety_phase = rng.u64(25..=40) * SECOND;
            if rng.u32(0..4) != 0 {
                plan.walk_pace = WalkPace { records_in_look: 1, looks_in_round: 1 };
                plan.config.flush_log_bytes = *choose(rng, &[1 << 10, 8 << 10]);
                plan.config.log_keep_bytes = 0;
            }
            plan.stream_waits_max = *choose(rng, &[20 * MILLISECOND, 2 * SECOND, 8 * SECOND]);
            plan.load.weights[Kind::ReadForLong as usize] +=
                plan.load.weights.iter().sum::<u32>() / 10;
        }
        if rng.u32(0..100) < ATTACKED_PERCENT {
            let others = plan.load.weights.iter().sum::<u32>();
            plan.load.weights[Kind::Attack as usize] = others / 3;
        }
        plan.liar = liar(rng, &plan);
        plan.apply_max =
            *choose(rng, &[0, 0, 5 * MILLISECOND, 50 * MILLISECOND, 200 * MILLISECOND]);
        if rng.u32(0..100) < UNEQUAL_TICKS_PERCENT {
            plan.ticks_us = vec![plan.config.tick_us, 35_000, 60_000, 150_000];
        }
        plan.make_work_take_time(rng);
        plan
    }

    /// Draws the times that work takes, and the slot through which nodes join. Draws from a copy of
    /// the generator, so that seeds in which nothing takes longer keep their course.
    fn make_work_take_time(&mut self, rng: &fastrand::Rng) {
        let mut rng = rng.clone();
        self.record_cost = *choose(&mut rng, &[0, 0, 0, 100, MILLISECOND]);
        self.heavy_read_max =
            *choose(&mut rng, &[0, 0, MILLISECOND, 100 * MILLISECOND, 3 * SECOND]);
        self.joined_through = rng.bool().then(|| rng.usize(0..self.shape.founders));
    }

    /// Returns the slots whose addresses the node in this slot is started with.
    pub fn peers_of(&self, slot: usize) -> Vec<usize> {
        match self.joined_through {
            Some(one) if slot >= self.shape.founders => vec![one],
            _ => (0..self.shape.nodes()).collect(),
        }
    }
}

/// Draws the slot of the node whose clock leaps by days, if any. Draws from a copy of the
/// generator, so that seeds without one keep their course.
fn liar(rng: &fastrand::Rng, plan: &Plan) -> Option<usize> {
    let mut rng = rng.clone();
    // If nodes can be removed or taken for dead, the node that leaps may become the majority.
    let all_stay = plan.node_dead_after.is_none()
        && !plan.faults.iter().any(|(fault, _)| matches!(fault, Fault::Wipe | Fault::RemoveNode));
    let jumps = plan.faults.iter().any(|(fault, _)| *fault == Fault::WallClockJump);
    let slot = rng.usize(0..plan.shape.founders);
    (all_stay && jumps && plan.shape.founders >= 3 && rng.bool()).then_some(slot)
}

/// Draws the split keys. Draws from a copy of the generator, so that seeds that split nothing keep
/// their course.
fn split_keys(rng: &fastrand::Rng) -> Vec<&'static str> {
    let mut rng = rng.clone();
    let out_of_five = *choose(&mut rng, &[0, 0, 1, 3]);
    let mut keys: Vec<&str> =
        SPLIT_KEYS.into_iter().filter(|_| rng.u32(0..5) < out_of_five).collect();
    keys.sort_unstable();
    keys
}

fn config(rng: &mut fastrand::Rng) -> Config {
    let mut config = Config { lease_reads: rng.u32(0..5) != 0, ..Config::default() };
    if rng.bool() {
        // The log is truncated in steps of 64 KiB. If less is kept, followers that were down need
        // snapshots.
        config.flush_log_bytes = *choose(rng, &[4 << 10, 32 << 10, 128 << 10]);
        config.log_keep_bytes = *choose(rng, &[0, 32 << 10, 128 << 10]);
    }
    if rng.bool() {
        config.entry_cache_bytes = 4 << 10;
    }
    if rng.u32(0..4) == 0 {
        config.message_bytes_max = 8 << 10;
        config.inflight_messages_max = 4;
        config.entry_bytes_max = 4 << 10;
        config.apply_bytes_max = 8 << 10;
    }
    if rng.u32(0..8) == 0 {
        config.queue_bytes_max = 16 << 10;
        config.message_bytes_max = 8 << 10;
        config.uncommitted_bytes_max = 32 << 10;
    }
    config
}

fn weather(rng: &mut fastrand::Rng) -> Weather {
    let sometimes = |rng: &mut fastrand::Rng, most: u32| {
        if rng.bool() { rng.u32(1..=most) } else { 0 }
    };
    Weather {
        delay_min: 50,
        delay_max: *choose(rng, &[500, 2 * MILLISECOND, 20 * MILLISECOND]),
        lost: sometimes(rng, 500),
        repeated: sometimes(rng, 500),
        strayed: sometimes(rng, 300),
        stray_delay: *choose(rng, &[50 * MILLISECOND, SECOND, 10 * SECOND]),
        overtaking: rng.bool(),
    }
}

fn disk(rng: &mut fastrand::Rng) -> Speed {
    let sync_max = *choose(rng, &[MILLISECOND, 5 * MILLISECOND, 30 * MILLISECOND]);
    let flush_max = *choose(rng, &[10 * MILLISECOND, 200 * MILLISECOND, 3 * SECOND]);
    Speed { sync_max, flush_max }
}

fn faults(rng: &mut fastrand::Rng, shape: Shape) -> Vec<(Fault, Micros)> {
    let mut faults = Vec::new();
    // If everything fails all the time, the cluster does nothing that it could do wrongly.
    let kinds_percent = *choose(rng, &[15, 30, 50]);
    for fault in [
        Fault::Crash,
        Fault::Pause,
        Fault::Partition,
        Fault::Isolate,
        Fault::Estrange,
        Fault::TransferLeader,
        Fault::SlowDisk,
        Fault::WallClockJump,
        Fault::KillClient,
        Fault::PauseClient,
        Fault::DelayClient,
        Fault::Ambush,
        Fault::Lag,
        Fault::FailDisk,
        Fault::FillDisk,
        Fault::ElectTwice,
        Fault::TransferAfterRead,
        Fault::LeaveBehind,
    ] {
        if rng.u32(0..100) < kinds_percent {
            let mean = *choose(rng, &[SECOND, 3 * SECOND, 8 * SECOND]);
            // Many elections: leaders change before their proposals have reached all replicas.
            let often = fault == Fault::TransferLeader && rng.u32(0..3) == 0;
            faults.push((fault, if often { 150 * MILLISECOND } else { mean }));
        }
    }
    // If a second disk is lost before the replicas of the first are replaced, data may rightly be
    // lost. While a cluster grows, its founder's disk is the only one.
    if shape.founders >= 3 && rng.u32(0..4) == 0 {
        faults.push((Fault::Wipe, 10 * SECOND));
    }
    // Another node must be there to take over. Otherwise a range has a replica less, and a wiped
    // disk could be half of what is left.
    let wipes = faults.iter().any(|(fault, _)| *fault == Fault::Wipe);
    if shape.nodes() > 3 && !wipes && rng.bool() {
        faults.push((Fault::RemoveNode, 5 * SECOND));
    }
    faults
}

fn load(rng: &mut fastrand::Rng) -> Load {
    let mut weights = [10, 10, 3, 5, 5, 5, 6, 2, 2, 10, 6, 4, 1, 0];
    for weight in &mut weights {
        if rng.u32(0..4) == 0 {
            *weight = 0;
        }
    }
    // Puts always occur, so that there is data to lose.
    weights[0] = weights[0].max(2);
    Load {
        clients: rng.usize(1..=5),
        pause_max: *choose(rng, &[5 * MILLISECOND, 50 * MILLISECOND, 300 * MILLISECOND]),
        timeout_max: *choose(rng, &[SECOND, 2 * SECOND, 8 * SECOND]),
        padding_max: *choose(rng, &[0, 700, 4096, 16 << 10]),
        weights,
        gateway_percent: *choose(rng, &[0, 0, 20, 60]),
        snapshot_percent: *choose(rng, &[0, 30, 100]),
    }
}

pub(crate) fn choose<'a, T>(rng: &mut fastrand::Rng, among: &'a [T]) -> &'a T {
    &among[rng.usize(0..among.len())]
}
