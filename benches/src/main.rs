//! RangeDB next to etcd: both as three processes on this machine, the same load on each in turn, in
//! one run. What counts are the ratios: absolute figures belong to the machine.
//!
//! The load is closed: each worker sends its next request when the last one is answered. Keys are
//! uniform over a fixed set that was written before; values are random bytes. Both databases sync
//! their logs on a quorum before they acknowledge; reads are linearizable on both.

mod cluster;
mod etcd;
mod load;
mod rangedb;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::cluster::Cluster;
use crate::load::{Kind, Load, Target};
use crate::report::Report;

#[derive(Parser)]
#[command(name = "rangedb-bench", about = "Puts and gets per second, RangeDB next to etcd")]
struct Args {
    /// Numbers of workers to measure with.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256])]
    workers: Vec<usize>,
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
    /// Measure RangeDB alone.
    #[arg(long)]
    alone: bool,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let beside = std::env::current_exe()?.with_file_name("rangedb");
    let binary = args.rangedb.clone().unwrap_or(beside);
    let mut clusters = vec![Cluster::rangedb(&binary)?];
    if !args.alone {
        clusters.push(Cluster::etcd(&args.etcd)?);
    }
    let mut targets: Vec<Box<dyn Target>> = Vec::new();
    for cluster in &clusters {
        targets.push(cluster.connect().await?);
    }
    let load = Load::new(args.keys, args.value_bytes, Duration::from_secs(args.seconds));
    let mut report = Report::default();
    for target in &targets {
        eprintln!("{}: writing {} keys", target.name(), args.keys);
        load.fill(&**target).await?;
    }
    for kind in [Kind::Put, Kind::Get] {
        for &workers in &args.workers {
            for round in 1..=args.rounds {
                for target in &targets {
                    let run = load.run(&**target, kind, workers).await?;
                    eprintln!("{kind} {workers} workers, round {round}: {}: {run}", target.name());
                    report.add(kind, workers, target.name(), run);
                }
            }
        }
    }
    println!("{}", report.table());
    Ok(())
}
