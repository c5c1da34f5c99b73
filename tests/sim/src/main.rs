//! `sim`: runs seeds of the simulator.
//!
//! ```text
//! sim --seed N [--verbose] [--double]     one seed; twice, comparing the traces
//! sim --minutes M [--jobs J]              random seeds for M minutes, on J threads
//! sim --from N --count C [--jobs J]       the seeds N to N + C - 1
//! ```
//!
//! Ends with 0, or with 127, 128 or 129 if the code under test panicked, did not come back to work,
//! or did what it must never do; then the command is printed that does it again.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let mut arguments = Arguments::default();
    while let Some(word) = words.next() {
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
    match (arguments.seed, arguments.minutes, arguments.from, arguments.count) {
        (Some(seed), None, None, None) => one(seed, arguments.verbose, arguments.double),
        (None, Some(minutes), None, None) => {
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let until = Instant::now() + Duration::from_secs(60 * minutes);
            many(since_1970.as_millis() as u64, arguments.jobs, |_| Instant::now() < until)
        }
        (None, None, Some(from), Some(count)) => {
            many(from, arguments.jobs, |seed| seed < from + count)
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn one(seed: u64, verbose: bool, double: bool) -> ExitCode {
    let lines = || verbose.then(|| Box::new(|line: &str| println!("{line}")) as Lines);
    let report = simulate(seed, lines());
    println!("{}", describe(&report));
    if double {
        let again = simulate(seed, None);
        if again.trace_hash != report.trace_hash {
            println!("NOT DETERMINISTIC: {:016x}, {:016x}", report.trace_hash, again.trace_hash);
            return ExitCode::from(129);
        }
        println!("the second run was the same: {:016x}", again.trace_hash);
    }
    exit_code(&report)
}

/// Seeds from the first on, as long as they are wanted.
fn many(first: u64, jobs: Option<u64>, wanted: impl Fn(u64) -> bool + Sync) -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let next = AtomicU64::new(first);
    let stop = AtomicBool::new(false);
    let worst = Mutex::new(ExitCode::SUCCESS);
    let totals = Mutex::new((0u64, Duration::ZERO));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..jobs.unwrap_or(cores) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !wanted(seed) {
                        return;
                    }
                    let report = simulate(seed, None);
                    let mut totals = totals.lock().expect("no panic holds it");
                    *totals = (totals.0 + 1, totals.1 + report.simulated);
                    if report.failure.is_some() {
                        println!("{}", describe(&report));
                        *worst.lock().expect("no panic holds it") = exit_code(&report);
                    }
                }
            });
        }
    });
    let took = began.elapsed();
    let (seeds, simulated) = *totals.lock().expect("no panic holds it");
    println!(
        "{seeds} seeds in {took:.1?}: {:.1} seeds/s, {:.0} simulated seconds a second",
        seeds as f64 / took.as_secs_f64(),
        simulated.as_secs_f64() / took.as_secs_f64()
    );
    *worst.lock().expect("no panic holds it")
}

fn describe(report: &Report) -> String {
    let figures = format!(
        "seed {}: {:.1?} simulated, {} occurrences, {} operations ({} unknown, {} refused), \
         {} commands, {} elections, {} crashes, {} snapshots, {} undecided, trace {:016x}",
        report.seed,
        report.simulated,
        report.occurrences,
        report.operations,
        report.unknown,
        report.refused,
        report.commands,
        report.elections,
        report.crashes,
        report.snapshots,
        report.undecided_keys,
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
