//! `sim`: runs seeds of the simulator.
//!
//! ```text
//! sim --seed N [--verbose] [--double]     one seed; twice, comparing the traces
//! sim --minutes M [--jobs J]              random seeds for M minutes, on J threads
//! sim --from N --count C [--jobs J]       the seeds N to N + C - 1
//! ```
//!
//! Exit status: 0 for success; 127 if the code under test panicked; 128 if the cluster did not come
//! back to work; 129 if it violated a safety property, or a second run differed; 2 for wrong
//! arguments. After a failure the command that repeats it is printed.
//!
//! With the feature `planted`:
//!
//! ```text
//! sim ... --plant BUG                     any of the above, with a bug planted
//! sim --planted-table [--count C] [--finds F] [--jobs J] [--plant BUG]
//!                                         how many seeds find each bug, or one: at most C seeds,
//!                                         until F of them did
//! ```

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rangedb_sim::{Failure, Lines, Report, simulate};

const USAGE: &str = "usage: sim --seed N [--verbose] [--double]\n       sim --minutes M [--jobs J]\n       sim --from N --count C [--jobs J]";

#[derive(Default)]
struct Arguments {
    seed: Option<u64>,
    verbose: bool,
    double: bool,
    minutes: Option<u64>,
    from: Option<u64>,
    count: Option<u64>,
    jobs: Option<u64>,
    #[cfg(feature = "planted")]
    planting: planting::Arguments,
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let mut arguments = Arguments::default();
    while let Some(word) = words.next() {
        #[cfg(feature = "planted")]
        if arguments.planting.take(&word, &mut words)? {
            continue;
        }
        let mut number = || words.next()?.parse().ok();
        match &*word {
            "--verbose" => arguments.verbose = true,
            "--double" => arguments.double = true,
            "--seed" => arguments.seed = Some(number()?),
            "--minutes" => arguments.minutes = Some(number()?),
            "--from" => arguments.from = Some(number()?),
            "--count" => arguments.count = Some(number()?),
            "--jobs" => arguments.jobs = Some(number()?),
            _ => return None,
        }
    }
    Some(arguments)
}

fn main() -> ExitCode {
    let Some(arguments) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    #[cfg(feature = "planted")]
    if arguments.planting.table {
        return planting::print_table(&arguments);
    }
    let run = |seed, lines| {
        #[cfg(feature = "planted")]
        rangedb_planted::plant(arguments.planting.bug);
        simulate(seed, lines)
    };
    match (arguments.seed, arguments.minutes, arguments.from, arguments.count) {
        (Some(seed), None, None, None) => one(seed, arguments.verbose, arguments.double, run),
        (None, Some(minutes), None, None) => {
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let until = Instant::now() + Duration::from_secs(60 * minutes);
            let wanted = |_| Instant::now() < until;
            many(since_1970.as_millis() as u64, jobs(&arguments), wanted, run)
        }
        (None, None, Some(from), Some(count)) => {
            many(from, jobs(&arguments), |seed| seed < from + count, run)
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Number of threads: as many as there are cores, unless `--jobs` gives another number.
fn jobs(arguments: &Arguments) -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    arguments.jobs.unwrap_or(cores)
}

fn one(
    seed: u64,
    verbose: bool,
    double: bool,
    run: impl Fn(u64, Option<Lines>) -> Report,
) -> ExitCode {
    let lines = || verbose.then(|| Box::new(|line: &str| println!("{line}")) as Lines);
    let report = run(seed, lines());
    println!("{}", describe(&report));
    if double {
        let again = run(seed, None);
        if again.trace_hash != report.trace_hash {
            println!("NOT DETERMINISTIC: {:016x}, {:016x}", report.trace_hash, again.trace_hash);
            return ExitCode::from(129);
        }
        println!("the second run was the same: {:016x}", again.trace_hash);
    }
    exit_code(&report)
}

/// Runs seeds from `first` on, as long as `wanted` accepts them.
fn many(
    first: u64,
    jobs: u64,
    wanted: impl Fn(u64) -> bool + Sync,
    run: impl Fn(u64, Option<Lines>) -> Report + Sync,
) -> ExitCode {
    let next = AtomicU64::new(first);
    let last_failure = Mutex::new(ExitCode::SUCCESS);
    let totals = Mutex::new((0u64, Duration::ZERO, 0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !wanted(seed) {
                        return;
                    }
                    let report = run(seed, None);
                    let mut totals = totals.lock();
                    totals.0 += 1;
                    totals.1 += report.simulated;
                    totals.2 += report.undecided_keys;
                    if report.failure.is_some() {
                        println!("{}", describe(&report));
                        *last_failure.lock() = exit_code(&report);
                    }
                }
            });
        }
    });
    let took = began.elapsed();
    let (seeds, simulated, undecided) = *totals.lock();
    println!(
        "{seeds} seeds in {took:.1?} on {jobs} threads: {:.1} seeds/s, \
         {:.0} simulated seconds a second, {undecided} keys too entangled to judge",
        seeds as f64 / took.as_secs_f64(),
        simulated.as_secs_f64() / took.as_secs_f64()
    );
    *last_failure.lock()
}

fn describe(report: &Report) -> String {
    let figures = format!(
        "seed {}: {:?}, {:.1?} simulated, {} occurrences, {} operations ({} unknown, {} refused), \
         {} transactions, \
         {} commands, {} elections, {} crashes, {} snapshots, {} undecided, \
         floor risen {} times, {} records dropped, {} compacted, {} too old, trace {:016x}",
        report.seed,
        report.story,
        report.simulated,
        report.occurrences,
        report.operations,
        report.unknown,
        report.refused,
        report.transactions,
        report.commands,
        report.elections,
        report.crashes,
        report.snapshots,
        report.undecided_keys,
        report.floors,
        report.dropped,
        report.compacted,
        report.too_old,
        report.trace_hash
    );
    match &report.failure {
        None => figures,
        Some(failure) => format!(
            "{figures}\nFAILED: {failure:?}\nagain: cargo run --release --workspace --bin sim -- --seed {} --verbose",
            report.seed
        ),
    }
}

fn exit_code(report: &Report) -> ExitCode {
    match report.failure {
        None => ExitCode::SUCCESS,
        Some(Failure::Crash(_)) => ExitCode::from(127),
        Some(Failure::Liveness(_)) => ExitCode::from(128),
        Some(Failure::Safety(_)) => ExitCode::from(129),
    }
}

/// Command line arguments for planted bugs, and the table of their hunts.
#[cfg(feature = "planted")]
mod planting {
    use std::process::ExitCode;

    use rangedb_planted::Bug;
    use rangedb_sim::planted::{hunt, in_few_words};

    /// Defaults: maximum number of seeds for each bug, and number of finds that end its hunt.
    const COUNT: u64 = 2000;
    const FINDS: u64 = 9;

    #[derive(Default)]
    pub struct Arguments {
        pub bug: Option<Bug>,
        pub table: bool,
        finds: Option<u64>,
    }

    impl Arguments {
        /// Takes a word of the command line. True if the word belongs to these arguments. `None` if
        /// it does, and its value is missing or wrong.
        pub fn take(
            &mut self,
            word: &str,
            rest: &mut impl Iterator<Item = String>,
        ) -> Option<bool> {
            match word {
                "--plant" => self.bug = Some(Bug::named(&rest.next()?)?),
                "--planted-table" => self.table = true,
                "--finds" => self.finds = Some(rest.next()?.parse().ok()?),
                _ => return Some(false),
            }
            Some(true)
        }
    }

    /// Prints a line of Markdown for each bug, as soon as its hunt is over.
    pub fn print_table(arguments: &super::Arguments) -> ExitCode {
        let finds = arguments.planting.finds.unwrap_or(FINDS) as usize;
        let count = arguments.count.unwrap_or(COUNT);
        println!("| Bug | What goes wrong | Seeds to find it | Finds | First found as |");
        println!("|---|---|---|---|---|");
        let mut all_found = true;
        for bug in Bug::ALL {
            if arguments.planting.bug.is_some_and(|only| only != *bug) {
                continue;
            }
            let hunt = hunt(*bug, finds, count, super::jobs(arguments) as usize);
            all_found &= !hunt.found.is_empty();
            let (name, what, found) = (bug.name(), bug.what(), hunt.found.len());
            let median = hunt.median_seeds().map_or("-".to_owned(), |median| median.to_string());
            let first = hunt.found.first().map(|(_, failure)| in_few_words(failure));
            let first = first.unwrap_or_else(|| "-".to_owned());
            println!("| `{name}` | {what} | {median} | {found} of {} | {first} |", hunt.seeds);
            if let Some((seed, failure)) = hunt.found.first() {
                let failure: String = format!("{failure:?}").chars().take(200).collect();
                eprintln!("    {name}: seed {seed}: {failure}");
            }
        }
        if all_found { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
