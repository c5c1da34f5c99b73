//! RangeDB next to etcd: three processes of each on this machine, under the same load in turn, in
//! one run. The loads are puts and gets of many keys, and increments of one. The ratios count;
//! absolute figures depend on the machine.
//!
//! The load is closed: each worker sends its next request when the last one is answered. Keys are
//! uniform over a fixed set that was written before; values are random bytes. Both databases sync
//! their logs on a quorum before they acknowledge; reads are linearizable on both.

mod cluster;
mod counter;
mod etcd;
mod heavy;
mod load;
mod rangedb;
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use comfy_table::Table;

use crate::cluster::{Cluster, Contestant};
use crate::load::{Kind, Load, Way};
use crate::report::{BEFORE, ETCD, Report};

#[derive(Parser)]
#[command(
    name = "rangedb-bench",
    about = "Puts, gets and increments per second, RangeDB next to etcd"
)]
struct Args {
    /// Numbers of workers to measure with.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256])]
    workers: Vec<usize>,
    /// Loads to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [What::Keys, What::Counter])]
    what: Vec<What>,
    /// Numbers of workers that increment one counter.
    #[arg(long, value_delimiter = ',', default_values_t = [64])]
    counter_workers: Vec<usize>,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Measurements of each kind; the tables show the median.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Keys that are written before and then used.
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    /// Bytes of each value.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// The rangedb binary; by default the one beside this one.
    #[arg(long)]
    rangedb: Option<PathBuf>,
    /// The etcd binary.
    #[arg(long, default_value = "etcd")]
    etcd: PathBuf,
    /// An earlier build of the rangedb binary, to be measured in the same run.
    #[arg(long)]
    before: Option<PathBuf>,
    /// Keys of each span that heavy work is about.
    #[arg(long, default_value_t = 100_000)]
    heavy_keys: u64,
    /// Mebibytes of memory that each node has for heavy work.
    #[arg(long, default_value_t = 1024)]
    memory_limit: u64,
    /// Measure without etcd.
    #[arg(long)]
    alone: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Puts and gets of many keys.
    Keys,
    /// Increments of one key by all workers.
    Counter,
    /// Puts beside heavy work on another range of RangeDB.
    Heavy,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let beside = std::env::current_exe()?.with_file_name("rangedb");
    let binary = args.rangedb.clone().unwrap_or(beside);
    let mut contestants = Vec::new();
    if args.what != [What::Heavy] {
        contestants.push(Contestant::new("rangedb", Cluster::rangedb(&binary, &[])?).await?);
        if let Some(before) = &args.before {
            contestants.push(Contestant::new(BEFORE, Cluster::rangedb(before, &[])?).await?);
        }
        if !args.alone {
            contestants.push(Contestant::new(ETCD, Cluster::etcd(&args.etcd)?).await?);
        }
    }
    let mut report = Report::default();
    if args.what.contains(&What::Keys) {
        measure_keys(&args, &contestants, &mut report).await?;
    }
    if args.what.contains(&What::Counter) {
        measure_counter(&args, &contestants, &mut report).await?;
    }
    if !report.is_empty() {
        println!("{}", report.table());
    }
    drop(contestants);
    if args.what.contains(&What::Heavy) {
        println!("{}", measure_heavy(&args, &binary).await?);
    }
    Ok(())
}

/// Measures heavy work in a cluster of its own, whose nodes have little memory.
async fn measure_heavy(args: &Args, binary: &Path) -> Result<Table, Failure> {
    let limit = ["--memory-limit".to_owned(), format!("{}MiB", args.memory_limit)];
    let contestant = Contestant::new("rangedb", Cluster::rangedb(binary, &limit)?).await?;
    let settings = heavy::Settings {
        keys: args.heavy_keys,
        lasts: Duration::from_secs(args.seconds),
        memory_limit: args.memory_limit << 20,
    };
    heavy::measure(&contestant.cluster, settings).await
}

async fn measure_keys(
    args: &Args,
    contestants: &[Contestant],
    report: &mut Report,
) -> Result<(), Failure> {
    let load = Load::new(args.keys, args.value_bytes, Duration::from_secs(args.seconds));
    for contestant in contestants {
        eprintln!("{}: writing {} keys", contestant.name, args.keys);
        load.fill(&*contestant.target).await?;
    }
    for kind in [Kind::Put, Kind::Get] {
        for &workers in &args.workers {
            for round in 1..=args.rounds {
                for contestant in contestants {
                    let run = load.run(contestant, kind, workers).await?;
                    let name = &contestant.name;
                    eprintln!("{kind} {workers} workers, round {round}: {name}: {run}");
                    report.add(kind, workers, name, run);
                }
            }
        }
    }
    Ok(())
}

async fn measure_counter(
    args: &Args,
    contestants: &[Contestant],
    report: &mut Report,
) -> Result<(), Failure> {
    let lasts = Duration::from_secs(args.seconds);
    for way in [Way::Condition, Way::Swap, Way::Transaction, Way::Locked] {
        let kind = Kind::Increment(way);
        for &workers in &args.counter_workers {
            for round in 1..=args.rounds {
                let able = |contestant: &&Contestant| contestant.target.can_increment(way);
                for contestant in contestants.iter().filter(able) {
                    let key = Bytes::from(format!("/bench/counter/{way:?}/{workers}/{round}"));
                    let run = counter::run(contestant, way, workers, lasts, key).await?;
                    let name = &contestant.name;
                    eprintln!("{kind} {workers} workers, round {round}: {name}: {run}");
                    report.add(kind, workers, name, run);
                }
            }
        }
    }
    Ok(())
}
