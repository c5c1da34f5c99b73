//! Hunt for planted bugs: runs seeds with a bug planted, until enough of them failed.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rangedb_planted::{Bug, plant};

use crate::{Failure, Report, simulate};

/// Result of the hunt for a bug.
#[derive(Clone, Debug)]
pub struct Hunt {
    pub bug: Bug,
    /// Number of seeds that were run, from seed 1 on.
    pub seeds: u64,
    /// Seeds that failed, ascending, with their failures.
    pub found: Vec<(u64, Failure)>,
}

impl Hunt {
    /// Returns the number of seeds within which half of all hunts find the bug, if each seed finds
    /// it with the observed probability. That is the finds divided by all seeds that were run,
    /// those after the last find included. `None` if the bug was not found.
    pub fn median_seeds(&self) -> Option<u64> {
        let share = self.found.len() as f64 / self.seeds as f64;
        match self.found.len() as u64 {
            0 => None,
            all if all == self.seeds => Some(1),
            _ => Some((0.5f64.ln() / (1.0 - share).ln()).ceil() as u64),
        }
    }
}

/// Maximum number of characters of a failure that a table shows.
const SHOWN_CHARS: usize = 80;

/// Least number of digits of a number that a table leaves out: it is a timestamp or the like.
const LONG_NUMBER_DIGITS: usize = 7;

/// The kind of a failure and a few words on it, for a cell of a table in Markdown.
pub fn in_few_words(failure: &Failure) -> String {
    let (kind, what) = match failure {
        Failure::Crash(what) => ("panic", what.clone()),
        Failure::Liveness(what) => ("standstill", property(what)),
        Failure::Safety(what) => ("safety", property(what)),
    };
    let words: Vec<&str> = what.split_whitespace().collect();
    let shown: String = words.join(" ").chars().take(SHOWN_CHARS).collect();
    format!("{kind}: {}", shown.trim_end()).replace('|', "\\|")
}

/// Returns the property that a message names: the text before a colon. Fields of records and long
/// numbers are left out, because they belong to one case.
fn property(message: &str) -> String {
    let (mut property, mut digits, mut depth) = (String::new(), String::new(), 0u32);
    for c in message.chars() {
        if c.is_ascii_digit() && depth == 0 {
            digits.push(c);
            continue;
        }
        property += if digits.len() < LONG_NUMBER_DIGITS { &digits } else { "…" };
        digits.clear();
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ':' if depth == 0 => return property,
            _ if depth == 0 => property.push(c),
            _ => {}
        }
    }
    property + if digits.len() < LONG_NUMBER_DIGITS { &digits } else { "…" }
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
    let enough = || found.lock().len() >= wanted;
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !enough() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > seeds_max {
                        return;
                    }
                    if let Some(failure) = simulate_planted(seed, Some(bug)).failure {
                        found.lock().push((seed, failure));
                    }
                }
            });
        }
    });
    let mut found = found.into_inner();
    found.sort_by_key(|(seed, _)| *seed);
    found.truncate(wanted);
    let last = found.last().filter(|_| found.len() == wanted).map(|(seed, _)| *seed);
    Hunt { bug, seeds: last.unwrap_or(seeds_max), found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_in_few_words_is_one_cell_of_a_table() {
        let safety = |what: &str| in_few_words(&Failure::Safety(what.to_owned()));
        assert_eq!(safety("a read missed a write: key a|b"), "safety: a read missed a write");
        let unseen = "Read { key: \"a\", of: Some(Row { at: 1 }) } does not see 12 at 466616321553";
        assert_eq!(safety(unseen), "safety: Read does not see 12 at …");
        let panicked = Failure::Crash("at x.rs:3:\nleft | right".to_owned());
        assert_eq!(in_few_words(&panicked), "panic: at x.rs:3: left \\| right");
        let late = Failure::Liveness("é".repeat(200));
        assert_eq!(in_few_words(&late), format!("standstill: {}", "é".repeat(SHOWN_CHARS)));
    }

    #[test]
    fn the_median_counts_the_seeds_that_found_nothing() {
        let failure = Failure::Safety(String::new());
        let median = |found: u64, seeds| {
            let found = (1..=found).map(|seed| (seed, failure.clone())).collect();
            Hunt { bug: Bug::AckBeforeSync, seeds, found }.median_seeds()
        };
        assert_eq!(median(0, 100), None);
        assert_eq!(median(7, 7), Some(1));
        assert_eq!(median(1, 2), Some(1));
        assert_eq!(median(7, 70), Some(7));
        assert_eq!(median(1, 100), Some(69));
    }
}
