//! Whether the net catches fish: runs seeds with a bug planted, until enough of them failed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rangedb_planted::{Bug, plant};

use crate::{Failure, Report, simulate};

/// How a bug was hunted.
#[derive(Clone, Debug)]
pub struct Hunt {
    pub bug: Bug,
    /// Seeds that were run, from 1 on.
    pub seeds: u64,
    /// Those that failed, ascending, with what was wrong.
    pub found: Vec<(u64, Failure)>,
}

impl Hunt {
    /// How many seeds it takes to find the bug, as a rule: the median of the distances from one
    /// seed that found it to the next. None if none did.
    pub fn median_seeds(&self) -> Option<u64> {
        let mut before = 0;
        let distance = |(seed, _): &(u64, Failure)| seed - std::mem::replace(&mut before, *seed);
        let mut distances: Vec<u64> = self.found.iter().map(distance).collect();
        distances.sort_unstable();
        distances.get(distances.len() / 2).copied()
    }
}

/// Runs a seed with a bug planted, or none.
pub fn simulate_planted(seed: u64, bug: Option<Bug>) -> Report {
    plant(bug);
    let report = simulate(seed, None);
    plant(None);
    report
}

/// Runs the seeds from 1 on, until `wanted` of them found the bug or `seeds_max` were run.
pub fn hunt(bug: Bug, wanted: usize, seeds_max: u64, jobs: usize) -> Hunt {
    let next = AtomicU64::new(1);
    let found = Mutex::new(Vec::new());
    let enough = || found.lock().expect("no panic holds it").len() >= wanted;
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !enough() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > seeds_max {
                        return;
                    }
                    if let Some(failure) = simulate_planted(seed, Some(bug)).failure {
                        found.lock().expect("no panic holds it").push((seed, failure));
                    }
                }
            });
        }
    });
    let mut found = found.into_inner().expect("no panic holds it");
    found.sort_by_key(|(seed, _)| *seed);
    found.truncate(wanted);
    let last = found.last().filter(|_| found.len() == wanted).map(|(seed, _)| *seed);
    Hunt { bug, seeds: last.unwrap_or(seeds_max), found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_that_of_the_distances_between_finds() {
        let failure = Failure::Safety(String::new());
        let hunt = |seeds: &[u64]| Hunt {
            bug: Bug::AckBeforeSync,
            seeds: 100,
            found: seeds.iter().map(|seed| (*seed, failure.clone())).collect(),
        };
        assert_eq!(hunt(&[]).median_seeds(), None);
        assert_eq!(hunt(&[7]).median_seeds(), Some(7));
        assert_eq!(hunt(&[2, 12, 13]).median_seeds(), Some(2));
        assert_eq!(hunt(&[10, 20, 90]).median_seeds(), Some(10));
    }
}
