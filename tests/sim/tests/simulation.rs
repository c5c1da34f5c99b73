//! The simulator as a test: seeds that once found a bug, new seeds, and some of them twice.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rangedb_sim::{Report, simulate};

/// Number of seeds of one run: half a minute on two cores, or some with `RANGEDB_LONG=1`.
const SEEDS: u64 = 300;
const SEEDS_LONG: u64 = 3000;

/// Number of seeds that are run a second time.
const SEEDS_TWICE: u64 = 20;

/// True if all seeds are to be run, and not only a sample.
fn is_long() -> bool {
    std::env::var_os("RANGEDB_LONG").is_some()
}

/// Runs all seeds on all cores and hands each report to the caller's function.
fn run_all(seeds: &[u64], each: impl Fn(&Report) + Sync) {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    each(&simulate(*seed, None));
                }
            });
        }
    });
}

/// Runs the seeds and asserts that all pass. Returns the number of keys of all seeds that were too
/// entangled to judge.
fn assert_all_pass(seeds: &[u64]) -> usize {
    let failed = Mutex::new(Vec::new());
    let undecided = AtomicUsize::new(0);
    run_all(seeds, |report| {
        undecided.fetch_add(report.undecided_keys, Ordering::Relaxed);
        if let Some(failure) = &report.failure {
            let again = "cargo run --release --workspace --bin sim -- --verbose --seed";
            let line = format!("{again} {}\n{failure:?}", report.seed);
            failed.lock().push(line);
        }
    });
    let failed = failed.into_inner();
    assert!(failed.is_empty(), "{} seeds failed:\n{}", failed.len(), failed.join("\n"));
    undecided.into_inner()
}

/// Reads the seeds of `tests/seeds/*.txt`. Each line is a seed, and what it found.
fn seeds_with_a_story() -> Vec<u64> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../seeds");
    let mut seeds = Vec::new();
    for file in std::fs::read_dir(directory).expect("the seeds are there") {
        let path = file.expect("the directory can be read").path();
        let text = std::fs::read_to_string(&path).expect("a list of seeds is text");
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let seed = line.split_whitespace().next().and_then(|word| word.parse().ok());
            seeds.push(seed.unwrap_or_else(|| panic!("no seed in {}: {line}", path.display())));
        }
    }
    seeds
}

#[test]
fn seeds_that_once_failed_pass() {
    assert_all_pass(&seeds_with_a_story());
}

#[test]
fn clusters_keep_their_promises_under_faults_and_come_back_to_work() {
    let seeds = if is_long() { SEEDS_LONG } else { SEEDS };
    let undecided = assert_all_pass(&(1..=seeds).collect::<Vec<_>>());
    assert_eq!(undecided, 0, "keys whose histories nobody could judge");
}

#[test]
fn a_seed_run_twice_gives_the_same_trace() {
    let seeds: Vec<u64> = (1..=SEEDS_TWICE).collect();
    let hashes = Mutex::new(std::collections::BTreeMap::new());
    let twice: Vec<u64> = seeds.iter().chain(&seeds).copied().collect();
    run_all(&twice, |report| {
        let mut hashes = hashes.lock();
        let first = *hashes.entry(report.seed).or_insert(report.trace_hash);
        assert_eq!(first, report.trace_hash, "seed {} went two ways", report.seed);
    });
}

#[test]
fn another_seed_gives_another_trace() {
    assert_ne!(simulate(1, None).trace_hash, simulate(2, None).trace_hash);
}
