//! One run: a safety phase, a liveness phase, and the judgement.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use rangedb_client::Timestamp;
use rangedb_proto::v1::RangeDescriptor;

use crate::check::{self, Verdict};
use crate::history::{Operation, Records, Value};
use crate::liveness::{LIVENESS_BOUND, agrees, is_fully_replicated};
use crate::schedule::{MILLISECOND, Micros};
use crate::story::Story;
use crate::trace::Lines;
use crate::workload;
use crate::world::World;

/// Time between two checks of a condition that the run waits for.
const LOOK_EVERY: Micros = 20 * MILLISECOND;

/// Maximum number of snapshot reads that are repeated at the end.
const REREAD_MAX: usize = 60;

/// Reason why a run failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The code under test panicked.
    Crash(String),
    /// The cluster did not come back to work in time.
    Liveness(String),
    /// The cluster did what it must never do.
    Safety(String),
}

/// Result of a run, with its figures.
#[derive(Clone, Debug)]
pub struct Report {
    pub seed: u64,
    /// Story of the seed.
    pub story: Story,
    pub trace_hash: u64,
    pub simulated: Duration,
    pub occurrences: u64,
    pub crashes: u64,
    pub elections: usize,
    pub commands: usize,
    pub snapshots: u64,
    pub operations: usize,
    pub unknown: usize,
    pub refused: u64,
    /// Operations refused for a timestamp below the GC floor, not counted in `refused`. The next
    /// two: rises of that floor, and records that commands dropped.
    pub too_old: u64,
    pub floors: u64,
    pub dropped: u64,
    /// Records that compaction dropped, summed over the nodes.
    pub compacted: u64,
    /// Transactions on lists and transfers of the bank that are known to have committed.
    pub transactions: usize,
    /// Keys whose histories were too entangled to judge.
    pub undecided_keys: usize,
    pub failure: Option<Failure>,
}

thread_local! {
    /// The last panic of this thread, with its source location.
    static PANIC: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
}

/// Keeps panics of simulations for the report instead of printing them: they are findings.
fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let simulating = SIMULATING.with(|simulating| simulating.get());
            if simulating {
                PANIC.with(|panic| *panic.borrow_mut() = Some(info.to_string()));
            } else {
                default(info);
            }
        }));
    });
}

thread_local! {
    static SIMULATING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs the world of a seed to its end. Lines of the trace go to `lines`, if it is given.
pub fn simulate(seed: u64, lines: Option<Lines>) -> Report {
    keep_panics();
    SIMULATING.with(|simulating| simulating.set(true));
    let mut world = World::new(seed, lines);
    let outcome = catch_unwind(AssertUnwindSafe(|| Run { world: &mut world, undecided: 0 }.run()));
    SIMULATING.with(|simulating| simulating.set(false));
    let (undecided_keys, failure) = match outcome {
        Ok(done) => done,
        Err(_) => {
            let what = PANIC.with(|panic| panic.borrow_mut().take()).unwrap_or_default();
            (0, Some(Failure::Crash(what)))
        }
    };
    // Random numbers that were drawn outside of any occurrence become part of the hash here.
    let drawn = world.schedule.random(|rng| rng.u64(..));
    world.schedule.trace_word(drawn);
    let report = report(seed, &world, undecided_keys, failure);
    if matches!(report.failure, Some(Failure::Crash(_))) {
        // The world's locks may be poisoned: dropping it could panic again.
        std::mem::forget(world);
    }
    report
}

fn report(seed: u64, world: &World, undecided_keys: usize, failure: Option<Failure>) -> Report {
    let (mut counts, mut garbage) = ((0, 0), (0, 0, 0));
    world.watch.note(|checks| {
        garbage = checks.floor.counts();
        counts = (checks.leaders.elections(), checks.applies.commands());
        Ok(())
    });
    let stores = world.slots.iter().filter_map(|slot| slot.process.as_ref());
    let stores = stores.flat_map(|process| process.stores());
    let records = world.common.history.records();
    Report {
        seed,
        story: world.plan.story,
        trace_hash: world.schedule.trace_hash(),
        simulated: Duration::from_micros(world.schedule.now()),
        occurrences: world.schedule.occurrences(),
        crashes: world.crashes,
        elections: counts.0,
        commands: counts.1,
        snapshots: stores.map(|store| store.counters().snapshots_received).sum(),
        operations: records.operations.len(),
        unknown: records.operations.iter().filter(|(_, op)| op.returned.is_none()).count(),
        refused: records.refused,
        too_old: records.too_old,
        floors: garbage.0,
        dropped: garbage.1,
        compacted: garbage.2,
        transactions: world.common.transactions.committed(),
        undecided_keys,
        failure,
    }
}

pub(crate) struct Run<'a> {
    pub world: &'a mut World,
    undecided: usize,
}

pub(crate) type Step = Result<(), Failure>;

/// Failure for a storage error that the world returned.
pub(crate) fn of_the_world(error: rangedb_storage::Error) -> Failure {
    Failure::Safety(error.to_string())
}

impl Run<'_> {
    fn run(mut self) -> (usize, Option<Failure>) {
        let failure = self.phases().err();
        (self.undecided, failure)
    }

    fn phases(&mut self) -> Step {
        let end = self.world.plan.safety_phase;
        self.run_until(end, |world| world.schedule.now() >= end)?;
        self.empty_full_disks()?;
        self.go_on_without_a_minority()?;
        self.world.schedule.remark(|| "--- everything is mended ---".to_owned());
        self.world.heal().map_err(of_the_world)?;

        let deadline = self.world.schedule.now() + LIVENESS_BOUND;
        self.wait_for_writes(deadline)?;
        self.wait_until(deadline, "every range is fully replicated", is_fully_replicated)?;
        self.world.stop_clients();
        let stopped = |world: &World| world.common.active.load(Ordering::Relaxed) == 0;
        self.wait_until(deadline, "every client's operation ends", stopped)?;
        let directory = self.read_everything(deadline)?;
        self.wait_until(deadline, "all replicas stand at the same entry", agrees)?;
        self.world.compare().map_err(of_the_world)?;
        self.safety(self.world.watch.violation().map_or(Ok(()), Err))?;
        self.safety(check::ranges_cover::check(&directory))?;
        self.judge()
    }

    /// Runs the world until the condition holds. False if the deadline passed first.
    pub fn run_until(
        &mut self,
        deadline: Micros,
        is_so: impl Fn(&World) -> bool,
    ) -> Result<bool, Failure> {
        let mut look_at = 0;
        loop {
            let now = self.world.schedule.now();
            if now >= look_at {
                if is_so(self.world) {
                    return Ok(true);
                }
                look_at = now + LOOK_EVERY;
            }
            if now > deadline {
                return Ok(false);
            }
            assert!(self.world.step(), "ticks go on for ever");
            if let Some(wrong) = self.world.watch.violation() {
                return Err(Failure::Safety(wrong));
            }
        }
    }

    /// Reads every key once more, repeats snapshot reads, and returns the directory.
    fn read_everything(&mut self, deadline: Micros) -> Result<Vec<RangeDescriptor>, Failure> {
        let worker = self.world.worker(0);
        let done = Arc::new(AtomicBool::new(false));
        let directory = Arc::new(Mutex::new(Vec::new()));
        let (finished, found) = (done.clone(), directory.clone());
        let again: Vec<(String, u64)> = {
            let records = self.world.common.history.records();
            let step = records.snapshot_reads.len().div_ceil(REREAD_MAX).max(1);
            let reads = records.snapshot_reads.iter().step_by(step);
            reads.map(|read| (read.key.clone(), read.at)).collect()
        };
        self.world.spawn(worker.host, async move {
            for key in workload::all_keys() {
                while worker.get(&key).await.is_none() {}
            }
            for (key, at) in again {
                while !worker.repeat(&key, Timestamp(at)).await {}
            }
            worker.common.transactions.read_end(&worker.client, 0).await;
            let admin = worker.client.admin();
            let mut partitions = std::pin::pin!(admin.partitions());
            while let Some(Ok(partition)) = partitions.next().await {
                let descriptor = partition.report.and_then(|report| report.descriptor);
                found.lock().extend(descriptor);
            }
            finished.store(true, Ordering::Relaxed);
        });
        self.wait_until(deadline, "everything can be read", move |_| done.load(Ordering::Relaxed))?;
        let directory = directory.lock().clone();
        Ok(directory)
    }

    fn safety(&self, verdict: Verdict) -> Step {
        verdict.map_err(Failure::Safety)
    }

    /// Checks the properties that need whole histories.
    fn judge(&mut self) -> Step {
        let history = self.world.common.history.clone();
        let records = history.records();
        self.safety(check::versions::check(&records.seen, &records.acknowledged))?;
        self.safety(check::snapshot_reads::check(
            &records.snapshot_reads,
            &records.acknowledged,
            &records.unknown_deletes,
        ))?;
        self.safety(check::batches::check(&records.pair_reads))?;
        self.safety(self.world.common.transactions.judge())?;
        let by_key = by_key(&records);
        for (key, operations) in &by_key {
            match check::linearizable::check(key, operations) {
                Ok(check::linearizable::Search::Complete) => {}
                Ok(check::linearizable::Search::GaveUp) => self.undecided += 1,
                Err(wrong) => return Err(Failure::Safety(wrong)),
            }
        }
        for (key, increments) in &records.counters {
            let last = by_key.get(&**key).and_then(|operations| last_read(operations));
            let stands_at = last.unwrap_or_default().unwrap_or_default();
            self.safety(check::counters::check(key, *increments, stands_at))?;
        }
        Ok(())
    }
}

fn by_key(records: &Records) -> BTreeMap<&str, Vec<Operation>> {
    let mut by_key: BTreeMap<&str, Vec<Operation>> = BTreeMap::new();
    for (key, operation) in &records.operations {
        by_key.entry(key).or_default().push(*operation);
    }
    by_key
}

/// Value that the last operation on a key returned. That operation is a read, because everything is
/// read at the end.
fn last_read(operations: &[Operation]) -> Option<Value> {
    match operations.last()?.returned? {
        (_, crate::history::Output::Value(value)) => Some(value),
        _ => None,
    }
}
