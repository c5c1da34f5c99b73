//! Medians and ratios of the measurements, as a table.

use std::collections::BTreeMap;

use comfy_table::Table;

use crate::load::{Kind, Run};

/// Names of the contestants that others are compared with.
pub const ETCD: &str = "etcd";
pub const BEFORE: &str = "rangedb before";

/// Runs by kind, number of workers and database.
#[derive(Default)]
pub struct Report {
    runs: BTreeMap<(Kind, usize), BTreeMap<String, Vec<Run>>>,
}

impl Report {
    pub fn add(&mut self, kind: Kind, workers: usize, target: &str, run: Run) {
        let by_target = self.runs.entry((kind, workers)).or_default();
        by_target.entry(target.to_owned()).or_default().push(run);
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.set_header([
            "load",
            "workers",
            "database",
            "per second",
            "p50",
            "p99",
            "longest",
            "attempts",
            "fewest / most",
            "server CPU each",
            "times etcd",
            "times before",
        ]);
        for ((kind, workers), by_target) in &self.runs {
            let rate = |name| by_target.get(name).map(|runs| median(runs, |run| run.per_second));
            let (etcd, before) = (rate(ETCD), rate(BEFORE));
            for (target, runs) in by_target {
                let per_second = median(runs, |run| run.per_second);
                let times = |other: Option<f64>| {
                    other.map_or("-".into(), |other| format!("{:.2}", per_second / other))
                };
                let cpu = median(runs, |run| run.server_cpu.as_secs_f64());
                table.add_row([
                    kind.to_string(),
                    workers.to_string(),
                    target.clone(),
                    format!("{per_second:.0}"),
                    millis(median(runs, |run| run.p50.as_secs_f64())),
                    millis(median(runs, |run| run.p99.as_secs_f64())),
                    millis(median(runs, |run| run.longest.as_secs_f64())),
                    format!("{:.1}", median(runs, |run| run.attempts)),
                    format!("{:.2}", median(runs, |run| run.fairness)),
                    format!("{:.0} µs", cpu * 1e6),
                    times(etcd),
                    times(before),
                ]);
            }
        }
        table
    }
}

/// Returns the median, so that one disturbed run does not count.
fn median(runs: &[Run], figure: impl Fn(&Run) -> f64) -> f64 {
    let mut figures: Vec<f64> = runs.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn millis(seconds: f64) -> String {
    format!("{:.2} ms", seconds * 1e3)
}
